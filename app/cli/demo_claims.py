"""What the demo claims, checked: pure functions from the API's answers and the tools' own books to claims.

The oracle is the tools' ledger, never Surefoot's database. A claim that is not true says what was found instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.domain.outcomes import JSON
from app.domain.spans import Span, Trace

CREATE: Final = "calendar.create_event"
MAIL: Final = "email.send"

Entry = Mapping[str, JSON]


@dataclass(frozen=True, kw_only=True)
class Claim:
    text: str
    true: bool
    found: str = ""
    """What was found, shown if it is not true."""


def succeeded(workflow: Mapping[str, JSON], *, which: str) -> Claim:
    return Claim(
        text=f"{which} succeeded",
        true=workflow["status"] == "succeeded",
        found=f"{workflow['status']}: {workflow['headline']}",
    )


def recovered_from_malformed_answer(trace: Trace) -> list[Claim]:
    """One answer that was no JSON, one reminder, then an answer that was; and it is paid for in the open."""
    records = [record for span in trace.root.walk() for record in span.recovery]
    kinds = Counter(str(record["kind"]) for record in records)
    reminders = [record for record in records if record.get("change") == "format_reminder"]
    attempts = [span for span in trace.root.walk() if span.kind == "attempt"]
    spent = sum(span.cost_usd is not None for span in attempts)
    return [
        Claim(
            text="one model answer was malformed, and the trace shows it",
            true=kinds["malformed_output"] == 1,
            found=f"recovery records: {dict(kinds)}",
        ),
        Claim(
            text="it was asked again with a format reminder, and that answer was valid",
            true=len(reminders) == 1 and reminders[0].get("result") == "succeeded",
            found=f"reminders: {reminders}",
        ),
        Claim(text="every model attempt has its cost", true=spent >= 3, found=f"{spent} attempts with a cost"),
    ]


def done_once(ledger: Sequence[Entry], workflow_id: str, *, attendees: int, which: str) -> list[Claim]:
    """In the tools' own books: the event was created exactly once, and each attendee got exactly one mail."""
    mine = [entry for entry in ledger if entry.get("workflow") == workflow_id and entry["executed"]]
    events = [entry for entry in mine if entry["tool"] == CREATE]
    mails = Counter(str(entry["arguments"]["to"]) for entry in mine if entry["tool"] == MAIL)
    once = len(mails) == attendees and set(mails.values()) == {1}
    return [
        Claim(
            text=f"{which}: the calendar created its event once",
            true=len(events) == 1,
            found=f"created {len(events)} times",
        ),
        Claim(text=f"{which}: every attendee got one mail", true=once, found=f"mails: {dict(mails)}"),
    ]


def survived_the_kill(trace: Trace, ledger: Sequence[Entry], workflow_id: str) -> list[Claim]:
    """The attempt of the killed worker is lost, the next one brought the same key, and the calendar recognised it."""
    tries = [span for call in _calls(trace, CREATE) for span in call.children]
    asked = [entry for entry in ledger if entry.get("workflow") == workflow_id and entry["tool"] == CREATE]
    keys = {entry["key"] for entry in asked}
    return [
        Claim(
            text="the killed worker's attempt is in the trace, and so is the one after it",
            true=len(tries) >= 2 and tries[0].status == "lost" and tries[-1].status == "succeeded",
            found=f"tries: {[span.status for span in tries]}",
        ),
        Claim(
            text="the second request carried the same key, and the calendar absorbed it",
            true=len(asked) >= 2 and len(keys) == 1 and sum(bool(entry["executed"]) for entry in asked) == 1,
            found=f"requests: {[(entry['key'], entry['executed']) for entry in asked]}",
        ),
    ]


def one_workflow(first_id: str, again_id: str, *, replayed: bool) -> Claim:
    return Claim(
        text="the same POST with the same key is the same workflow",
        true=first_id == again_id and replayed,
        found=f"{first_id} and {again_id}, replayed: {replayed}",
    )


def one_entry_per_meeting(calendar: Sequence[Entry], *, meetings: int) -> Claim:
    return Claim(
        text=f"the calendar has one entry per meeting: {meetings}",
        true=len(calendar) == meetings,
        found=f"{len(calendar)} entries",
    )


def _calls(trace: Trace, tool: str) -> list[Span]:
    return [span for span in trace.root.walk() if span.kind == "call" and span.name == tool]
