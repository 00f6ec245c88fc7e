"""The three ledgers that are believed, as values, and the faults that were given. None of them is our database.

    ToolEntry    one request as the tool server's own fsynced ledger has it (`app/embedded/tool_ledger.py`)
    Submission   one idempotency key in the client's ledger, with every reply (or none) it got
    Sighting     a status the client has read
    Resolution   what the client, as an operator, has said about an effect after looking into the tool's ledger
    Receipt      one webhook as it reached the receiver, byte for byte
    Fault        what was done to the installation, when, to whom

A tool server may attribute an entry to a call by the `Surefoot-Call` and `Surefoot-Attempt` headers it received; how
often something was executed is counted by tool and arguments, which no header of ours can change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

KINDS: Final[Mapping[str, str]] = {
    "calendar.create_event": "keyed",
    "calendar.delete_event": "idempotent",
    "email.send": "at_most_once",
    "payments.authorize": "keyed",
    "payments.settle": "keyed",
    "payments.refund": "keyed",
    "payments.void": "idempotent",
    "reports.render": "keyed",
}
"""What each demo tool is in the world, however a definition declares it: a mail is sent as often as it is asked for,
so that `checkable` and `at_most_once` mean the same here. A tool that is not listed changes nothing."""

UNDONE_BY: Final[Mapping[str, tuple[str, str]]] = {
    "calendar.create_event": ("calendar.delete_event", "event_id"),
    "payments.authorize": ("payments.void", "authorization_id"),
    "payments.settle": ("payments.refund", "settlement_id"),
}
"""Which tool undoes which, and the field of the result that its arguments name."""

RESULT: Final = "reports.result"
"""Not a request: the ledger's line about a report that was finished after its 202."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolEntry:
    tool: str
    key: str | None
    arguments: Mapping[str, Any]
    executed: bool
    """The world was changed by this request (a replay of a key, or a second DELETE, changes nothing)."""
    status: int
    """What the tool meant to answer; 0: it hung up."""
    at: datetime
    call: str | None = None
    attempt: int | None = None
    workflow: str | None = None
    result: Any = None

    @property
    def kind(self) -> str | None:
        return KINDS.get(self.tool)

    @property
    def done(self) -> bool:
        """After this answer what was asked for is so, by this request or by one before it."""
        return self.executed or 200 <= self.status < 300

    @property
    def bytes(self) -> str:
        """Tool and arguments, canonical: the identity of what was asked for."""
        return json.dumps([self.tool, self.arguments], sort_keys=True)


def tool_entries(lines: Iterable[Mapping[str, Any]]) -> list[ToolEntry]:
    """Entries as `GET /ledger` or the ledger's file has them, without the results of reports, which name no sender."""
    return [
        ToolEntry(
            tool=line["tool"],
            key=line["key"],
            arguments=line["arguments"],
            executed=line["executed"],
            status=line["status"],
            at=datetime.fromisoformat(line["at"]),
            call=line.get("call"),
            attempt=int(line["attempt"]) if line.get("attempt") else None,
            workflow=line.get("workflow"),
            result=line.get("result"),
        )
        for line in lines
        if line["tool"] != RESULT
    ]


def read_tool_ledger(path: Path) -> list[ToolEntry]:
    """From the file; a last line that is being written is not there yet."""
    whole = path.read_bytes()
    return tool_entries(json.loads(line) for line in whole[: whole.rfind(b"\n") + 1].splitlines())


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    status: int | None
    """None: the connection broke; nobody knows whether it was accepted."""
    workflow: str | None = None


@dataclass(kw_only=True, slots=True)
class Submission:
    key: str
    tag: str
    """In the input as `tag`, so that a workflow can be told to be this one."""
    replies: list[Reply] = field(default_factory=list)

    @property
    def accepted(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.status in (200, 202) and reply.workflow]

    @property
    def lost(self) -> int:
        return sum(reply.status is None for reply in self.replies)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    workflow: str
    status: str
    revision: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    effect: str
    outcome: str
    """happened, did_not_happen or abandon."""
    status: int
    """How the API answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    id: str
    """`webhook-id`: the event."""
    body: bytes
    headers: Mapping[str, str]
    status: int
    """What the receiver answered; 0: it hung up or was too slow."""
    at: datetime

    @property
    def data(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.body)["data"]
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """`pids`: processes that died or froze. `marks`: texts in the arguments of calls whose tool was told to misbehave.
    Neither: everybody was hit (a database that stopped, a network that was cut) between `at` and `until`."""

    kind: str
    at: datetime
    until: datetime
    pids: frozenset[int] = frozenset()
    marks: frozenset[str] = frozenset()


@dataclass(kw_only=True, slots=True)
class Ledgers:
    """All that the world knows."""

    tools: Sequence[ToolEntry] = ()
    submissions: Sequence[Submission] = ()
    sightings: Sequence[Sighting] = ()
    resolutions: Sequence[Resolution] = ()
    receipts: Sequence[Receipt] = ()
    faults: Sequence[Fault] = ()
