"""A changed request: the call that asks again, with its recovery record, and the event that says so.

    affordable   whether the workflow's recovery budget has anything left for another model call
    give_up      the step fails, because nothing more may be tried
    ask_again    the next model call of a conversation, in the place of one whose answer could not be used
    told         the event of a recovery that changed what a model is asked

Whoever decides says what is different, line by line; the messages were appended before. Never decides whether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.domain import budgets, calling, ending, recovery
from app.domain.aggregate import Attempt, Call, StepRow
from app.domain.outcomes import JSON, Failure
from app.domain.plan import RetryPolicy, Step
from app.domain.recovery_table import CHANGES, Action
from app.domain.transition import Draft


def affordable(draft: Draft) -> bool:
    left = budgets.recovery_left(draft)
    return left is None or left > 0


def give_up(draft: Draft, row: StepRow, call: Call, failure: Failure) -> None:
    """Nothing more is tried: the step fails with that failure, and with the words for it if only money is missing."""
    if not affordable(draft):
        failure = replace(
            failure,
            message=f"{failure.message} Nothing more was tried: the workflow's budget for recovery is used up.",
            fix=f"Raise the budget's `recovery_usd`. {failure.fix or ''}".strip(),
        )
    ending.fail_step(draft, row, failure, call=call)


def wasted(draft: Draft, attempt: Attempt | None) -> None:
    """An answer that nothing is done with was paid for: recovery cost that."""
    if attempt is not None and attempt.cost_microusd:
        draft.workflow.recovery_microusd += attempt.cost_microusd


def ask_again(
    draft: Draft,
    row: StepRow,
    step: Step,
    call: Call,
    failure: Failure,
    *,
    policy: RetryPolicy,
    action: Action,
    diff: Sequence[str],
    used: int,
) -> Call:
    """The conversation as it stands now, in the place of `call`."""
    record = recovery.record(
        failure.kind, policy, change=CHANGES[action], diff=list(diff), message=failure.message, used=used
    )
    made = calling.model_call(
        draft, row, step, retry_of=call, change={"change": record["change"], "diff": record["diff"]}, recovery=record
    )
    told(draft, call, record)
    return made


def told(draft: Draft, call: Call, record: JSON) -> None:
    draft.workflow.retries += 1
    draft.event(
        "agent.step.retried",
        call=call,
        data={"kind": record["kind"], "rule": record["rule"], "change": record["change"], "delay_ms": 0},
    )
