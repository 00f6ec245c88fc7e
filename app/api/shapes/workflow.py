"""The workflow object: what a POST answers, what a GET polls, what a list holds (without input and output)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from app.api.shapes.budget import Budget, budgets_of
from app.api.shapes.taken import DisabledTool, disabled_tools
from app.api.shapes.values import JSON, Shape, workflow_path
from app.domain import amounts, ids, taken_tools
from app.domain.states import CallState, HeldReason, Undo, WorkflowStatus
from app.store.workflow_views import Row, Waits

POLL_MS: Final = {
    WorkflowStatus.QUEUED: 2000,
    WorkflowStatus.RUNNING: 500,
    WorkflowStatus.WAITING: 5000,
    WorkflowStatus.PAUSED: 5000,
    WorkflowStatus.FAILING: 500,
    WorkflowStatus.CANCELLING: 500,
    WorkflowStatus.COMPENSATING: 1000,
}
"""How soon another look is worth it: people answer in minutes, calls in parts of a second."""


Kind = Literal["approval", "signal", "timer", "doubt", "held", "child", "probe", "result", "saga", "compensation"]


class DefinitionRef(Shape):
    name: str
    version: int | None
    digest: str


class FailureShape(Shape):
    kind: str
    message: str
    step: str | None
    call: str | None
    fix: str | None


class WaitingOn(Shape):
    kind: Kind
    """`probe`: the tool is asked whether it happened; `result`: it was accepted (202); `saga`: an operator decides
    whether what was done is undone; `compensation`: an undo failed, an operator settles it."""
    reason: HeldReason | None
    """Why a call is held; null for the other kinds."""
    step: str | None
    approval: str | None
    effect: str | None
    tool: str | None
    since: datetime | None
    until: datetime | None
    """When it expires, is asked again, or is given up."""
    not_before: datetime | None
    """Until then a request that left may still take effect."""


class Progress(Shape):
    done: int
    total: int
    unit: Literal["steps"]
    eta_ms: int | None
    eta_basis: str | None


class Cost(Shape):
    usd: str
    recovery_usd: str
    """The part of `usd` that went into attempts which had to be repeated."""
    input_tokens: int
    output_tokens: int


class EffectCounts(Shape):
    done: int
    unknown: int
    """In doubt, or being probed: nobody knows yet whether they happened."""
    undone: int
    abandoned: int
    """Given up: nobody knows whether they happened, and nobody is asked any more."""
    duplicates_prevented: int


class WebhookShape(Shape):
    url: str
    events: list[str]


class WorkflowLinks(Shape):
    self: str
    steps: str
    effects: str
    events: str
    trace: str


class WorkflowItem(Shape):
    """A workflow in a list."""

    id: str
    status: WorkflowStatus
    headline: str
    definition: DefinitionRef
    idempotency_key: str
    failure: FailureShape | None
    compensation: Literal["not_needed", "done", "partial", "skipped"] | None
    labels: dict[str, str]
    attention: list[str]
    waiting_on: list[WaitingOn]
    progress: Progress
    cost: Cost
    budget: list[Budget] | None
    """Its own and those of its steps; null if it has none."""
    effects: EffectCounts
    tools_disabled: list[DisabledTool]
    """Taken away from every agent of it, those given back since among them; what one step alone had to do without is
    in the step."""
    webhook: WebhookShape | None
    deadline_at: datetime
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    ended_at: datetime | None
    last_seq: int
    next_poll_ms: int | None
    links: WorkflowLinks


class Workflow(WorkflowItem):
    """One durable execution of a definition."""

    input: JSON
    output: JSON


def workflow_shape(
    row: Row, *, headline: str, waits: Waits, symptoms: Sequence[str], budgets: Sequence[Row] = ()
) -> Workflow:
    item = workflow_item(row, headline=headline, waits=waits, symptoms=symptoms, budgets=budgets)
    return Workflow(**dict(item), input=row["input"], output=row["output"])


def workflow_item(
    row: Row, *, headline: str, waits: Waits, symptoms: Sequence[str], budgets: Sequence[Row] = ()
) -> WorkflowItem:
    status = WorkflowStatus(row["status"])
    return WorkflowItem(
        id=ids.encode("wf", row["id"]),
        status=status,
        headline=headline,
        definition=DefinitionRef(name=row["name"], version=row["version"], digest=row["definition_digest"]),
        idempotency_key=row["idempotency_key"],
        failure=failure_shape(row["failure"]),
        compensation=row["compensation"],
        labels=row["labels"],
        attention=[*row["attention"], *symptoms],
        waiting_on=waiting_on(row, waits),
        progress=Progress(done=row["steps_done"], total=row["steps_total"], unit="steps", eta_ms=None, eta_basis=None),
        cost=Cost(
            usd=amounts.usd(row["spent_microusd"]) or "",
            recovery_usd=amounts.usd(row["recovery_microusd"]) or "",
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
        ),
        budget=budgets_of(row, budgets),
        effects=EffectCounts(
            done=row["effects_done"],
            unknown=row["doubts"] + sum(call["asking"] is not None for call in waits.pending),
            undone=row["effects_undone"],
            abandoned=row["effects_abandoned"],
            duplicates_prevented=row["duplicates_prevented"],
        ),
        tools_disabled=disabled_tools(taken_tools.of_workflow(row["tools_disabled"])),
        webhook=_webhook(row["webhook"]),
        deadline_at=row["deadline_at"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        updated_at=row["updated_at"],
        ended_at=row["ended_at"],
        last_seq=row["last_seq"],
        next_poll_ms=POLL_MS.get(status),
        links=_links(row),
    )


def failure_shape(failure: JSON) -> FailureShape | None:
    """Of a workflow or a step; the rest of a failure (status, detail) is on the attempt that had it."""
    if failure is None:
        return None
    return FailureShape(
        kind=failure["kind"],
        message=failure["message"],
        step=failure.get("step"),
        call=failure.get("call"),
        fix=failure.get("fix"),
    )


def waiting_on(row: Row, waits: Waits) -> list[WaitingOn]:
    """What needs a person first."""
    saga = [_wait("saga", step=(row["failure"] or {}).get("step"), since=row["updated_at"])]
    return [
        *(_approval_wait(approval) for approval in waits.approvals),
        *(saga if row["saga"] == "held" and row["ended_at"] is None else []),
        *(_parked_wait(call) for call in waits.calls),
        *(
            _call_wait("result" if call["asking"] is None else "probe", call, since=None, until=call["next_at"])
            for call in waits.pending
        ),
    ]


def _approval_wait(row: Row) -> WaitingOn:
    return _wait(
        "approval",
        step=row["step"],
        approval=ids.encode("apr", row["id"]),
        effect=None if row["call_id"] is None else ids.encode("call", row["call_id"]),
        tool=row["tool"],
        since=row["created_at"],
        until=row["expires_at"],
    )


def _parked_wait(call: Row) -> WaitingOn:
    if call["undo"] == Undo.FAILED:
        return _call_wait("compensation", call, since=call["undo_failed_at"] or call["ended_at"], until=None)
    kind: Kind = "doubt" if call["state"] == CallState.IN_DOUBT else "held"
    return _call_wait(kind, call, since=call["doubt_since"] or call["created_at"], until=None)


def _call_wait(kind: Kind, call: Row, *, since: datetime | None, until: datetime | None) -> WaitingOn:
    return _wait(
        kind,
        reason=call["held_reason"],
        step=call["step"],
        effect=ids.encode("call", call["id"]),
        tool=call["tool"],
        since=since or call["doubt_since"],
        until=until,
        not_before=call["not_before"],
    )


def _wait(
    kind: Kind,
    *,
    step: str | None,
    since: datetime | None,
    until: datetime | None = None,
    not_before: datetime | None = None,
    reason: HeldReason | None = None,
    approval: str | None = None,
    effect: str | None = None,
    tool: str | None = None,
) -> WaitingOn:
    return WaitingOn(
        kind=kind, reason=reason, step=step, approval=approval, effect=effect, tool=tool, since=since, until=until,
        not_before=not_before,
    )  # fmt: skip


def _webhook(webhook: JSON) -> WebhookShape | None:
    return None if webhook is None else WebhookShape(url=webhook["url"], events=list(webhook["events"]))


def _links(row: Row) -> WorkflowLinks:
    path = workflow_path(row["id"])
    return WorkflowLinks(
        self=path, steps=f"{path}/steps", effects=f"{path}/effects", events=f"{path}/events", trace=f"{path}/trace"
    )
