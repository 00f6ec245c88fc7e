"""A conversation that grows too long goes on as a new one: task, summary, effects done, latest input.

    due           by our own accounting, before the next model call: the window is seven tenths full
    begin         ask for a summary: a model call of its own over the conversation, or over its transcript
    sent          what a model call sends of its conversation
    summarised    the summary came, or something else did
    go_on         with the rows of the step's past read: the next conversation, and the model call that goes on in it

The old conversation is never touched. The instruction to summarise is no message of it: it is kept on the summary
call, so the old conversation stays what it was for whoever reads it, and if the summary never comes it goes on as if
nobody had asked. The new one comes into being only in the transaction that stores the summary; a worker that dies
before that has lost one model call, which is repeated.

Compactions are counted on the step, by their failure kind. One that makes the conversation less than half as long
clears the count; as many others as the policy allows (two) may follow each other, then `begin` says no. A conversation
of one message is never summarised: what is too long then is the task, or what the engine itself put there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from app.domain import answers, calling, changing, context_size, ending, recovery, summaries
from app.domain.aggregate import Attempt, Call, StepRow
from app.domain.conversation_facts import ContextSummarised
from app.domain.facts import name_of
from app.domain.model_facts import facts
from app.domain.outcomes import JSON, Failure
from app.domain.plan import RetryPolicy, Step
from app.domain.states import CallKind, CallState, EffectClass, FailureKind, StepState, WorkflowStatus
from app.domain.transition import Draft

PURPOSE: Final = "summary"
"""`request["purpose"]` of the call that asks for it."""
CHANGE: Final = "summarise"
KIND: Final = FailureKind.CONTEXT_TOO_LONG

MESSAGES: Final = "messages"
TRANSCRIPT: Final = "transcript"
"""`request["over"]`: what the summary is asked over. The transcript, if the provider would not take the messages."""

SUMMARY_TOKENS: Final = 4_096
"""`max_tokens` of a summary, if the agent's own are fewer: thinking counts among them."""
SHRUNK: Final = 2
"""A compaction is progress if the new conversation is this many times shorter than the old one."""


def due(draft: Draft, row: StepRow, step: Step) -> bool:
    """Before a next model call of this conversation, whose messages are appended already."""
    if step.agent is None or row.messages <= 1 or _policy(row, step) is None:
        return False
    return context_size.used(draft, row, step) >= context_size.limit(draft, row, step)


def begin(draft: Draft, row: StepRow, step: Step, *, call: Call | None, failure: Failure | None) -> bool:
    """Ask for a summary. `call`: the one that failed because of it, if one did. False: not this time; nothing is
    changed then."""
    policy = _policy(row, step)
    if step.agent is None or row.messages <= 1 or policy is None:
        return False
    if call is not None and call.request.get("over") == TRANSCRIPT:
        return False  # even that was too long, or did not help
    if failure is not None and not changing.affordable(draft):
        return False
    used = context_size.used(draft, row, step)
    refused = failure is not None
    if refused:
        used = max(used, context_size.limit(draft, row, step))
    tokens = _summary_tokens(draft, row, step)
    over = TRANSCRIPT if refused or used + tokens > context_size.window(draft, row, step) else MESSAGES
    count = row.counters.get(KIND, 0) + 1
    row.counters = {**row.counters, KIND: count}
    change = {"change": CHANGE, "diff": _asked_diff(row, used=used, over=over)}
    record = recovery.record(
        KIND,
        policy,
        change=CHANGE,
        waited=timedelta(0),
        diff=change["diff"],
        message=_why(draft, row, step, used) if failure is None else failure.message,
        used=count,
    )
    made = _summary_call(draft, row, step, tokens=tokens, over=over, used=used, refused=refused)
    made.retry_of, made.change, made.recovery = None if call is None else call.id, change, [record]
    draft.add_call(made)
    if failure is not None:
        changing.told(draft, made if call is None else call, record)
    return True


def _policy(row: StepRow, step: Step) -> RetryPolicy | None:
    """The policy under which one compaction more is allowed, or None."""
    policy = step.retry.get(KIND)
    if policy is None or row.counters.get(KIND, 0) >= policy.max_retries:
        return None
    return policy


