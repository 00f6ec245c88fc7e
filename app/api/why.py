"""`/v1/workflows/{id}/why`: what it waits for, since when, until when, who can move it, and with which command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import answering
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import problems_of
from app.api.query import NoQuery
from app.api.shapes.taken import DisabledTool, disabled_tool
from app.api.shapes.values import Shape
from app.api.workflow_reading import headline_of, workflow_id_of
from app.domain import ids, situation, why, why_commands, why_models, why_tools
from app.domain.plan import Plan
from app.domain.states import FailureKind, HeldReason, WorkflowStatus
from app.errors import NotFound
from app.store import identity, snapshots, why_views

router = APIRouter(tags=["workflows"])


class Command(Shape):
    """One way to move it. The curl reads SUREFOOT_URL and SUREFOOT_KEY from the environment."""

    cli: str
    curl: str | None
    """Null: only the command line does this."""


class Reason(Shape):
    kind: why.Kind
    headline: str
    reason: HeldReason | None
    """Why a call is held; null for the others."""
    step: str | None
    call: str | None
    effect: str | None
    approval: str | None
    since: datetime | None
    until: datetime | None
    not_before: datetime | None
    """Until then a request that left may still take effect."""
    who: str
    """Who can move it."""
    commands: list[Command]


class MissedTool(DisabledTool):
    """A tool that an agent has to do without; nothing waits for it."""

    headline: str
    commands: list[Command]


class SwitchedModel(Shape):
    """Another model than its agent's own, with which a step goes on until it ends; nothing waits for it."""

    step: str
    id: str
    """As the provider calls it."""
    alias: str
    """As the definition calls it."""
    switched_from: str
    """The agent's own."""
    kind: FailureKind
    """What it was switched for, the last time."""
    since: datetime
    headline: str
    commands: list[Command]


class Why(Shape):
    """Why nothing moves, the reason that most needs somebody first. Empty once the workflow has ended."""

    workflow: str
    status: WorkflowStatus
    headline: str
    reasons: list[Reason]
    more: int
    """Open calls beyond those told about here."""
    tools_disabled: list[MissedTool]
    """Taken away and not given back, also once the workflow has ended."""
    models_switched: list[SwitchedModel]
    """Also once the workflow has ended."""
    commands: list[Command]
    """What can be done with it once it has ended; empty before."""
    generated_at: datetime


@router.get(
    "/v1/workflows/{workflow}/why",
    operation_id="get_why",
    summary="Say why a workflow does not move, and who can move it",
    response_model=Why,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def get_why(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Every open call is accounted for; each reason says since when, until when, and the exact command."""
    workflow_id = workflow_id_of(workflow)
    services = services_of(request)
    async with snapshots.one_instant(services.database) as connection:
        row = await why_views.owner(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        if row is None:
            raise NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")
        plan = await services.plans.get(caller.tenant_id, row["plan_digest"])
        probes = {tool.name: tool.probe for tool in plan.tools.values() if tool.probe is not None}
        restored = (await identity.looked_at(connection)).changed
        found = await why_views.situation(connection, row, probes=probes, restored=restored)
        headline = await headline_of(connection, row)
    return answering.answer(request, _shape(found, why.explain(found), plan=plan, headline=headline))


def _commands(commands: Sequence[why_commands.Command]) -> list[Command]:
    return [Command(cli=command.cli, curl=command.curl) for command in commands]


def _shape(found: situation.Situation, reasons: list[situation.Reason], *, plan: Plan, headline: str) -> Why:
    return Why(
        workflow=ids.encode("wf", found.workflow["id"]),
        status=found.workflow["status"],
        headline=headline,
        reasons=[
            Reason(
                kind=reason.kind,
                headline=reason.headline,
                reason=None if reason.reason is None else HeldReason(reason.reason),
                step=reason.step,
                call=reason.call,
                effect=reason.effect,
                approval=reason.approval,
                since=reason.since,
                until=reason.until,
                not_before=reason.not_before,
                who=reason.who,
                commands=_commands(reason.commands),
            )
            for reason in reasons
        ],
        more=found.more,
        tools_disabled=[
            MissedTool(
                **dict(disabled_tool(missed.taken)), headline=missed.headline, commands=_commands(missed.commands)
            )
            for missed in why_tools.explain(found)
        ],
        models_switched=[_switched(switched) for switched in why_models.explain(found, plan)],
        commands=_commands(why.after_end(found.workflow)),
        generated_at=found.now,
    )


def _switched(switched: why_models.Switched) -> SwitchedModel:
    return SwitchedModel(
        step=switched.step,
        id=switched.model,
        alias=switched.alias,
        switched_from=switched.switched_from,
        kind=FailureKind(switched.kind),
        since=switched.since,
        headline=switched.headline,
        commands=_commands(switched.commands),
    )
