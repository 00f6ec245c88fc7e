"""What becomes of a call whose outcome nobody knows and that must not be repeated: probed, given up, or in doubt.

    park      by what is declared: the step's `on_unknown_outcome`, else the tool's probe, else a person
    probe     `probing` until its probe has told (`app/domain/probing.py`) or was unclear too long
    ask_probe the next probe, a call of its own

"found" is believed at once, "absent" only after the quarantine: `not_before`, when the sender is silent and nothing
of its request is in flight any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from app.domain import bindings, calling, doubting, expressions
from app.domain.aggregate import Call
from app.domain.bindings import instant
from app.domain.outcomes import JSON
from app.domain.plan import Probe
from app.domain.states import CallKind, CallState
from app.domain.transition import Draft

FIRST_PAUSE: Final = timedelta(seconds=1)
LONGEST_PAUSE: Final = timedelta(seconds=60)
"""Between two probes, doubled each time: what is not there after minutes will rarely be there a second later."""


def park(draft: Draft, call: Call, *, since: datetime, reason: str, person: bool = False) -> None:
    """`since`: when the sender was silent. Afterwards the call is probing, in doubt or abandoned. `person`: a person
    is asked whatever is declared."""
    wish = _declared(draft, call)
    if person or wish == "ask":
        doubting.doubt(draft, call, since=since, reason=reason)
    elif wish == "abandon":
        abandon(draft, call, reason=reason)
    elif probe_of(draft, call) is not None:
        probe(draft, call, since=since, reason=reason)
    else:
        doubting.doubt(draft, call, since=since, reason=reason)


def must_park(draft: Draft, call: Call) -> bool:
    """Whether the step's `on_unknown_outcome` forbids the repeat that the effect class would allow."""
    return _declared(draft, call) is not None


def _declared(draft: Draft, call: Call) -> str | None:
    step = draft.plan.steps[draft.step(call.step).name]
    return step.on_unknown_outcome if call.kind == CallKind.TOOL else None


def probe_of(draft: Draft, call: Call) -> Probe | None:
    tool = None if call.tool is None else draft.plan.tools.get(call.tool)
    return None if tool is None else tool.probe


def abandon(draft: Draft, call: Call, *, reason: str, by: str = "on_unknown_outcome: abandon") -> None:
    """Given up without asking anybody: declared so, or not wanted. It is listed, and never compensated silently."""
    before = call.state
    call.resolved = {
        "outcome": "abandon",
        "note": reason,
        "by": by,
        "at": instant(draft.now),
        "attempts": call.attempts,
        "vouched": call.vouched,
    }
    draft.move_call(call, CallState.ABANDONED)
    draft.workflow.effects_abandoned += 1
    draft.event(
        "effect.resolved",
        call=call,
        attempt=call.attempt_id,
        moved=(before, CallState.ABANDONED),
        data={"outcome": "abandon", "by": by, "note": reason},
    )


def probe(draft: Draft, call: Call, *, since: datetime, reason: str) -> None:
    """Begin to probe. The first question is asked at once: found is believed whenever it is found."""
    before = call.state
    call.not_before = doubting.quarantine_of(draft, call, since=since)
    call.doubt_since = draft.now
    call.failure = {"kind": "unknown_outcome", "message": reason, "fix": None}
    call.tries = {**call.tries, "probe": 0}  # another attempt: its pauses grow anew
    draft.move_call(call, CallState.PROBING)
    draft.event(
        "effect.call.changed",
        call=call,
        attempt=call.attempt_id,
        moved=(before, CallState.PROBING),
        data={"reason": reason},
    )
    ask_probe(draft, call, delay=timedelta(0))


def ask_probe(draft: Draft, call: Call, *, delay: timedelta) -> None:
    """One probe more. If its question cannot even be put, a person is asked."""
    declared = probe_of(draft, call)
    if declared is None:
        raise ValueError(f"call {call.id} is probing without a probe")
    row = draft.step(call.step)
    try:
        arguments = declared.arguments.render(seen(draft, call))
    except expressions.ExpressionError as error:
        unclear(draft, call, f"The probe's arguments could not be made: {error.message}")
        return
    asked = calling.probe_call(draft, row, draft.plan.tools[declared.tool], arguments, target=call, delay=delay)
    call.probe_id = asked.id
    call.tries = {**call.tries, "probe": call.tries.get("probe", 0) + 1}
    draft.touch_call(call)


def unclear(draft: Draft, call: Call, why: str) -> None:
    """The probe cannot tell: a person is asked, with the quarantine as it was."""
    not_before = call.not_before
    doubting.doubt(draft, call, since=draft.now, reason=why)
    call.not_before = not_before or call.not_before


def stop_probe(draft: Draft, call: Call) -> None:
    """The call was settled otherwise: nobody needs the probe's answer any more."""
    asked = None if call.probe_id is None else draft.snapshot.calls.get(call.probe_id)
    if asked is None or asked.kind != CallKind.PROBE or CallState(asked.state).final:
        return
    draft.move_call(asked, CallState.CANCELLED)


def pause_before(call: Call) -> timedelta:
    """How long until the next probe."""
    return min(FIRST_PAUSE * 2.0 ** min(call.tries.get("probe", 0) - 1, 10), LONGEST_PAUSE)


def seen(draft: Draft, call: Call, **more: JSON) -> dict[str, JSON]:
    """What the expressions of a probe see."""
    return {"arguments": call.request["arguments"], "input": draft.workflow.input, "key": call.key, **more}


def instant_of(at: datetime | None) -> str | None:
    return bindings.instant(at)
