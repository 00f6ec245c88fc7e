"""A provider of models on a loopback port for the tests of the model port, and requests to send it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.domain import conversation
from app.domain.outcomes import Outcome
from app.domain.states import FailureKind
from app.embedded import wire
from app.embedded.model import ScriptedModel
from app.embedded.wire import Request
from app.ports.model import ClaudeModel
from app.ports.world import ModelRequest

KEY = "sk-ant-test-4711"


@dataclass(kw_only=True)
class Provider:
    """A scripted model behind a port, and what it received."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    received: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Callable[[Request], Any] = field(default_factory=lambda: ScriptedModel().handle)

    def handle(self, request: Request) -> Any:
        self.requests.append(request)
        self.received.set()
        return self.answer(request)

    def body(self, number: int = -1) -> dict[str, Any]:
        received: dict[str, Any] = self.requests[number].json()
        return received


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Provider, ClaudeModel]]:
    provider = Provider()
    async with wire.listening(provider.handle) as port:
        provider.port = port
        model = ClaudeModel(base_url=f"http://127.0.0.1:{port}", api_key=KEY)
        try:
            yield provider, model
        finally:
            await model.close()


def asks(prompt: str = "Hello", **extra: Any) -> ModelRequest:
    fields: dict[str, Any] = {
        "model": "claude-haiku-5-5",
        "max_tokens": 100,
        "system": None,
        "messages": [conversation.user_message(prompt)],
    }
    return ModelRequest(**(fields | extra))


def scripted(*failures: dict[str, Any], **turn: Any) -> ModelRequest:
    told = {"turns": [{"text": "fine", "fail": list(failures), **turn}]}
    return asks(f"[[scripted: {json.dumps(told)}]]")


async def send(model: ClaudeModel, request: ModelRequest, *, seconds: float = 10.0) -> Outcome:
    return await model.send(request, seconds=seconds, may_send=lambda: True)


def kind_of(outcome: Outcome) -> FailureKind:
    assert outcome.failure is not None
    return outcome.failure.kind
