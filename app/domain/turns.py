"""The agent's loop, one call per task: model call → tool calls in parallel → one message with all their results → …

The conversation is append-only rows, byte-stable: an answer is appended as it came, a correction is a message more.
Every tool use gets exactly one result, in tool-use order; one in doubt is waited for, never shown. The repeat guard
stands between a model's wish for an effect and the call that would do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.domain import (
    answers,
    asking,
    calling,
    changing,
    compacting,
    conversation,
    disabling,
    doubting,
    ending,
    finishing,
    gating,
    ids,
    recovery,
    schemas,
    switching,
    turning,
    unusable,
)
from app.domain.aggregate import Attempt, Call, StepRow
from app.domain.facts import ToolsAsked, name_of
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step, Tool
from app.domain.states import (
    GUARDED_CLASSES,
    ApprovalKind,
    CallKind,
    CallState,
    EffectClass,
    FailureKind,
    HeldReason,
    StepState,
    Undo,
    WorkflowStatus,
)
from app.domain.transition import Draft

FAILED_STATES: Final = frozenset({CallState.FAILED, CallState.CANCELLED})


def offered(draft: Draft, step: Step) -> dict[str, Tool]:
    """The tools of the agent, in the order of the definition: order is part of the prefix that must not change."""
    if step.agent is None:
        return {}
    return {name: draft.plan.tools[name] for name in step.agent.tools}


def answered(draft: Draft, row: StepRow, call: Call, attempt: Attempt | None, message: JSON) -> None:
    """A model answered. What it said decides: final value, tool calls, or an answer that cannot be used."""
    step = draft.plan.steps[row.name]
    if call.request.get("purpose") == compacting.PURPOSE:
        compacting.summarised(draft, row, step, call, attempt, message)
        return
    tools = offered(draft, step)
    verdict = answers.judge(
        answers.read_answer(message),
        output_schema=step.output_schema,
        offered=frozenset(tools),
        before=unusable.said_before(draft, call),
    )
    if isinstance(verdict, answers.ToolCalls) and call.request.get("purpose") == calling.FINAL:
        verdict = finishing.asked_for_tools(row, step)
    if isinstance(verdict, Failure):
        _unusable(draft, row, step, call, attempt, message, verdict)
        return
    draft.move_call(call, CallState.SUCCEEDED)
    call.recovery = [{**r, "result": r["result"] or "succeeded"} for r in call.recovery]
    if _stopped(draft, row):
        # Not appended: a conversation that ends with a wish nobody carried out could not be gone on with.
        ending.call_gone(draft, row)
        return
    if isinstance(verdict, answers.Final):
        if conversation.can_stay(message["content"]):  # the rest of an answer that was cut may be nothing
            calling.append(draft, row, role="assistant", body=conversation.assistant_message(message))
        ending.succeed_step(draft, row, output=verdict.value)
    else:
        repeats = _guarded(tools, verdict.uses)
        asked = ToolsAsked(step=row.path, answer=message, turn=row.turn, repeats=repeats)
        if repeats:
            draft.then(asked)
        else:
            call_tools(draft, asked)


def _unusable(
    draft: Draft, row: StepRow, step: Step, call: Call, attempt: Attempt | None, message: JSON, failure: Failure
) -> None:
    """The call has failed, although it was answered; what follows is the recovery table's to say."""
    failure = unusable.worded(failure, call)
    call.failure = failure.to_json()
    draft.move_call(call, CallState.FAILED)
    call.recovery = [{**r, "result": r["result"] or "failed"} for r in call.recovery]
    if _stopped(draft, row):
        changing.wasted(draft, attempt)
        ending.call_gone(draft, row)
    else:
        unusable.handle(draft, row, step, call, attempt, message, failure)


def model_failed(draft: Draft, row: StepRow, call: Call, failure: Failure) -> None:
    """A model call has ended without an answer, its repeats used up: a shorter conversation, another model, or the
    end of the step. Of a summary the step needs exactly that: only a shorter question may take its place."""
    step = draft.plan.steps[row.name]
    if failure.kind is FailureKind.CONTEXT_TOO_LONG:
        goes_on = compacting.begin(draft, row, step, call=call, failure=failure)
    else:
        goes_on = call.request.get("purpose") != compacting.PURPOSE and switching.switch(
            draft, row, step, call, failure
        )
    if not goes_on:
        changing.give_up(draft, row, call, failure)


def _guarded(tools: dict[str, Tool], uses: Sequence[answers.ToolUse]) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for use in uses:
        tool = tools.get(use.name)
        if tool is not None and _is_guarded(tool):
            found[(tool.name, calling.hash_of(use.input))] = None
    return tuple(found)


