"""How each kind of step begins: its input frozen, its first call made, its person asked.

An expression that fails is that step's failure, never the recorder's.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.domain import asking, calling, canonical, conversation, ending, expressions, ids
from app.domain.aggregate import StepRow
from app.domain.bindings import size
from app.domain.facts import KeyAnswered, name_of
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step
from app.domain.states import ApprovalKind, EffectClass, FailureKind, StepKind, StepState
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
    if tool is None:
        raise ValueError(f"{step.id} names no tool")
    arguments = step.arguments.render(seen) if step.arguments is not None else {}
    row.input = arguments
    if step.key is not None and tool.effect is EffectClass.KEYED:
        key = step.key.render_key(seen)
        wanted = KeyWanted(step=row.path, tool=tool.name, key=key, args_sha256=calling.hash_of(arguments))
        draft.transition.keys_wanted.append(wanted)
        started(draft, row, arguments)
        return
    started(draft, row, arguments)
    calling.tool_call(draft, row, tool, arguments)


def key_answered(draft: Draft, fact: KeyAnswered) -> None:
    """The key is free, or was already ours: the call is made. Somebody else's: the step fails, nothing is sent."""
    row = draft.step(fact.step)
    step = draft.plan.steps[name_of(fact.step)]
    if row.state != StepState.RUNNING or step.tool is None or row.calls:
        return
    if fact.owner is not None:
        owner = ids.encode("call", fact.owner)
        failure = Failure(
            kind=FailureKind.KEY_CONFLICT,
            message=f"The key {fact.key!r} of {fact.tool} belongs to another call ({owner}); nothing was sent.",
            fix=f"Look at that effect (GET /v1/effects/{owner}); if this is another one, use another idempotency_key.",
            detail={"owner": owner, "key": fact.key},
        )
        ending.fail_step(draft, row, failure)
        return
    calling.tool_call(draft, row, step.tool, row.input, business_key=fact.key, generation=fact.generation)


def _begin_agent(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    prompt = step.prompt.render(seen) if step.prompt is not None else ""
    text = prompt if isinstance(prompt, str) else canonical.canonical_json(prompt).decode()
    row.input = {"prompt": text}
    row.turn, row.conversation, row.messages = 1, 1, 0
    calling.append(draft, row, role="user", body=conversation.user_message(text))
    started(draft, row, text)
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
    )


def expression_failed(draft: Draft, row: StepRow, error: expressions.ExpressionError) -> None:
    ending.fail_step(draft, row, Failure(kind=FailureKind.EXPRESSION_ERROR, message=error.message, fix=error.fix))
