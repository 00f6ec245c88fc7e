"""The database was set back to an earlier instant: what its workflows did afterwards happened, and is not known here.

    restore            every open effect of one workflow that was alive then: marked, and looked at
    may_have_happened  one of them: made again, or parked (probed, in doubt, given up) as its tool and step declare

An effect that is idempotent, or keyed while its tool remembers the key, is simply made again: same bytes, same key. Of
the others the restored rows cannot say whether they were sent, neither now nor when the workflow makes them later:
such a later call is marked when it is made (`rewound.mark`) and parked when somebody would claim it.
Never: believes a verdict of before the restore, or touches model calls and calls that change nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from app.domain import repeating, rewound
from app.domain.aggregate import Call
from app.domain.bindings import instant
from app.domain.facts import DatabaseRestored, MayHaveHappened
from app.domain.states import CallState, EffectClass
from app.domain.transition import Draft

ATTENTION: Final = "restored"


def restore(draft: Draft, fact: DatabaseRestored) -> None:
    """Idempotent: again it finds nothing that could still be sent. An earlier restore's instant stays the limit."""
    workflow = draft.workflow
    if all(tool.effect is EffectClass.READ_ONLY for tool in draft.plan.tools.values()):
        return
    told = workflow.restored_to == fact.to and ATTENTION in workflow.attention
    workflow.restored_to = fact.to if workflow.restored_to is None else min(fact.to, workflow.restored_to)
    if not told:
        draft.attend(ATTENTION)
    for call in list(draft.snapshot.calls.values()):
        if call.effect != EffectClass.READ_ONLY and not CallState(call.state).final:
            _doubt_the_past(draft, call)


def _doubt_the_past(draft: Draft, call: Call) -> None:
    rewound.forget_words(call)
    rewound.mark(draft.workflow, call, plan=draft.plan)
    draft.touch_call(call)
    match call.state:
        case CallState.IN_DOUBT | CallState.PROBING:
            # It may have been settled, sent again and still be in flight: its quarantine begins anew.
            quiet = draft.now + timedelta(milliseconds=call.settle_ms)
            call.not_before = quiet if call.not_before is None else max(quiet, call.not_before)
        case CallState.DUE | CallState.INTENDED:
            draft.then(MayHaveHappened(call_id=call.id, step=call.step))


def may_have_happened(draft: Draft, fact: MayHaveHappened) -> None:
    """Parked before it is sent again, if it may not be. What is held stays held: it comes here when it is claimed."""
    call = draft.call(fact.call_id)
    if call.state not in (CallState.DUE, CallState.INTENDED) or not call.lost_past:
        return
    if call.tries[rewound.MARK] == rewound.REPEATED and repeating.repeatable(draft, call):
        return
    since = draft.now
    attempt = call.attempt(call.attempt_id) if call.state == CallState.INTENDED and call.attempt_id else None
    if attempt is not None and attempt.outcome is None:
        # Its sender may live: it keeps its deadline, and what it hears still counts, as late evidence.
        since = max(since, attempt.send_deadline)
        attempt.lost_at = attempt.lost_at or draft.now
        draft.touch_attempt(attempt)
    to = "" if draft.workflow.restored_to is None else f" to {instant(draft.workflow.restored_to)}"
    reason = f"The database was restored{to}; this may have been sent in the time that was lost."
    repeating.park(draft, call, since=since, reason=reason)
