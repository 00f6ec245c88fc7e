"""What a probe's answer means for the call it asked about: found, absent, or unclear.

found      the call succeeded, its result is what the probe found (or the `result` its declaration makes of it)
absent     believed only after the quarantine: then the call may be made again; before it the probe is asked again
unclear    asked again until the probe's deadline, then the call is in doubt and a person is asked
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from app.domain import concluding, doubting, ending, expressions, gating, parking
from app.domain.aggregate import Call
from app.domain.bindings import instant
from app.domain.facts import ProbeEnded
from app.domain.outcomes import JSON
from app.domain.plan import Probe
from app.domain.states import CallState
from app.domain.transition import Draft

MOST_REPEATS: Final = 5
"""After so many repeats that came to nothing a person looks: as many as a call may lose workers (`poison_after`)."""


def probe_ended(draft: Draft, fact: ProbeEnded) -> None:
    call = draft.call(fact.call_id)
    declared = parking.probe_of(draft, call)
    if call.state != CallState.PROBING or declared is None:
        return  # settled meanwhile, by late evidence or a person
    if fact.failure is not None:
        _unclear(draft, call, declared, fact.failure)
        return
    seen = parking.seen(draft, call, output=fact.output)
    try:
        found = declared.found.evaluate(seen)
        result = declared.result.render(seen) if found is True and declared.result is not None else fact.output
    except expressions.ExpressionError as error:
        _unclear(draft, call, declared, f"The probe's answer could not be read: {error.message}")
        return
    if found is True:
        if not draft.plan.tools[declared.tool].trusted_output:
            gating.taint(draft, draft.step(call.step))  # the result is the probe's word, whoever's the effect is
        _found(draft, call, result)
    elif found is False:
        _absent(draft, call, asked_at=fact.asked_at or draft.now)
    else:
        _unclear(draft, call, declared, f"`found` is not true or false but {type(found).__name__}.")


def _found(draft: Draft, call: Call, result: JSON) -> None:
    _settled(draft, call, "happened", "The probe found it.")
    _told(draft, call, "found", to=CallState.SUCCEEDED)
    attempt = call.attempt(call.attempt_id) if call.attempt_id else None
    concluding.succeed(draft, call, attempt, result)


def _absent(draft: Draft, call: Call, *, asked_at: datetime) -> None:
    """Not there. Until the quarantine is over that may only mean: not there yet. The question counts, not the answer:
    what a slow probe saw before the end may have come since."""
    not_before = call.not_before or asked_at
    if asked_at < not_before:
        _ask_again(draft, call, "absent", until=max(not_before - draft.now, timedelta(0)))
        return
    absent = call.tries.get("absent", 0) + 1
    call.tries = {**call.tries, "absent": absent}
    if absent > MOST_REPEATS:
        _told(draft, call, "absent", to=CallState.IN_DOUBT)
        parking.unclear(draft, call, f"Its outcome was unknown, and the probe found nothing, {absent} times in a row.")
        return
    stopped = concluding.stopped(draft, call)
    _settled(draft, call, "did_not_happen", "The probe did not find it after the quarantine.")
    _told(draft, call, "absent", to=CallState.CANCELLED if stopped else draft.due_state(call))
    call.failure = None
    call.key_deadline = None  # nothing happened under the key: a first use starts its time anew
    draft.move_call(call, CallState.CANCELLED if stopped else CallState.DUE)
    if stopped:
        draft.transition.keys_released.append(call.id)
        ending.call_gone(draft, draft.step(call.step))


def _unclear(draft: Draft, call: Call, declared: Probe, why: str) -> None:
    over = (call.not_before or draft.now) + declared.deadline
    if draft.now < over:
        _ask_again(draft, call, "unclear", until=over - draft.now)
        return
    _told(draft, call, "unclear", to=CallState.IN_DOUBT)
    parking.unclear(draft, call, why)


def _ask_again(draft: Draft, call: Call, verdict: str, *, until: timedelta) -> None:
    delay = min(parking.pause_before(call), until)
    _told(draft, call, verdict, to=CallState.PROBING, next_in=delay)
    parking.ask_probe(draft, call, delay=delay)


def _settled(draft: Draft, call: Call, outcome: str, note: str) -> None:
    call.resolved = {
        "outcome": outcome,
        "note": note,
        "by": "probe",
        "at": instant(draft.now),
        "attempts": call.attempts,
        "vouched": call.vouched,
    }


def _told(draft: Draft, call: Call, verdict: str, *, to: CallState, next_in: timedelta | None = None) -> None:
    moved = (None, None) if to is CallState.PROBING else (CallState.PROBING, to)
    if to is CallState.IN_DOUBT:
        moved = (None, None)  # the doubt tells its own move
    draft.event(
        "effect.probed",
        call=call,
        moved=moved,
        data={
            "verdict": verdict,
            "tool": call.tool,
            "probes": call.tries.get("probe", 0),
            "next_at": None if next_in is None else instant(draft.now + next_in),
        },
    )


def probe_again(draft: Draft, call: Call) -> None:
    """A person asks for the probe instead of looking: the quarantine stays as it was."""
    not_before = call.not_before
    doubting.clear(draft, call)
    if not call.vouched:  # what was said about earlier attempts is not forgotten
        call.resolved = None
    parking.probe(draft, call, since=draft.now, reason="A person asked for the tool's probe.")
    call.not_before = not_before or call.not_before
