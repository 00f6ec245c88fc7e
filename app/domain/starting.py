"""How a step begins: the skip rule, its condition, its items, its kind.

Inputs freeze once, here, in the transition that makes the call. An expression that fails is that step's failure,
never the recorder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.domain import calling, canonical, conversation, ending, expressions, ids
from app.domain.aggregate import Approval, Message, StepRow
from app.domain.facts import ItemEnded, ItemsEnded, ItemsWanted, KeyAnswered, StepEnded, StepReady, name_of
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step
from app.domain.states import (
    ApprovalKind,
    ApprovalStatus,
    DueKind,
    EffectClass,
    FailureKind,
    StepKind,
    StepState,
    WorkflowStatus,
)
from app.domain.transition import Draft, Due, KeyWanted

ITEM_WINDOW: Final = 500
"""Items inserted in one transaction: a for_each of 100,000 must not hold the workflow's lock for seconds."""


def instant(value: object) -> str | None:
    return None if value is None else str(value.isoformat().replace("+00:00", "Z"))  # type: ignore[attr-defined]


def bindings(draft: Draft, names: frozenset[str], row: StepRow | None = None) -> dict[str, JSON]:
    """What the expressions of a step see. Only the steps in `names` are bound: they were loaded."""
    steps = {}
    for name in names:
        seen = draft.snapshot.steps.get(name)
        if seen is not None:
            steps[name] = expressions.step_binding(
                output=seen.output, state=seen.state, error=seen.failure, failures=None
            )
    found: dict[str, JSON] = {
        "input": draft.workflow.input,
        "workflow": {
            "id": ids.encode("wf", draft.workflow.id),
            "name": draft.workflow.name,
            "started_at": instant(draft.workflow.started_at or draft.now),
        },
        "steps": steps,
    }
    if row is not None and row.item_index is not None:
        found |= {"item": row.item, "item_index": row.item_index}
    return found


def count_down(draft: Draft, fact: StepEnded) -> None:
    """A step is final: who waits for it has one unmet need less."""
    for name in draft.plan.steps[fact.step].dependents:
        dependent = draft.step(name)
        dependent.unmet_needs -= 1
        draft.touch(dependent)
        if dependent.unmet_needs == 0 and dependent.state == StepState.PENDING:
            draft.then(StepReady(step=name))


def begin(draft: Draft, fact: StepReady) -> None:
    row = draft.step(fact.step)
    step = draft.plan.steps[fact.step]
    if WorkflowStatus(draft.workflow.status).draining or row.state != StepState.PENDING:
        return
    try:
        if _unneeded(draft, step):
            ending.skip_step(draft, row, because="a step it needs was skipped")
            return
        seen = bindings(draft, step.needs, row)
        if step.condition is not None and not _holds(step.condition.evaluate(seen), step):
            ending.skip_step(draft, row, because="its condition is false")
            return
        if step.title is not None and step.for_each is None:
            row.title = str(step.title.render(seen))
        draft.move_step(row, StepState.RUNNING)
        _arm_timeout(draft, row, step)
        if step.for_each is not None:
            _begin_items(draft, row, step, seen)
        else:
            _begin_kind(draft, row, step, seen)
    except expressions.ExpressionError as error:
        _expression_failed(draft, row, error)


def _holds(value: JSON, step: Step) -> bool:
    """A condition is true or false: anything else is a mistake, not a no."""
    if not isinstance(value, bool):
        raise expressions.ExpressionError(
            f"`if` of {step.id} is not true or false but {type(value).__name__}", fix="Compare it: `if: x == 'yes'`."
        )
    return value


def _expression_failed(draft: Draft, row: StepRow, error: expressions.ExpressionError) -> None:
    ending.fail_step(draft, row, Failure(kind=FailureKind.EXPRESSION_ERROR, message=error.message, fix=error.fix))


def _unneeded(draft: Draft, step: Step) -> bool:
    """The skip rule: a skipped need skips, unless the condition mentions it."""
    asked_about = step.condition.steps if step.condition is not None else frozenset()
    return any(draft.step(need).state == StepState.SKIPPED and need not in asked_about for need in step.needs)


def _arm_timeout(draft: Draft, row: StepRow, step: Step) -> None:
    if step.timeout is not None and row.parent is None:
        at = draft.now + step.timeout
        ref = ids.derived("step_timeout", str(row.workflow_id), row.path)
        draft.set_due(Due(kind=DueKind.STEP_TIMEOUT, ref=ref, due_at=at, ring_at=at, note=row.path))


# --- items ---------------------------------------------------------------------------------------------------------


