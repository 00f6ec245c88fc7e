"""Steps, their calls and attempts: what a workflow did, down to the try and the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from app.api.shapes.taken import DisabledTool, disabled_tools
from app.api.shapes.values import JSON, Shape, id_or_none
from app.api.shapes.workflow import FailureShape, failure_shape
from app.domain import amounts, ids, switching, taken_tools
from app.domain.plan import Plan
from app.domain.states import (
    AttemptOutcome,
    CallKind,
    CallState,
    EffectClass,
    FailureKind,
    HeldReason,
    StepKind,
    StepState,
    Undo,
)

Row = Mapping[str, Any]


class StepModel(Shape):
    """The model that a step's next model call is made with."""

    id: str
    """As the provider calls it."""
    alias: str
    """As the definition calls it."""
    switched_from: str | None
    """The agent's own model, if another one goes on for the rest of the step."""


class Step(Shape):
    path: str
    kind: StepKind
    state: StepState
    headline: str
    title: str | None
    needs: list[str]
    input: JSON
    output: JSON
    failure: FailureShape | None
    undo: Undo
    model: StepModel | None
    """Null for a step that is no agent."""
    tools_disabled: list[DisabledTool]
    """What its agent was offered and may not use any more."""
    calls: int
    attempts: int
    started_at: datetime | None
    ended_at: datetime | None


class Recovery(Shape):
    """One automatic decision: what was wrong, which rule decided, what changed, what came of it."""

    kind: str
    rule: str | None
    source: str | None
    line: int | None
    change: JSON
    diff: JSON
    waited_ms: int | None
    result: str | None


class Attempt(Shape):
    id: str
    n: int
    outcome: AttemptOutcome | None
    """Null while it is in flight."""
    lost_at: datetime | None
    worker: str
    intended_at: datetime
    sent_at: datetime | None
    received_at: datetime | None
    send_deadline: datetime
    status_code: int | None
    failure_kind: FailureKind | None
    usage: JSON
    cost_usd: str | None


class Call(Shape):
    id: str
    n: int
    kind: CallKind
    tool: str | None
    turn: int
    ordinal: int
    effect: EffectClass
    state: CallState
    held_reason: HeldReason | None
    key: str | None
    generation: int
    retry_of: str | None
    target: str | None
    """The call that a probe or compensation is about; of one that is attached, the call that owns its key."""
    undo: Undo
    change: JSON
    recovery: list[Recovery]
    not_before: datetime | None
    attempt_list: list[Attempt]


class PartialAnswer(Shape):
    """What a model has written so far of an answer that is not there yet. Shown while it lasts, kept nowhere."""

    call: str
    attempt: int
    characters: int
    """Of its text, all of it."""
    thought: int
    """Characters of its thinking, which is not shown."""
    text: str
    """The last 2,000 characters at most."""
    tools: list[str]
    """The tools that it has begun to ask for, as the model names them; none is called before the answer is whole."""


class StepDetail(Step):
    partial: PartialAnswer | None
    """Of the model call that is open, if it has begun to write and anybody can tell (it goes through Redis)."""
    call_list: list[Call]


class Answer(Shape):
    """What one attempt received: `json` if it is JSON, else `text` if it is text, else `base64`."""

    attempt: int
    status_code: int | None
    media_type: str | None
    truncated: bool
    bytes: int
    sha256: str
    json_: JSON = Field(alias="json")
    text: str | None
    base64: str | None
    failure: JSON
    request_id: str | None


class CallDetail(Call):
    """A call with the exact request (secrets as placeholders) and what came back."""

    request: JSON
    result: JSON
    failure: JSON
    answers: list[Answer]


def step_shape(row: Row, *, owner: Row, plan: Plan, headline: str, attempts: int) -> Step:
    """`owner`: the workflow's row."""
    return Step(**_step_fields(row, owner=owner, plan=plan, headline=headline, attempts=attempts))


