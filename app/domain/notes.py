"""What the engine has to tell a model in mid-conversation: a tool is gone, it goes in circles, this is its last answer.

A note is a message of its own, never text beside results. Models that take it get a `system` message, which only stands
behind a `user` message; the others get a `user` message. Several notes at one point are one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.domain import calling, conversation, model_facts
from app.domain.aggregate import StepRow
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step
from app.domain.transition import Draft

NOTED: Final = "noted"
"""Counter on an agent step: the place behind its latest system note."""
_PLACES: Final = 1_000_000
"""More messages than a conversation has: so that (conversation, message) is one number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is to be said at the end of a turn, and why; or that the step does not go on."""

    notes: tuple[str, ...] = ()
    records: tuple[JSON, ...] = ()
    failure: Failure | None = None

    def and_also(self, other: Verdict) -> Verdict:
        """Both; of two failures the first."""
        return Verdict(
            notes=self.notes + other.notes,
            records=self.records + other.records,
            failure=self.failure or other.failure,
        )


def append(draft: Draft, row: StepRow, step: Step, notes: Sequence[str]) -> None:
    if not notes:
        return
    takes = model_facts.facts(calling.model_of(row, step)).system_messages
    # One stands there already if nothing came of the call that it was written for.
    role = "system" if takes and row.counters.get(NOTED) != _place(row) else "user"
    calling.append(draft, row, role=role, body=conversation.note("\n".join(notes), role=role))
    if role == "system":
        row.counters = {**row.counters, NOTED: _place(row)}


def among(row: StepRow) -> bool:
    """Whether a system note stands in the current conversation."""
    return row.counters.get(NOTED, 0) // _PLACES == row.conversation


def carried(row: StepRow, roles: Sequence[str]) -> None:
    """The conversation was carried over under another number; these are the roles of its messages."""
    last = max((place for place, role in enumerate(roles) if role == "system"), default=None)
    kept = {name: n for name, n in row.counters.items() if name != NOTED}
    row.counters = kept if last is None else {**kept, NOTED: row.conversation * _PLACES + last + 1}


def _place(row: StepRow) -> int:
    return row.conversation * _PLACES + row.messages


def change_of(records: Sequence[JSON]) -> JSON:
    """What a call with these records says of itself; None if it is like any other."""
    if not records:
        return None
    return {"change": records[0]["change"], "diff": [line for record in records for line in record["diff"] or []]}
