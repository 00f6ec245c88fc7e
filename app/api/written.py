"""What models have written so far, for those who look at a step or a trace: asked of Redis, only if a call is open.

A hint: nothing at all with Redis away, and never waited for longer than a blink. Which attempts may be asked about
comes from the rows that the caller was allowed to read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from app.api.shapes.step import PartialAnswer
from app.domain import ids
from app.domain.partials import Partial
from app.domain.states import CallKind, CallState
from app.engine.services import Services

Row = Mapping[str, Any]

ASKED_MOST: Final = 100
"""Open calls of one workflow that are asked about: more than a trace shows one by one."""


async def of_step(
    services: Services, calls: Sequence[Row], attempts: Mapping[UUID, Sequence[Row]]
) -> PartialAnswer | None:
    """Of the model call of a step that is open: there is one at most."""
    found = await of_calls(services, calls, [row for rows in attempts.values() for row in rows])
    for call in calls:
        for row in attempts[call["id"]]:
            partial = found.get(row["id"])
            if partial is not None:
                return PartialAnswer(
                    call=ids.encode("call", call["id"]),
                    attempt=row["n"],
                    characters=partial.characters,
                    thought=partial.thought,
                    text=partial.text,
                    tools=list(partial.tools),
                )
    return None


async def of_calls(services: Services, calls: Sequence[Row], attempts: Sequence[Row]) -> dict[UUID, Partial]:
    """By attempt."""
    if services.partial_reader is None:
        return {}
    open_calls = {
        call["id"] for call in calls if call["kind"] == CallKind.MODEL and call["state"] == CallState.INTENDED
    }
    asked = [row["id"] for row in attempts if row["call_id"] in open_calls and row["outcome"] is None]
    return await services.partial_reader.read(asked[:ASKED_MOST])
