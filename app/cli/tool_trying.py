"""The bench a tool is tried on: sends requests, loses answers on purpose, asks the witness, keeps what was seen.

Each `Try` is one request as a worker would send it (the same port, the same guard), with what the witness said after
it. Of a Python tool a request is a call of its function in this process, and an answer is lost by not looking at it.
Raises `Stop` where nothing can be learnt: not reached, refused, no certain answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from app.cli.exits import UNREACHABLE, USAGE, Stop
from app.cli.tool_witness import Seen, Witness
from app.domain import bodies, mcp_replies
from app.domain.certainty import SUCCESS
from app.domain.outcomes import JSON, Outcome
from app.domain.plan import Tool
from app.domain.states import AttemptOutcome, EffectClass, FailureKind
from app.ports.cutting import NotCut
from app.ports.world import ToolPort, ToolRequest

IN_PROGRESS: Final = 409
"""What a keyed tool answers while it is still at work on the request with this key."""

RETURNED: Final = 200
REFUSED: Final = 422
"""What a function that returned, or definitely failed, counts as among answers: its own have no status."""

_PAUSE: Final = 0.1
"""Seconds between two looks at something that takes its time."""


class KeyLost(Exception):
    """The declaration makes requests without the key. The message says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    number: int
    key: str | None
    status: int | None
    """None: the answer was not waited for."""
    said: str
    """The answer in a word: its status, or what the function did."""
    body: JSON
    seen: Seen | None
    """What the witness said after it; None without one."""

    @property
    def carried_out(self) -> bool:
        return self.status in SUCCESS


class Losing(Protocol):
    """Sends a request whose answer nobody waits for. Raises `NotCut` if it did not leave."""

    async def send(self, request: ToolRequest, *, seconds: float) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Unheard:
    """Loses the answer of a function: it is called as always, and nobody looks at what it came to."""

    port: ToolPort

    async def send(self, request: ToolRequest, *, seconds: float) -> None:
        outcome = await self.port.send(request, seconds=seconds, may_send=lambda: True)
        if outcome.certainty is AttemptOutcome.NOT_SENT and outcome.failure is not None:
            raise NotCut(outcome.failure.message.rstrip("."))


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is tried."""

    tool: Tool
    arguments: Mapping[str, JSON]
    run: str
    """Different in every run: keys and ids are made of it."""
    unique: bool
    """Whether nobody can have used these arguments before."""
    witness: Witness | None


class Bench:
    def __init__(self, case: Case, *, port: ToolPort, cutter: Losing) -> None:
        self.case = case
        self.tries: list[Try] = []
        self._port, self._cutter = port, cutter
        self._seconds = case.tool.timeout.total_seconds()

    async def answered(self, key: str | None = None) -> Try:
        """One request and its answer. A keyed tool that is still busy with this key is asked again."""
        end = time.monotonic() + self._seconds
        while True:
            outcome = await self._send(self.case.tool, self.case.arguments, key)
            status = _status(outcome)
            busy = status == IN_PROGRESS and self.case.tool.effect is EffectClass.KEYED
            if not busy or time.monotonic() > end:
                break
            await asyncio.sleep(_PAUSE)
        if status is None:
            raise self._silent(outcome)
        return await self._keep(key, status=status, said=_said(outcome), body=_body(outcome, self.case.tool))

    async def first(self, key: str | None = None) -> Try:
        """An answered request that must go well, or nothing can be said."""
        tried = await self.answered(key)
        if not tried.carried_out:
            what = f"{self.case.tool.name} answered {tried.said}; a refused request says nothing about the declaration."
            raise Stop(what, fix="Give arguments that it accepts: --arguments '{…}'", code=USAGE)
        return tried

    async def cut(self, key: str | None = None) -> Try:
        """One request whose answer nobody waits for."""
        try:
            await self._cutter.send(self._request(self.case.tool, self.case.arguments, key), seconds=self._seconds)
        except NotCut as error:
            raise Stop(f"{self.case.tool.name} was not reached: {error}.", code=UNREACHABLE) from error
        return await self._keep(key, status=None, said="lost", body=None)

    async def look(self, key: str | None = None) -> Seen | None:
        if self.case.witness is None:
            return None
        return await self.case.witness.look(self._ask, arguments=self.case.arguments, key=key)

    async def until_found(self, key: str | None, *, seconds: float) -> tuple[bool, float]:
        """(whether the probe finds it within that time, after how long)."""
        began = time.monotonic()
        while True:
            seen = await self.look(key)
            took = time.monotonic() - began
            if seen is not None and seen.found:
                return True, took
            if took >= seconds:
                return False, took
            await asyncio.sleep(min(_PAUSE, seconds))

    async def _keep(self, key: str | None, *, status: int | None, said: str, body: JSON) -> Try:
        seen = await self.look(key)
        tried = Try(number=len(self.tries) + 1, key=key, status=status, said=said, body=body, seen=seen)
        self.tries.append(tried)
        return tried

    async def _ask(self, tool: Tool, arguments: Mapping[str, JSON]) -> Outcome:
        return await self._send(tool, arguments, None)

    async def _send(self, tool: Tool, arguments: Mapping[str, JSON], key: str | None) -> Outcome:
        request = self._request(tool, arguments, key)
        return await self._port.send(request, seconds=tool.timeout.total_seconds(), may_send=lambda: True)

    def _request(self, tool: Tool, arguments: Mapping[str, JSON], key: str | None) -> ToolRequest:
        headers = {
            "Surefoot-Workflow": f"tool-check-{self.case.run}",
            "Surefoot-Call": f"tool-check-{self.case.run}-{key or 1}",
            "Surefoot-Attempt": str(len(self.tries) + 1),
        }
        return ToolRequest(tool=tool, arguments=arguments, key=key, headers=headers, fresh_connection=True)

    def _silent(self, outcome: Outcome) -> Exception:
        failure = outcome.failure
        said = failure.message if failure is not None else f"{self.case.tool.name} did not answer."
        if outcome.certainty is AttemptOutcome.NOT_SENT and failure is not None:
            if failure.kind is FailureKind.INVALID_REQUEST and self.case.tool.effect is EffectClass.KEYED:
                return KeyLost(said)
            return Stop(said, fix=failure.fix, code=UNREACHABLE)
        return Stop(said, fix="It may have been carried out; look before you try again.", code=USAGE)


def _status(outcome: Outcome) -> int | None:
    """None: no answer."""
    if outcome.status_code is not None:
        return None if outcome.evidence is None else outcome.status_code
    if outcome.certainty is AttemptOutcome.SUCCEEDED:
        return RETURNED
    return REFUSED if outcome.certainty is AttemptOutcome.FAILED else None


def _said(outcome: Outcome) -> str:
    if outcome.status_code is not None:
        return str(outcome.status_code)
    return "returned" if outcome.failure is None else f"no: {outcome.failure.message}"


def _body(outcome: Outcome, tool: Tool) -> JSON:
    if outcome.evidence is None:
        return None
    evidence = outcome.evidence
    value = bodies.read_body(evidence.body, evidence.media_type, truncated=evidence.truncated)
    return value if tool.mcp is None else mcp_replies.output_of(value)
