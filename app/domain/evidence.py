"""The evidence of an attempt: what arrived, stored once, billed, told as an event; and what its bytes mean."""

from __future__ import annotations

from datetime import timedelta

from app.domain import bodies, budgets, canonical
from app.domain.aggregate import Attempt, Call
from app.domain.outcomes import JSON, Outcome
from app.domain.states import AttemptOutcome, CallKind
from app.domain.transition import Draft


def write(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    """The attempt is over: its outcome, once."""
    attempt.outcome = outcome.certainty
    attempt.settled_at = draft.now
    arrived(draft, call, attempt, outcome)
    _attempt_event(draft, call, attempt, outcome)
    budgets.settle(draft, call, attempt, outcome)


def arrived(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    """What came over the wire, without an outcome if that is still to come (202)."""
    attempt.failure = None if outcome.failure is None else outcome.failure.to_json()
    attempt.status_code = outcome.status_code
    attempt.request_id = outcome.request_id
    if outcome.sent_after is not None:
        attempt.sent_at = attempt.intended_at + timedelta(seconds=outcome.sent_after)
    if outcome.received_after is not None:
        attempt.received_at = attempt.intended_at + timedelta(seconds=outcome.received_after)
    reported(draft, attempt, outcome)
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


def reported(draft: Draft, attempt: Attempt, outcome: Outcome) -> None:
    """The bytes alone."""
    if outcome.evidence is not None:
        attempt.evidence = canonical.sha256_hex(outcome.evidence.body)
        attempt.media_type = outcome.evidence.media_type
        attempt.truncated = outcome.evidence.truncated
        draft.transition.evidence.append(outcome.evidence)
    draft.touch_attempt(attempt)


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
                "cost": None
                if usage is None or usage.cost_microusd is None
                else f"{usage.cost_microusd / 1_000_000:.6f}",
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


def result_of(call: Call, outcome: Outcome) -> JSON:
    """What the stored bytes mean. For a model call the message itself."""
    if outcome.evidence is None:
        return None
    return bodies.read_body(outcome.evidence.body, outcome.evidence.media_type, truncated=outcome.evidence.truncated)