def _is_guarded(tool: Tool) -> bool:
    return tool.effect in GUARDED_CLASSES and tool.on_repeat != "allow"


def call_tools(draft: Draft, fact: ToolsAsked) -> None:
    """One call per tool use, identity (turn, ordinal). What is not to be sent is settled at once and told the model."""
    row = draft.step(fact.step)
    step = draft.plan.steps[name_of(fact.step)]
    if _stopped(draft, row) or StepState(row.state).final:
        ending.call_gone(draft, row)
        return
    # Only now, together with its calls: what was decided while the earlier calls were read may have stopped the step.
    calling.append(draft, row, role="assistant", body=conversation.assistant_message(fact.answer))
    switching.note_thinking(row, fact.answer["content"])
    row.counters = {name: n for name, n in row.counters.items() if name not in unusable.IN_A_ROW}
    tools = offered(draft, step)
    verdict = answers.judge(
        answers.read_answer(fact.answer), output_schema=step.output_schema, offered=frozenset(tools)
    )
    if isinstance(verdict, answers.ToolCalls):
        for use in verdict.uses:
            _call_tool(draft, row, tools, use, verdict.refused.get(use.ordinal))
    go_on(draft, row)


def _call_tool(
    draft: Draft, row: StepRow, tools: dict[str, Tool], use: answers.ToolUse, refused: Failure | None
) -> None:
    tool = tools.get(use.name)
    if tool is not None:
        refused = disabling.refusal(draft, row, tools, tool.name) or refused or _misfit(tool, use)
    if tool is None or refused is not None:
        failure = refused or Failure(kind=FailureKind.TOOL_UNKNOWN, message=f"There is no tool named {use.name!r:.80}.")
        records = disabling.misuse(row, draft.plan.steps[row.name], use.name, failure)
        made = calling.refused_call(
            draft,
            row,
            tool=use.name,
            arguments=use.input,
            turn=row.turn,
            ordinal=use.ordinal,
            tool_use_id=use.id,
            failure=failure.to_json(),
            recovery=records,
        )
        for record in records:
            changing.told(draft, made, record)
        return
    earlier = _repeated(draft, tool, calling.hash_of(use.input)) if _is_guarded(tool) else None
    call = calling.tool_call(
        draft,
        row,
        tool,
        use.input,
        turn=row.turn,
        ordinal=use.ordinal,
        tool_use_id=use.id,
        held=None if earlier is None else HeldReason.REPEAT,
    )
    if earlier is not None:
        _guard(draft, row, tool, call, earlier)
    elif gating.gated(draft, row, tool):
        gating.hold(draft, row, tool, call)


def guarded_again(draft: Draft, calls: Sequence[Call]) -> tuple[tuple[str, str], ...]:
    """What the repeat guard must read before the tool uses of a reopened turn are made again."""
    found: dict[tuple[str, str], None] = {}
    for call in calls:
        tool = draft.plan.tools.get(call.tool or "")
        if not_made(call) and tool is not None and _is_guarded(tool):
            found[(tool.name, call.args_sha256)] = None
    return tuple(found)


def not_made(call: Call) -> bool:
    """Whether a reopening makes it again: it was cancelled before it was sent, or a budget forbade it."""
    return call.state == CallState.CANCELLED or turning.over_budget(call)


def call_again(draft: Draft, row: StepRow, tool: Tool, call: Call) -> None:
    """A tool use that was cancelled before it was sent is made again, for a workflow that was reopened. The guard and
    the gate stand before it as they did the first time."""
    earlier = _repeated(draft, tool, call.args_sha256) if _is_guarded(tool) else None
    held = None if earlier is None else HeldReason.REPEAT
    made = calling.again(draft, row, tool, call, change={"change": "reopened", "diff": None}, held=held)
    if earlier is not None:
        _guard(draft, row, tool, made, earlier)
    elif gating.gated(draft, row, tool):
        gating.hold(draft, row, tool, made)


def _misfit(tool: Tool, use: answers.ToolUse) -> Failure | None:
    """Arguments are checked against the frozen schema before anything is sent."""
    errors = schemas.validate(tool.input_schema, use.input) if tool.input_schema is not None else []
    if not errors:
        return None
    listed = "; ".join(f"{e.pointer or '/'}: {e.message}" for e in errors[:10])
    return Failure(
        kind=FailureKind.TOOL_ARGUMENTS_INVALID,
        message=f"The arguments do not fit the schema of {tool.name}: {listed}",
        fix="Describe the tool's arguments more exactly in its `description` and `input_schema`.",
    )


