"""What a restored database means for a call: it may have been sent in the time that the restore has lost.

    mark          a call of a workflow that was alive at a restore carries that from the moment it is made
    forget_words  what somebody vouched for before the restore says nothing about the lost time

The mark stands in `Call.tries` (`restored`), is read by `Call.lost_past`, and ends with a verdict: a person or a probe
said afterwards that it did not happen. Read-only calls and model calls never carry it: they may be repeated freely.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from app.domain.aggregate import Call, Workflow
from app.domain.facts import name_of
from app.domain.plan import Plan
from app.domain.states import CallKind, EffectClass

MARK: Final = "restored"
REPEATED: Final = 1
"""Made again as it is: safe by declaration."""
PARKED: Final = 2
"""Parked when somebody would claim it; the claim reads this number (`app/store/claims.py`)."""

KEY_MARGIN: Final = timedelta(seconds=60)
"""A key first used in the lost time is not trusted this long before its tool forgets it: two clocks are involved."""

_UNREPEATABLE: Final = frozenset({EffectClass.CHECKABLE, EffectClass.AT_MOST_ONCE})


def mark(workflow: Workflow, call: Call, *, plan: Plan | None = None) -> None:
    """Note on an effect of this workflow what the restore makes of it; nothing if there was none. With the plan a
    step's `on_unknown_outcome` counts, too."""
    if workflow.restored_to is None or call.effect == EffectClass.READ_ONLY:
        return
    step = plan.steps[name_of(call.step)] if plan is not None and call.kind == CallKind.TOOL else None
    tightened = step is not None and step.on_unknown_outcome is not None
    call.tries = {**call.tries, MARK: PARKED if tightened or call.effect in _UNREPEATABLE else REPEATED}
    if call.effect == EffectClass.KEYED and call.key_ttl_ms is not None and call.key_deadline is None:
        # The tool may know this key since the first instant that was lost, and forgets it so much later.
        call.key_deadline = workflow.restored_to + timedelta(milliseconds=call.key_ttl_ms) - KEY_MARGIN


def forget_words(call: Call) -> None:
    """Somebody said "it did not happen", and it was true then: what was sent on that word may be in the lost time."""
    if (call.resolved or {}).get("outcome") == "did_not_happen":
        call.resolved = None
