"""The workflow object: what a POST answers, what a GET polls, what a list holds (without input and output)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from app.api.shapes.values import JSON, Shape, workflow_path
from app.domain import amounts, ids
from app.domain.states import CallState, HeldReason, WorkflowStatus
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
    kind: Literal["approval", "signal", "timer", "doubt", "held", "child"]
    reason: HeldReason | None
    """Why a call is held; null for the other kinds."""
    step: str | None
    approval: str | None
    effect: str | None
    tool: str | None
    since: datetime | None
    until: datetime | None
    not_before: datetime | None


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
    undone: int
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
    effects: EffectCounts
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


def workflow_shape(row: Row, *, headline: str, waits: Waits, symptoms: Sequence[str]) -> Workflow:
    item = workflow_item(row, headline=headline, waits=waits, symptoms=symptoms)
    return Workflow(**dict(item), input=row["input"], output=row["output"])


def workflow_item(row: Row, *, headline: str, waits: Waits, symptoms: Sequence[str]) -> WorkflowItem:
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
        waiting_on=waiting_on(waits),
        progress=Progress(done=row["steps_done"], total=row["steps_total"], unit="steps", eta_ms=None, eta_basis=None),
        cost=Cost(
            usd=amounts.usd(row["spent_microusd"]) or "",
            recovery_usd=amounts.usd(row["recovery_microusd"]) or "",
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
        ),
        effects=EffectCounts(
            done=row["effects_done"],
            unknown=row["doubts"],
            undone=row["effects_undone"],
            duplicates_prevented=row["duplicates_prevented"],
        ),
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


def waiting_on(waits: Waits) -> list[WaitingOn]:
    return [
        *(
            WaitingOn(
                kind="approval",
                reason=None,
                step=row["step"],
                approval=ids.encode("apr", row["id"]),
                effect=None if row["call_id"] is None else ids.encode("call", row["call_id"]),
                tool=row["tool"],
                since=row["created_at"],
                until=row["expires_at"],
                not_before=None,
            )
            for row in waits.approvals
        ),
        *(
            WaitingOn(
                kind="doubt" if row["state"] == CallState.IN_DOUBT else "held",
                reason=row["held_reason"],
                step=row["step"],
                approval=None,
                effect=ids.encode("call", row["id"]),
                tool=row["tool"],
                since=row["doubt_since"] or row["created_at"],
                until=None,
                not_before=row["not_before"],
            )
            for row in waits.calls
        ),
    ]


def _webhook(webhook: JSON) -> WebhookShape | None:
    return None if webhook is None else WebhookShape(url=webhook["url"], events=list(webhook["events"]))


def _links(row: Row) -> WorkflowLinks:
    path = workflow_path(row["id"])
    return WorkflowLinks(
        self=path, steps=f"{path}/steps", effects=f"{path}/effects", events=f"{path}/events", trace=f"{path}/trace"
    )