def step_detail(
    row: Row,
    *,
    owner: Row,
    plan: Plan,
    headline: str,
    calls: Sequence[Row],
    attempts: Mapping[UUID, Sequence[Row]],
    partial: PartialAnswer | None = None,
) -> StepDetail:
    return StepDetail(
        **_step_fields(
            row, owner=owner, plan=plan, headline=headline, attempts=sum(call["attempts"] for call in calls)
        ),
        partial=partial,
        call_list=[call_shape(call, attempts=attempts[call["id"]]) for call in calls],
    )


def _step_fields(row: Row, *, owner: Row, plan: Plan, headline: str, attempts: int) -> dict[str, Any]:
    agent = plan.steps[row["name"]].agent
    offered = () if agent is None else agent.tools
    missed = taken_tools.out_of_reach(row["path"], row["counters"], entries=owner["tools_disabled"], offered=offered)
    return {
        "path": row["path"],
        "kind": row["kind"],
        "state": row["state"],
        "headline": headline,
        "title": row["title"],
        "needs": _needs(plan, row),
        "input": row["input"],
        "output": row["output"],
        "failure": failure_shape(row["failure"]),
        "undo": row["undo"],
        "model": _model(plan, row),
        "tools_disabled": disabled_tools(missed),
        "calls": row["calls"],
        "attempts": attempts,
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
    }


def _needs(plan: Plan, row: Row) -> list[str]:
    """In document order; an item needs what its parent needs."""
    needed = plan.steps[row["name"]].needs
    return [name for name in plan.steps if name in needed]


def _model(plan: Plan, row: Row) -> StepModel | None:
    used = switching.in_use(plan.steps[row["name"]], switched_to=row["model"])
    return None if used is None else StepModel(id=used.model, alias=used.alias, switched_from=used.switched_from)


def call_shape(row: Row, *, attempts: Sequence[Row]) -> Call:
    return Call(**_call_fields(row, attempts=attempts))


def call_detail(row: Row, *, attempts: Sequence[Row], request: JSON, answers: Sequence[Answer]) -> CallDetail:
    return CallDetail(
        **_call_fields(row, attempts=attempts),
        request=request,
        result=row["result"],
        failure=row["failure"],
        answers=list(answers),
    )


def _call_fields(row: Row, *, attempts: Sequence[Row]) -> dict[str, Any]:
    return {
        "id": ids.encode("call", row["id"]),
        "n": row["n"],
        "kind": row["kind"],
        "tool": row["tool"],
        "turn": row["turn"],
        "ordinal": row["ordinal"],
        "effect": row["effect"],
        "state": row["state"],
        "held_reason": row["held_reason"],
        "key": row["key"],
        "generation": row["generation"],
        "retry_of": id_or_none("call", row["retry_of"]),
        "target": id_or_none("call", row["target"]),
        "undo": row["undo"],
        "change": row["change"],
        "recovery": [recovery_shape(record) for record in row["recovery"]],
        "not_before": row["not_before"],
        "attempt_list": [attempt_shape(attempt) for attempt in attempts],
    }


def attempt_shape(row: Row) -> Attempt:
    return Attempt(
        id=ids.encode("att", row["id"]),
        n=row["n"],
        outcome=row["outcome"],
        lost_at=row["lost_at"],
        worker=ids.encode("wkr", row["worker"]),
        intended_at=row["intended_at"],
        sent_at=row["sent_at"],
        received_at=row["received_at"],
        send_deadline=row["send_deadline"],
        status_code=row["status_code"],
        failure_kind=None if row["failure"] is None else row["failure"]["kind"],
        usage=row["usage"],
        cost_usd=amounts.usd(row["cost_microusd"]),
    )


def recovery_shape(record: Mapping[str, JSON]) -> Recovery:
    return Recovery(
        kind=record["kind"],
        rule=record.get("rule"),
        source=record.get("source"),
        line=record.get("line"),
        change=record.get("change"),
        diff=record.get("diff"),
        waited_ms=record.get("waited_ms"),
        result=record.get("result"),
    )