def _repeated(draft: Draft, tool: Tool, wanted: str) -> Call | None:
    """An earlier call of this workflow with the same tool and arguments that happened, or may have, or may yet."""
    for call in sorted(draft.snapshot.calls.values(), key=lambda c: (c.created_at, c.step, c.n)):
        same = call.kind == CallKind.TOOL and call.tool == tool.name and call.args_sha256 == wanted
        if same and call.state not in FAILED_STATES and call.undo != Undo.DONE and call.effect != EffectClass.READ_ONLY:
            return call
    return None


def _guard(draft: Draft, row: StepRow, tool: Tool, call: Call, earlier: Call) -> None:
    """The same effect under another identity: answered from the record, or held until a person says it is meant."""
    draft.workflow.duplicates_prevented += 1
    draft.event(
        "effect.repeated",
        call=call,
        data={"tool": tool.name, "earlier": ids.encode("call", earlier.id), "on_repeat": tool.on_repeat},
    )
    if tool.on_repeat == "return_recorded" and earlier.state == CallState.SUCCEEDED:
        call.result = earlier.result if earlier.result is not None else _output_of(draft, earlier)
        if not tool.trusted_output:
            gating.taint(draft, row)
        draft.move_call(call, CallState.SUCCEEDED)
        return
    gated = gating.gated(draft, row, tool)  # then one word is both: it may be called, and a second time
    show = {"tool": tool.name, "arguments": call.request["arguments"], "earlier": ids.encode("call", earlier.id)}
    asking.request_approval(
        draft,
        row,
        kind=ApprovalKind.REPEAT,
        title=f"The agent asks for {tool.name} again with the same arguments. Do it a second time?",
        show={**show, "tainted": gating.is_tainted(row)} if gated else show,
        allow=["approve", "reject"],
        expires=tool.approval_expires if gated else None,
        call_id=call.id,
        arguments_sha256=gating.binding(tool, call.request["arguments"]),
        approver=tool.approver,
    )


def _output_of(draft: Draft, earlier: Call) -> JSON:
    row = draft.snapshot.steps.get(earlier.step)
    return None if row is None else row.output


def go_on(draft: Draft, row: StepRow) -> None:
    """When every tool call of the turn is settled: one message with all results, then the next model call."""
    calls = latest(draft.calls_of(row.path, turn=row.turn))
    if StepState(row.state).final or not calls or any(not CallState(c.state).final for c in calls):
        return
    if _stopped(draft, row):
        ending.call_gone(draft, row)
        return
    abandoned = next((call for call in calls if call.state == CallState.ABANDONED), None)
    if abandoned is not None:  # only now: a step that fails must have nothing open behind it
        ending.fail_step(draft, row, doubting.given_up(abandoned), call=abandoned)
        return
    step = draft.plan.steps[row.name]
    refused = next((call for call in calls if turning.over_budget(call)), None)
    if refused is not None and not finishing.wished(row, step):
        ending.fail_step(draft, row, Failure.from_json(refused.failure), call=refused)
        return
    body, seen = conversation.results_and_digests([_result(call) for call in calls])
    calling.append(draft, row, role="user", body=body)
    turning.end(draft, row, step, calls, seen)


def tool_failed(draft: Draft, row: StepRow, call: Call, failure: Failure) -> None:
    """A tool call of an agent has failed, its repeats used up: the model is told, once the others are settled too."""
    if failure.kind in recovery.SAME_BYTES:
        used = call.tries.get(failure.kind, 0)
        call.recovery = [*call.recovery, *disabling.told(draft.plan.steps[row.name], failure, used=used)]
    go_on(draft, row)


def latest(calls: Sequence[Call]) -> list[Call]:
    """One call for each tool use, in their order: the last made for it (edited by a person, or after a reopening)."""
    found: dict[int, Call] = {}
    for call in calls:
        if call.kind == CallKind.TOOL and (call.ordinal not in found or call.n > found[call.ordinal].n):
            found[call.ordinal] = call
    return [found[ordinal] for ordinal in sorted(found)]


def _result(call: Call) -> conversation.ToolResult:
    failed = call.state != CallState.SUCCEEDED
    value = (call.failure or {}).get("message", "The call was not made.") if failed else call.result
    return conversation.ToolResult(tool_use_id=call.tool_use_id or "", value=value, is_error=failed)


def _stopped(draft: Draft, row: StepRow) -> bool:
    return WorkflowStatus(draft.workflow.status).ending or bool(row.counters.get("timed_out"))
