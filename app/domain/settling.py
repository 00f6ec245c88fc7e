"""What an attempt's outcome, a lost worker or a person's verdict means for its call. The effect class decides.

Certainty belongs to the attempt, the decision to the call: a call is `failed` only if every attempt definitely did
not happen; what cannot be known is `in_doubt` and parked, never guessed. A success settles the call however late it
arrives; a late failure settles nothing while another attempt is uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain import bodies, calling, canonical, ending, recovery, turns
from app.domain.aggregate import Attempt, Call
from app.domain.facts import CallSettled, DoubtResolved, IllegalTransition, KeyExpired, WorkerLost, name_of
from app.domain.outcomes import JSON, Failure, Outcome
from app.domain.plan import Step
from app.domain.states import (
    EARLY_CLASSES,
    AttemptOutcome,
    CallKind,
    CallState,
    DueKind,
    EffectClass,
    FailureKind,
    HeldReason,
    StepKind,
    WorkflowStatus,
)
from app.domain.transition import Draft, Due


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The numbers a decision needs from the settings."""

    poison_after: int = 5


def settle(draft: Draft, fact: CallSettled, rules: Rules) -> None:
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    if attempt is None:
        raise IllegalTransition(f"attempt {fact.attempt_id} is not one of call {fact.call_id}")
    at_fence = call.attempt_id == attempt.id and call.state == CallState.INTENDED
    if attempt.outcome is not None and not at_fence:
        return  # told twice: an outcome is written once
    if attempt.outcome is None:
        _write_evidence(draft, call, attempt, fact.outcome)
    if at_fence:
        call.lost_in_a_row = 0
        _on_time(draft, call, attempt, fact.outcome)
    else:
        _late(draft, call, attempt, fact.outcome)


def keep(draft: Draft, fact: CallSettled) -> None:
    """Evidence alone, without a decision: for the day when deciding fails."""
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    if attempt is not None and attempt.outcome is None:
        _write_evidence(draft, call, attempt, fact.outcome)


# --- on time -------------------------------------------------------------------------------------------------------