def _begin_items(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    items = step.for_each.render(seen) if step.for_each is not None else None
    if not isinstance(items, list):
        raise expressions.ExpressionError(
            f"for_each of {step.id} is not a list but {type(items).__name__}",
            fix="Give for_each an expression that yields a list.",
        )
    if len(items) > draft.rules.items_limit:
        raise expressions.ExpressionError(
            f"for_each of {step.id} has {len(items)} items; {draft.rules.items_limit} are allowed",
            fix="Split the list over several workflows.",
        )
    row.input = {"items": items}
    row.items_total, row.items_inserted, row.items_started, row.items_open, row.items_failed = len(items), 0, 0, 0, 0
    draft.event(
        "agent.step.started",
        step=row.path,
        moved=(StepState.PENDING, StepState.RUNNING),
        data={"context_size": size(items), "items": len(items)},
    )
    if not items:
        draft.snapshot.children.add(row.path)
        draft.then(ItemsEnded(step=row.path))
        return
    _insert_window(draft, row, step, items)
    fill_items(draft, row)


def next_item(draft: Draft, fact: ItemEnded) -> None:
    row = draft.step(fact.step)
    if row.state == StepState.RUNNING and not WorkflowStatus(draft.workflow.status).draining:
        fill_items(draft, row)


def want_items(draft: Draft, fact: ItemsWanted) -> None:
    row = draft.step(fact.step)
    if row.state != StepState.RUNNING:
        return
    if fact.window and isinstance(row.input, dict):
        _insert_window(draft, row, draft.plan.steps[fact.step], row.input["items"])
    fill_items(draft, row)


def _insert_window(draft: Draft, row: StepRow, step: Step, items: list[JSON]) -> None:
    first = row.items_inserted or 0
    window = items[first : first + ITEM_WINDOW]
    for index, item in enumerate(window, start=first):
        child = StepRow(
            workflow_id=row.workflow_id,
            path=f"{row.path}.{index}",
            tenant_id=row.tenant_id,
            name=row.name,
            position=row.position,
            parent=row.path,
            item_index=index,
            item=item,
            kind=row.kind,
            state=StepState.PENDING,
            unmet_needs=0,
        )
        draft.snapshot.steps[child.path] = child
        draft.transition.new_steps.append(child)
    row.items_inserted = first + len(window)
    draft.touch(row)


def fill_items(draft: Draft, row: StepRow) -> None:
    """Start items while there is room. Called when the step begins and whenever an item ends."""
    step = draft.plan.steps[row.name]
    total, started = row.items_total or 0, row.items_started or 0
    while (row.items_open or 0) < step.max_parallel and started < total and not row.items_failed:
        child = draft.snapshot.steps.get(f"{row.path}.{started}")
        if child is None:
            draft.then(ItemsWanted(step=row.path, window=started >= (row.items_inserted or 0)))
            break
        started += 1
        row.items_started, row.items_open = started, (row.items_open or 0) + 1
        draft.touch(row)
        _begin_item(draft, child, step)
    if not row.items_open and (started >= total or row.items_failed):
        draft.then(ItemsEnded(step=row.path))


def _begin_item(draft: Draft, child: StepRow, step: Step) -> None:
    draft.move_step(child, StepState.RUNNING)
    try:
        seen = bindings(draft, step.needs, child)
        if step.title is not None:
            child.title = str(step.title.render(seen))
        _begin_kind(draft, child, step, seen)
    except expressions.ExpressionError as error:
        _expression_failed(draft, child, error)


# --- kinds ---------------------------------------------------------------------------------------------------------


def _begin_kind(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    match step.kind:
        case StepKind.TOOL:
            _begin_tool(draft, row, step, seen)
        case StepKind.SET:
            values = step.values.render(seen) if step.values is not None else {}
            _started(draft, row, values)
            ending.succeed_step(draft, row, output=values)
        case StepKind.AGENT:
            _begin_agent(draft, row, step, seen)
        case StepKind.APPROVAL:
            _begin_approval(draft, row, step, seen)


def size(value: JSON) -> int:
    return len(canonical.canonical_json(value))


def _started(draft: Draft, row: StepRow, context: JSON) -> None:
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
        _started(draft, row, arguments)
        return
    _started(draft, row, arguments)
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
    append(draft, row, role="user", body=conversation.user_message(text))
    _started(draft, row, text)
    calling.model_call(draft, row, step)


def append(draft: Draft, row: StepRow, *, role: str, body: bytes) -> None:
    """One message more. Messages are never trimmed, reordered or edited."""
    draft.transition.messages.append(
        Message(
            workflow_id=row.workflow_id,
            tenant_id=row.tenant_id,
            step=row.path,
            conversation=row.conversation,
            ordinal=row.messages,
            role=role,
            turn=row.turn,
            body=body,
        )
    )
    row.messages += 1
    draft.touch(row)


def _begin_approval(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    asked = step.approval
    if asked is None:
        raise ValueError(f"{step.id} asks nobody")
    title = str(asked.title.render(seen))
    show = asked.show.render(seen) if asked.show is not None else None
    row.input = {"title": title, "show": show}
    row.title = row.title or title
    draft.move_step(row, StepState.WAITING)
    _started(draft, row, row.input)
    request_approval(
        draft,
        row,
        kind=ApprovalKind.STEP,
        title=title,
        show=show,
        allow=list(asked.allow),
        expires=asked.expires,
        on_expire=asked.on_expire,
    )


def request_approval(
    draft: Draft,
    row: StepRow,
    *,
    kind: ApprovalKind,
    title: str,
    show: JSON,
    allow: list[str],
    expires: timedelta | None = None,
    on_expire: str = "reject",
    call_id: UUID | None = None,
    arguments_sha256: str | None = None,
) -> None:
    place = (str(row.workflow_id), row.path, str(row.turn), str(call_id))
    approval = Approval(
        workflow_id=row.workflow_id,
        id=ids.timed(draft.now, "approval", *place),
        tenant_id=row.tenant_id,
        kind=kind,
        step=row.path,
        call_id=call_id,
        status=ApprovalStatus.OPEN,
        title=title,
        show=show,
        allow=allow,
        arguments_sha256=arguments_sha256,
        on_expire=on_expire,
        expires_at=None if expires is None else draft.now + expires,
        created_at=draft.now,
    )
    draft.snapshot.approvals[approval.id] = approval
    draft.transition.new_approvals.append(approval)
    if kind is ApprovalKind.STEP:
        draft.workflow.waits += 1
    if approval.expires_at is not None:
        draft.set_due(
            Due(
                kind=DueKind.EXPIRY,
                ref=approval.id,
                due_at=approval.expires_at,
                ring_at=approval.expires_at,
                note=row.path,
            )
        )
    draft.event(
        "approval.requested",
        step=row.path,
        data={"approval": ids.encode("apr", approval.id), "kind": kind, "title": title},
    )
    draft.attend("approval_pending")
