"""A worker is lost, or a key may be forgotten: what becomes of the call, by its effect class.

A lapsed lease makes nothing claimable: only this decides.
"""

from __future__ import annotations

from app.domain import concluding, doubting, parking, recovery, repeating
from app.domain.aggregate import Attempt, Call
from app.domain.facts import KeyExpired, WorkerLost
from app.domain.outcomes import Failure
from app.domain.states import (
    ACCEPTED,
    EARLY_CLASSES,
    CallKind,
    CallState,
    DueKind,
    EffectClass,
    FailureKind,
    HeldReason,
)
from app.domain.transition import Draft, Due


def lose(draft: Draft, fact: WorkerLost) -> None:
    """A lapsed lease makes nothing claimable: this decides, knowing the class. A class that must not be repeated stays
    `intended` until its sender is known to be silent, so that a late reply can still settle it quietly."""
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    if attempt is None or attempt.outcome is not None or attempt.lost_at is not None:
        return
    if attempt.status_code == ACCEPTED:
        return  # its worker has told all it knows; the tool's result is waited for
    if call.attempt_id != attempt.id or call.state != CallState.INTENDED:
        attempt.lost_at = draft.now
        draft.touch_attempt(attempt)
        return
    silent_at = doubting.silent_at(draft, attempt)
    sender = draft.snapshot.workers.get(attempt.worker)
    safe = call.effect in EARLY_CLASSES and not parking.must_park(draft, call)
    early = safe and sender is not None and sender.lost_at is not None
    if not early and draft.now < silent_at:
        draft.clear_due(DueKind.CALL, call.id)
        draft.set_due(
            Due(
                kind=DueKind.ATTEMPT,
                ref=call.id,
                due_at=silent_at,
                ring_at=silent_at,
                lane=call.lane,
                worker=attempt.worker,
            )
        )
        return
    attempt.lost_at = draft.now
    draft.touch_attempt(attempt)
    call.lost_in_a_row += 1
    draft.event(
        "agent.worker.lost", call=call, attempt=attempt.id, data={"worker": str(attempt.worker), "attempt": attempt.n}
    )
    if not repeating.repeatable(draft, call) or parking.must_park(draft, call):
        repeating.park(
            draft,
            call,
            since=max(silent_at, attempt.intended_at),
            reason="The worker was lost after it may have sent the request.",
        )
    elif call.effect == EffectClass.READ_ONLY and concluding.stopped(draft, call):
        concluding.cancel(
            draft,
            call,
            Failure(
                kind=FailureKind.WORKER_LOST,
                message="The worker was lost; the call changes nothing and is not needed any more.",
            ),
        )
    elif call.lost_in_a_row >= draft.rules.poison_after and _ends_with_it(draft, call):
        # Held, it would stand before the end for ever: a doubt is what a person can settle.
        doubting.doubt(
            draft, call, since=max(silent_at, draft.now), reason=f"It lost {call.lost_in_a_row} workers in a row."
        )
    elif call.lost_in_a_row >= draft.rules.poison_after and call.kind == CallKind.PROBE:
        why = f"The probe lost {call.lost_in_a_row} workers in a row."
        concluding.fail(draft, call, Failure(kind=FailureKind.WORKER_LOST, message=why))
    elif call.lost_in_a_row >= draft.rules.poison_after:
        _poison(draft, call)
    else:
        _repeat_after_loss(draft, call, attempt)


def _ends_with_it(draft: Draft, call: Call) -> bool:
    """Whether a workflow that is on its way to its end waits for it."""
    return call.kind == CallKind.COMPENSATION or concluding.stopped(draft, call)


def _repeat_after_loss(draft: Draft, call: Call, attempt: Attempt) -> None:
    step = concluding.step_of(draft, call)
    policy = step.retry[FailureKind.WORKER_LOST]
    record = recovery.record(
        FailureKind.WORKER_LOST,
        policy,
        change=None,
        message="The worker was lost; the call was made again.",
        used=call.lost_in_a_row,
    )
    call.recovery = [*call.recovery, {**record, "attempt": attempt.n}]
    draft.workflow.retries += 1
    draft.move_call(call, CallState.DUE)
    draft.event(
        "agent.step.retried",
        call=call,
        attempt=attempt.id,
        moved=(CallState.INTENDED, call.state),
        data={"kind": FailureKind.WORKER_LOST, "rule": record["rule"], "change": None, "delay_ms": 0},
    )


def _poison(draft: Draft, call: Call) -> None:
    """A call that loses worker after worker is held: never a hot loop."""
    draft.move_call(call, CallState.HELD, held=HeldReason.POISONED)
    draft.event(
        "effect.call.changed",
        call=call,
        moved=(CallState.INTENDED, CallState.HELD),
        data={"reason": HeldReason.POISONED},
    )
    draft.attend("poisoned", tool=call.tool)


def expire_key(draft: Draft, fact: KeyExpired) -> None:
    """Due, but the tool may have forgotten its key: as unknown as if it had none."""
    call = draft.call(fact.call_id)
    if call.state != CallState.DUE:
        return
    if call.uncertain or call.lost_past:
        repeating.park(
            draft,
            call,
            since=draft.now,
            reason="The tool may have forgotten the key of an attempt whose outcome is unknown.",
        )
    else:
        call.key_deadline = None  # nothing was executed under it: a first use starts its time anew
        draft.move_call(call, CallState.DUE)