def _summary_tokens(draft: Draft, row: StepRow, step: Step) -> int:
    most = min(facts(calling.model_of(row, step)).max_output, context_size.window(draft, row, step) // 4)
    return min(max(calling.max_tokens_of(row, step), SUMMARY_TOKENS), most)


def _summary_call(draft: Draft, row: StepRow, step: Step, *, tokens: int, over: str, used: int, refused: bool) -> Call:
    if step.agent is None:
        raise ValueError(f"{step.id} is not an agent step")
    n, call_id = calling.next_number(draft, row)
    request = {
        "model": calling.model_of(row, step),
        "alias": calling.alias_of(row, step),
        "max_tokens": tokens,
        "effort": step.agent.effort,
        "conversation": row.conversation,
        "messages": row.messages,
        "purpose": PURPOSE,
        "over": over,
        "room": context_size.room(draft, row, step, answer=tokens) if over == TRANSCRIPT else None,
        "instruction": summaries.INSTRUCTION,
        "used": used,
        "refused": refused,
    }
    return Call(
        workflow_id=draft.workflow.id,
        id=call_id,
        tenant_id=draft.workflow.tenant_id,
        step=row.path,
        n=n,
        kind=CallKind.MODEL,
        turn=row.turn,
        args_sha256=calling.hash_of(request),
        effect=EffectClass.READ_ONLY,
        state=CallState.DUE,
        request=request,
        timeout_ms=int(step.call_timeout.total_seconds() * 1000),
        settle_ms=0,
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
    )


def sent(request: Mapping[str, JSON], stored: Sequence[bytes]) -> Sequence[bytes]:
    """What a model call sends of the conversation it was made for: its messages, byte for byte. A call that asks for a
    summary sends its instruction behind them, or their transcript."""
    if request.get("purpose") != PURPOSE:
        return stored
    return summaries.asked(stored, instruction=request["instruction"], room=request["room"])


def summarised(draft: Draft, row: StepRow, step: Step, call: Call, attempt: Attempt | None, message: JSON) -> None:
    """The model answered a summary call. What is not a summary is a failure of that call: it is asked once more, over
    the transcript, where no tool can be named; else the step fails."""
    answer = answers.read_answer(message)
    verdict = answers.judge(answer, output_schema=None, offered=frozenset())
    failure = verdict if isinstance(verdict, Failure) else None
    was_cut = failure is not None and failure.kind is FailureKind.OUTPUT_TRUNCATED and bool(answer.text.strip())
    if isinstance(verdict, answers.ToolCalls):
        failure = Failure(
            kind=FailureKind.MALFORMED_OUTPUT,
            message="Asked for a summary of the conversation, the model asked for tools.",
            fix="Nothing to do, once; if it stays, let the agent's tools return less.",
        )
    if failure is None or was_cut:
        draft.move_call(call, CallState.SUCCEEDED)
        _close(call, "succeeded")
        draft.then(ContextSummarised(step=row.path, call_id=call.id, summary=answer.text, was_cut=was_cut))
        return
    call.failure = failure.to_json()
    draft.move_call(call, CallState.FAILED)
    _close(call, "failed")
    changing.wasted(draft, attempt)
    if stopped(draft, row):
        ending.call_gone(draft, row)
    elif failure.kind is FailureKind.REFUSED or not begin(draft, row, step, call=call, failure=failure):
        ending.fail_step(draft, row, failure, call=call)


def go_on(draft: Draft, fact: ContextSummarised) -> None:
    """The summary is stored in this transaction, and so is the conversation that begins with it."""
    row, call = draft.step(fact.step), draft.call(fact.call_id)
    step = draft.plan.steps[name_of(fact.step)]
    if stopped(draft, row) or StepState(row.state).final:
        ending.call_gone(draft, row)
        return
    history = draft.snapshot.histories[fact.step]
    body = summaries.first_message(history, summary=fact.summary, was_cut=fact.was_cut)
    before, after = int(call.request["used"]), context_size.fresh(draft, step, body)
    if after >= before:
        _not_shorter(draft, row, step, call, before=before, after=after)
        return
    if after * SHRUNK < before:
        row.counters = {kind: count for kind, count in row.counters.items() if kind != KIND}
    left, left_messages = row.conversation, row.messages
    row.conversation, row.messages = row.conversation + 1, 0
    calling.append(draft, row, role="user", body=body)
    draft.event(
        "agent.context.compacted",
        call=call,
        data={"from": left, "to": row.conversation, "tokens_before": before, "tokens_after": after},
    )
    done = len(history.effects) + history.more_effects
    with_effects = f"the task, the summary, {done} effect{'' if done == 1 else 's'} done, the latest input"
    diff = [
        f"- conversation {left}: {left_messages} messages, about {before:,} tokens",
        f"+ conversation {row.conversation}: 1 message, about {after:,} tokens ({with_effects})",
    ]
    replaced = call if call.request["refused"] else None
    calling.model_call(draft, row, step, retry_of=replaced, change={"change": CHANGE, "diff": diff})


def _not_shorter(draft: Draft, row: StepRow, step: Step, call: Call, *, before: int, after: int) -> None:
    """Nothing is gained by it: the conversation goes on as it is, if the provider still takes it."""
    call.recovery = [
        {**record, "result": "not shorter"} if record["change"] == CHANGE else record for record in call.recovery
    ]
    draft.touch_call(call)
    if not call.request["refused"]:
        calling.model_call(draft, row, step)
        return
    failure = Failure(
        kind=KIND,
        message=f"The conversation is too long for the model, and with a summary in its place it would be no shorter: "
        f"about {after:,} tokens after {before:,}.",
        fix="Make the agent's task shorter or split it into steps, offer fewer tools, or take a model with a larger "
        "window.",
    )
    ending.fail_step(draft, row, failure, call=call)


def _why(draft: Draft, row: StepRow, step: Step, used: int) -> str:
    window = context_size.window(draft, row, step)
    return f"The conversation has about {used:,} of the {window:,} tokens that {calling.model_of(row, step)} takes."


def _asked_diff(row: StepRow, *, used: int, over: str) -> list[str]:
    asked = f"conversation {row.conversation} ({row.messages} messages, about {used:,} tokens)"
    if over == MESSAGES:
        return [f"+ the instruction to summarise {asked}"]
    return [
        f"- {asked}",
        "+ its transcript as text, the oldest results of tools shortened",
        "+ the instruction to summarise it",
    ]


def _close(call: Call, result: str) -> None:
    call.recovery = [{**record, "result": record["result"] or result} for record in call.recovery]


def stopped(draft: Draft, row: StepRow) -> bool:
    return WorkflowStatus(draft.workflow.status).ending or bool(row.counters.get("timed_out"))
