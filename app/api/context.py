"""What a request carries besides its parameters: the services of the process, the stop signal, its own identity.

`Passage` is made by `app/api/edge.py` for every request; the rest is put on the application by `app/main.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from app.domain.traceparent import TraceParent
from app.engine.services import Services


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """One request's way through."""

    request_id: str
    trace: TraceParent


def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


def stopping_of(request: Request) -> asyncio.Event:
    """Set when the server is asked to stop: whoever holds a request lets go."""
    return cast(asyncio.Event, request.app.state.stopping)


def passage_of(request: Request) -> Passage:
    return cast(Passage, request.scope["state"]["passage"])
