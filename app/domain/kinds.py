"""How each kind of step begins: its input frozen, its first call made, its person asked.

An expression that fails is that step's failure, never the recorder's.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.domain import (
    asking,
    attaching,
    calling,
    canonical,
    concluding,
    conversation,
    discovering,
    ending,
    expressions,
    fitting,
    gating,
    ids,
)
from app.domain.aggregate import Call, StepRow
from app.domain.bindings import size
from app.domain.facts import KeyAnswered, name_of
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step, Tool
from app.domain.states import ApprovalKind, CallState, EffectClass, FailureKind, HeldReason, StepKind, StepState
from app.domain.transition import Draft, KeyWanted


def begin_kind(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    match step.kind:
        case StepKind.TOOL:
            _begin_tool(draft, row, step, seen)
        case StepKind.SET:
            values = step.values.render(seen) if step.values is not None else {}
            started(draft, row, values)
            ending.succeed_step(draft, row, output=values)
        case StepKind.AGENT:
            _begin_agent(draft, row, step, seen)
        case StepKind.APPROVAL:
            _begin_approval(draft, row, step, seen)


def started(draft: Draft, row: StepRow, context: JSON) -> None:
    draft.event(
        "agent.step.started", step=row.path, moved=(StepState.PENDING, row.state), data={"context_size": size(context)}
    )


def _begin_tool(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    tool = step.tool
    arguments = step.arguments.render(seen) if step.arguments is not None else {}
    row.input = arguments
    if step.servers or step.missing or tool is None:
        key = None if step.key is None else step.key.render_key(seen)
        started(draft, row, arguments)
        discovering.begin_or_fail(draft, row, step, key=key)
        return
    unfit = fitting.misfit(tool, arguments)
    if unfit is not None:
        started(draft, row, arguments)
        ending.fail_step(draft, row, unfit)
        return
    if step.key is not None and tool.effect is EffectClass.KEYED:
        key = step.key.render_key(seen)
        _want_key(draft, row, tool, key, arguments)
        started(draft, row, arguments)
        return
    started(draft, row, arguments)
    gate(draft, row, tool, calling.tool_call(draft, row, tool, arguments))


def _want_key(draft: Draft, row: StepRow, tool: Tool, key: str, arguments: JSON) -> None:
    wanted = KeyWanted(
        step=row.path,
        call_id=calling.call_id(draft, row, row.calls + 1),
        tool=tool.name,
        key=key,
        args_sha256=calling.hash_of(arguments),
    )
    draft.transition.keys_wanted.append(wanted)


def key_answered(draft: Draft, fact: KeyAnswered) -> None:
    """The key is ours: the call is made. Somebody's who does the same: it attaches. Else nothing is sent."""
    row = draft.step(fact.step)
    tool = draft.plan.steps[name_of(fact.step)].tool
    if row.state != StepState.RUNNING or tool is None:
        return
    call = _waiting_for_key(draft, row)
    if fact.owner is not None and not fact.same_arguments:
        failure = attaching.conflict(fact.key, fact.tool, ids.encode("call", fact.owner), "which has other arguments")
        if call is not None:
            concluding.fail(draft, call, failure)
        else:
            ending.fail_step(draft, row, failure)
    elif fact.owner is not None:
        call = call or calling.tool_call(draft, row, tool, row.input, business_key=fact.key, held=HeldReason.ATTACHED)
        attaching.attach(draft, call, fact)
    elif call is not None:
        attaching.take_over(draft, call, fact.generation)
        gate(draft, row, tool, call)
    else:
        made = calling.tool_call(draft, row, tool, row.input, business_key=fact.key, generation=fact.generation)
        gate(draft, row, tool, made)


def _waiting_for_key(draft: Draft, row: StepRow) -> Call | None:
    return next((c for c in draft.calls_of(row.path) if c.held_reason == HeldReason.ATTACHED), None)


def gate(draft: Draft, row: StepRow, tool: Tool, call: Call) -> None:
    """A tool that wants a person's word gets it before anything is sent."""
    if gating.gated(draft, row, tool) and not CallState(call.state).final:
        gating.hold(draft, row, tool, call)


def call_again(draft: Draft, row: StepRow, tool: Tool, call: Call) -> None:
    """A tool step is reopened: the same arguments as a new call. A business key is asked for again."""
    row.input = call.request["arguments"]
    key = call.request.get("business_key")
    if key is not None:
        _want_key(draft, row, tool, key, row.input)
        return
    gate(draft, row, tool, calling.again(draft, row, tool, call, change={"change": "reopened", "diff": None}))


def _begin_agent(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    prompt = step.prompt.render(seen) if step.prompt is not None else ""
    text = prompt if isinstance(prompt, str) else canonical.canonical_json(prompt).decode()
    row.input = {"prompt": text}
    row.turn, row.conversation, row.messages = 1, 1, 0
    calling.append(draft, row, role="user", body=conversation.user_message(text))
    started(draft, row, text)
    if step.servers or step.missing:
        discovering.begin_or_fail(draft, row, step, key=None)
        return
    calling.model_call(draft, row, step)


def _begin_approval(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    asked = step.approval
    if asked is None:
        raise ValueError(f"{step.id} asks nobody")
    title = str(asked.title.render(seen))
    show = asked.show.render(seen) if asked.show is not None else None
    row.input = {"title": title, "show": show}
    row.title = row.title or title
    draft.move_step(row, StepState.WAITING)
    started(draft, row, row.input)
    asking.request_approval(
        draft,
        row,
        kind=ApprovalKind.STEP,
        title=title,
        show=show,
        allow=list(asked.allow),
        expires=asked.expires,
        on_expire=asked.on_expire,
        approver=asked.approver,
    )


def expression_failed(draft: Draft, row: StepRow, error: expressions.ExpressionError) -> None:
    """It fails while it begins: nobody was told that it had."""
    failure = Failure(kind=FailureKind.EXPRESSION_ERROR, message=error.message, fix=error.fix)
    ending.fail_step(draft, row, failure, told=StepState.PENDING)