def _on_time(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    failure = outcome.failure
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            _succeed(draft, call, attempt, result_of(call, outcome))
        case AttemptOutcome.NOT_SENT if failure is not None:
            _again_or(draft, call, attempt, failure, new_generation=False)
        case AttemptOutcome.FAILED if failure is not None:
            executed_nothing = failure.kind is FailureKind.RATE_LIMITED
            _again_or(draft, call, attempt, failure, new_generation=not executed_nothing)
        case AttemptOutcome.UNKNOWN if failure is not None:
            _unknown(draft, call, attempt, failure)


def _unknown(draft: Draft, call: Call, attempt: Attempt, failure: Failure) -> None:
    """The request may have taken effect. Only a class that says repeating is safe is repeated."""
    if _repeatable(draft, call):
        _again_or(draft, call, attempt, failure, new_generation=False)
    else:
        doubt(draft, call, since=draft.now, reason=failure.message)


def _repeatable(draft: Draft, call: Call) -> bool:
    match call.effect:
        case EffectClass.READ_ONLY | EffectClass.IDEMPOTENT:
            return True
        case EffectClass.KEYED:
            needed = draft.now + timedelta(milliseconds=call.timeout_ms)
            return call.key_deadline is None or needed <= call.key_deadline
        case _:
            return False


def _again_or(draft: Draft, call: Call, attempt: Attempt, failure: Failure, *, new_generation: bool) -> None:
    """The same bytes again if a policy allows; else the call fails, or is in doubt if an attempt may have happened."""
    step = step_of(draft, call)
    harmless = call.effect == EffectClass.READ_ONLY
    maybe_done = [] if harmless else uncertain(call)
    if _stopped(draft, call) and not maybe_done:
        _fail_or_cancel(draft, call, failure)
        return
    fenced = failure.kind is FailureKind.WORKER_LOST
    tries = call.tries.get(failure.kind, 0)
    retry = recovery.next_try(step, failure, tries=tries, attempt_id=attempt.id)
    if fenced:
        draft.move_call(call, CallState.DUE)  # the worker stopped itself before sending: nobody's failure
    elif retry is not None and not (new_generation and maybe_done):
        call.tries = {**call.tries, failure.kind: tries + 1}
        if new_generation:
            calling.next_generation(call)
        record = recovery.record(
            failure.kind, retry.policy, change=None, waited=retry.delay, message=failure.message, used=retry.used
        )
        call.recovery = [*call.recovery, {**record, "attempt": attempt.n}]
        draft.workflow.retries += 1
        draft.move_call(call, CallState.DUE, delay=retry.delay)
        draft.event(
            "agent.step.retried",
            call=call,
            attempt=attempt.id,
            moved=(CallState.INTENDED, CallState.DUE),
            data={
                "kind": failure.kind,
                "rule": record["rule"],
                "change": None,
                "delay_ms": record["waited_ms"],
            },
        )
    elif maybe_done:
        doubt(draft, call, since=draft.now, reason=failure.message)
    else:
        _fail(draft, call, failure)


def uncertain(call: Call) -> list[Attempt]:
    """Attempts that may have taken effect and for which nobody has vouched."""
    vouched = _vouched(call)
    return [a for a in call.history if a.outcome in (None, AttemptOutcome.UNKNOWN) and a.n > vouched]


def _vouched(call: Call) -> int:
    """Up to which attempt a person said that it did not happen."""
    resolved = call.resolved or {}
    return int(resolved["attempts"]) if resolved.get("outcome") == "did_not_happen" else 0


def _stopped(draft: Draft, call: Call) -> bool:
    """Nothing new is started for this call: its workflow drains, or its step ran out of time."""
    row = draft.step(call.step)
    return WorkflowStatus(draft.workflow.status).draining or bool(row.counters.get("timed_out"))


# --- lost workers --------------------------------------------------------------------------------------------------


def lose(draft: Draft, fact: WorkerLost, rules: Rules) -> None:
    """A lapsed lease makes nothing claimable: this decides, knowing the class. A class that must not be repeated stays
    `intended` until its sender is known to be silent, so that a late reply can still settle it quietly."""
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    if attempt is None or attempt.outcome is not None or attempt.lost_at is not None:
        return
    if call.attempt_id != attempt.id or call.state != CallState.INTENDED:
        attempt.lost_at = draft.now
        draft.touch_attempt(attempt)
        return
    silent_at = _silent_at(draft, attempt)
    sender = draft.snapshot.workers.get(attempt.worker)
    early = call.effect in EARLY_CLASSES and sender is not None and sender.lost_at is not None
    if not early and draft.now < silent_at:
        draft.set_due(
            Due(kind=DueKind.ATTEMPT, ref=call.id, due_at=silent_at, ring_at=silent_at, lane=call.lane, worker=attempt.worker)
        )
        return
    attempt.lost_at = draft.now
    draft.touch_attempt(attempt)
    call.lost_in_a_row += 1
    draft.event("agent.worker.lost", call=call, attempt=attempt.id, data={"worker": str(attempt.worker), "attempt": attempt.n})
    if not _repeatable(draft, call):
        doubt(draft, call, since=max(silent_at, attempt.intended_at), reason="The worker was lost after it may have sent the request.")
    elif call.effect == EffectClass.READ_ONLY and _stopped(draft, call):
        _fail_or_cancel(draft, call, Failure(kind=FailureKind.WORKER_LOST, message="The worker was lost; the call changes nothing and is not needed any more."))
    elif call.lost_in_a_row >= rules.poison_after:
        _poison(draft, call)
    else:
        _repeat_after_loss(draft, call, attempt)


def _silent_at(draft: Draft, attempt: Attempt) -> datetime:
    """When the sender is known to be silent: its death as its parent's waitpid reported it; when both its send
    deadline and its lease are over; for one that lives its send deadline, which it keeps."""
    sender = draft.snapshot.workers.get(attempt.worker)
    if sender is None or sender.lost_at is None:
        return attempt.send_deadline
    if sender.reaped_at is not None:
        return sender.reaped_at
    return max(attempt.send_deadline, sender.lease_until)


def _repeat_after_loss(draft: Draft, call: Call, attempt: Attempt) -> None:
    step = step_of(draft, call)
    policy = step.retry[FailureKind.WORKER_LOST]
    record = recovery.record(
        FailureKind.WORKER_LOST, policy, change=None, message="The worker was lost; the call was made again.", used=call.lost_in_a_row
    )
    call.recovery = [*call.recovery, {**record, "attempt": attempt.n}]
    draft.workflow.retries += 1
    draft.move_call(call, CallState.DUE)
    draft.event(
        "agent.step.retried",
        call=call,
        attempt=attempt.id,
        moved=(CallState.INTENDED, CallState.DUE),
        data={"kind": FailureKind.WORKER_LOST, "rule": record["rule"], "change": None, "delay_ms": 0},
    )


def _poison(draft: Draft, call: Call) -> None:
    """A call that loses worker after worker is held: never a hot loop."""
    draft.move_call(call, CallState.HELD, held=HeldReason.POISONED)
    draft.event(
        "effect.call.changed", call=call, moved=(CallState.INTENDED, CallState.HELD), data={"reason": HeldReason.POISONED}
    )
    draft.attend("poisoned", tool=call.tool)


def expire_key(draft: Draft, fact: KeyExpired) -> None:
    """Due, but the tool may have forgotten its key: as unknown as if it had none."""
    call = draft.call(fact.call_id)
    if call.state != CallState.DUE:
        return
    if uncertain(call):
        doubt(draft, call, since=draft.now, reason="The tool may have forgotten the key of an attempt whose outcome is unknown.")
    else:
        call.key_deadline = None  # nothing was executed under it: a first use starts its time anew
        draft.move_call(call, CallState.DUE)


# --- doubts --------------------------------------------------------------------------------------------------------


def doubt(draft: Draft, call: Call, *, since: datetime, reason: str) -> None:
    """Park the call. `since` is when its sender was silent; what had left by then may take effect for settle_time."""
    before = call.state
    call.not_before = since + timedelta(milliseconds=call.settle_ms)
    call.doubt_since = draft.now
    call.failure = {"kind": FailureKind.UNKNOWN_OUTCOME, "message": reason, "fix": resolve_hint(call)}
    draft.move_call(call, CallState.IN_DOUBT)
    draft.event(
        "effect.in_doubt",
        call=call,
        attempt=call.attempt_id,
        moved=(before, CallState.IN_DOUBT),
        data={"tool": call.tool, "not_before": call.not_before.isoformat(), "reason": reason},
    )
    draft.attend("outcome_unknown", tool=call.tool)


def resolve_hint(call: Call) -> str:
    return f"Look at {call.tool} itself, then say what you found: resolve this effect as happened, did_not_happen or abandon."


def resolve(draft: Draft, fact: DoubtResolved) -> None:
    call = draft.call(fact.call_id)
    if call.state != CallState.IN_DOUBT:
        raise IllegalTransition(f"call {call.id} is {call.state}, not in doubt")
    call.resolved = {"outcome": fact.verdict, "note": fact.note, "by": fact.by, "at": draft.now.isoformat(), "attempts": call.attempts}
    step = draft.step(call.step)
    match fact.verdict:
        case "happened":
            to = CallState.SUCCEEDED
        case "did_not_happen":
            to = CallState.CANCELLED if _stopped(draft, call) else CallState.DUE
        case _:
            to = CallState.ABANDONED
    draft.event(
        "effect.resolved",
        call=call,
        moved=(CallState.IN_DOUBT, to),
        data={"outcome": fact.verdict, "by": fact.by, "note": fact.note},
    )
    _clear_doubt(draft, call)
    if to is CallState.SUCCEEDED:
        attempt = call.attempt(call.attempt_id) if call.attempt_id else None
        _succeed(draft, call, attempt, fact.result)
    elif to is CallState.DUE:
        call.failure = None
        draft.move_call(call, CallState.DUE)
    elif to is CallState.CANCELLED:
        draft.move_call(call, CallState.CANCELLED)
        draft.transition.keys_released.append(call.id)
        ending.call_gone(draft, step)
    else:
        draft.move_call(call, CallState.ABANDONED)
        failure = Failure(
            kind=FailureKind.UNKNOWN_OUTCOME,
            message=f"Whether {call.tool} happened was given up by {fact.by}.",
            fix="Check the tool by hand; nothing of this effect was undone.",
        )
        _close_records(call, "abandoned")
        _told_step(draft, call, failure)


def _clear_doubt(draft: Draft, call: Call) -> None:
    if draft.workflow.doubts <= 1:
        draft.workflow.attention = [a for a in draft.workflow.attention if a != "outcome_unknown"]


# --- late evidence -------------------------------------------------------------------------------------------------


def _late(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    state = CallState(call.state)
    if state.final:
        _contradiction(draft, call, attempt, outcome)
        return
    alone = not [a for a in uncertain(call) if a is not attempt]
    failure = outcome.failure
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            call.attempt_id = attempt.id  # revokes a repeat that was not sent yet
            if state is CallState.IN_DOUBT:
                draft.event(
                    "effect.resolved",
                    call=call,
                    attempt=attempt.id,
                    moved=(state, CallState.SUCCEEDED),
                    data={"outcome": "happened", "by": "late evidence", "note": "The answer arrived after all."},
                )
                _clear_doubt(draft, call)
            _succeed(draft, call, attempt, result_of(call, outcome))
        case AttemptOutcome.NOT_SENT | AttemptOutcome.FAILED if alone and state is not CallState.INTENDED and failure:
            if state is CallState.IN_DOUBT:
                draft.event(
                    "effect.resolved",
                    call=call,
                    attempt=attempt.id,
                    moved=(state, CallState.DUE),
                    data={"outcome": "did_not_happen", "by": "late evidence", "note": failure.message},
                )
                _clear_doubt(draft, call)
            call.failure = None
            _again_or(draft, call, attempt, failure, new_generation=outcome.certainty is AttemptOutcome.FAILED)
        case AttemptOutcome.UNKNOWN if state is CallState.IN_DOUBT:
            quarantine = draft.now + timedelta(milliseconds=call.settle_ms)
            call.not_before = max(call.not_before or quarantine, quarantine)
            draft.touch_call(call)
        case _:
            draft.touch_call(call)  # evidence only


def _contradiction(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    """After a verdict or a final state evidence changes nothing, and is never silent."""
    if call.effect == EffectClass.READ_ONLY or call.kind == CallKind.MODEL:
        return
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            contradicts = call.state != CallState.SUCCEEDED or attempt.n <= _vouched(call)
        case AttemptOutcome.FAILED | AttemptOutcome.NOT_SENT:
            by_word = call.resolved is not None and call.resolved.get("outcome") == "happened"
            contradicts = by_word and not uncertain(call)
        case _:
            contradicts = False
    if not contradicts:
        return
    draft.event(
        "effect.contradicted",
        call=call,
        attempt=attempt.id,
        data={"settled": call.state, "evidence": outcome.certainty},
    )
    draft.attend("contradicted", tool=call.tool)


# --- what follows --------------------------------------------------------------------------------------------------


def result_of(call: Call, outcome: Outcome) -> JSON:
    """What the stored bytes mean. For a model call the message itself."""
    if outcome.evidence is None:
        return None
    return bodies.read_body(outcome.evidence.body, outcome.evidence.media_type, truncated=outcome.evidence.truncated)


def _succeed(draft: Draft, call: Call, attempt: Attempt | None, result: JSON) -> None:
    call.failure = None
    if call.effect != EffectClass.READ_ONLY:
        draft.workflow.effects_done += 1
        if call.effect == EffectClass.KEYED:
            draft.workflow.duplicates_prevented += len([a for a in uncertain(call) if a is not attempt])
    row = draft.step(call.step)
    if call.kind == CallKind.MODEL:
        turns.answered(draft, row, call, attempt, result)
        return
    draft.move_call(call, CallState.SUCCEEDED)
    _close_records(call, "succeeded")
    if row.kind == StepKind.AGENT:
        call.result = result
        turns.go_on(draft, row)
    elif row.counters.get("timed_out"):
        ending.call_gone(draft, row)
    else:
        ending.succeed_step(draft, row, output=result)


def _fail(draft: Draft, call: Call, failure: Failure) -> None:
    call.failure = {**failure.to_json()}
    draft.move_call(call, CallState.FAILED)
    draft.transition.keys_released.append(call.id)
    _close_records(call, "failed")
    _told_step(draft, call, failure)


def _fail_or_cancel(draft: Draft, call: Call, failure: Failure) -> None:
    """Nothing happened and nobody needs it any more."""
    call.failure = {**failure.to_json()}
    draft.move_call(call, CallState.CANCELLED)
    draft.transition.keys_released.append(call.id)
    _close_records(call, "cancelled")
    draft.event(
        "effect.call.changed", call=call, moved=(CallState.INTENDED, CallState.CANCELLED), data={"reason": "not needed any more"}
    )
    ending.call_gone(draft, draft.step(call.step))


def _told_step(draft: Draft, call: Call, failure: Failure) -> None:
    row = draft.step(call.step)
    if row.counters.get("timed_out"):
        ending.call_gone(draft, row)
    elif row.kind == StepKind.AGENT and call.kind == CallKind.TOOL and call.state != CallState.ABANDONED:
        turns.go_on(draft, row)
    else:
        ending.fail_step(draft, row, failure, call=call)


def _close_records(call: Call, result: str) -> None:
    call.recovery = [{**r, "result": r["result"] or result} for r in call.recovery]


def step_of(draft: Draft, call: Call) -> Step:
    return draft.plan.steps[name_of(call.step)]


def _write_evidence(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    attempt.outcome = outcome.certainty
    attempt.settled_at = draft.now
    attempt.failure = None if outcome.failure is None else outcome.failure.to_json()
    attempt.status_code = outcome.status_code
    attempt.request_id = outcome.request_id
    if outcome.sent_after is not None:
        attempt.sent_at = attempt.intended_at + timedelta(seconds=outcome.sent_after)
    if outcome.received_after is not None:
        attempt.received_at = attempt.intended_at + timedelta(seconds=outcome.received_after)
    if outcome.evidence is not None:
        attempt.evidence = canonical.sha256_hex(outcome.evidence.body)
        attempt.media_type = outcome.evidence.media_type
        attempt.truncated = outcome.evidence.truncated
        draft.transition.evidence.append(outcome.evidence)
    if outcome.usage is not None:
        attempt.usage = outcome.usage.to_json()
        attempt.cost_microusd = outcome.usage.cost_microusd
        draft.workflow.spent_microusd += outcome.usage.cost_microusd or 0
        draft.workflow.input_tokens += outcome.usage.input_tokens
        draft.workflow.output_tokens += outcome.usage.output_tokens
        if outcome.certainty is not AttemptOutcome.SUCCEEDED:
            draft.workflow.recovery_microusd += outcome.usage.cost_microusd or 0
    draft.touch_attempt(attempt)
    draft.touch_call(call)
    _attempt_event(draft, call, attempt, outcome)


def _attempt_event(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    latency = None
    if attempt.received_at is not None and attempt.sent_at is not None:
        latency = int((attempt.received_at - attempt.sent_at).total_seconds() * 1000)
    common = {"step": call.step, "latency_ms": latency, "outcome": outcome.certainty.value, "attempt": attempt.n}
    if call.kind == CallKind.MODEL:
        usage = outcome.usage
        draft.event(
            "agent.model.called",
            call=call,
            attempt=attempt.id,
            data={
                **common,
                "model": call.request["model"] if usage is None or usage.model is None else usage.model,
                "input_tokens": 0 if usage is None else usage.input_tokens,
                "output_tokens": 0 if usage is None else usage.output_tokens,
                "cost": None if usage is None or usage.cost_microusd is None else f"{usage.cost_microusd / 1_000_000:.6f}",
                "purpose": "crash" if call.lost_in_a_row else "retry" if call.retry_of or attempt.n > 1 else "useful",
            },
        )
    else:
        draft.event(
            "agent.tool.executed",
            call=call,
            attempt=attempt.id,
            data={
                **common,
                "tool": call.tool,
                "success": outcome.certainty is AttemptOutcome.SUCCEEDED,
                "effect": call.effect,
            },
        )
