"""The commands that decide: approve, reject, resolve, cancel. Each says what it did in one sentence.

A decision names the revision that was read a moment before, so that nobody approves what changed meanwhile.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from app.cli import printing
from app.cli.exits import Stop
from app.cli.session import client_of
from app.domain.outcomes import JSON
from app.domain.plain import plain

ApprovalId = Annotated[str, typer.Argument(metavar="APPROVAL", help="apr_…")]
Comment = Annotated[str | None, typer.Option("--comment", help="Kept with the decision.")]
AsJson = Annotated[bool, typer.Option("--json", help="What the server said, as JSON.")]


class Verdict(StrEnum):
    HAPPENED = "happened"
    DID_NOT_HAPPEN = "did-not-happen"
    ABANDON = "abandon"


def approve(ctx: typer.Context, approval: ApprovalId, comment: Comment = None, as_json: AsJson = False) -> None:
    """Say yes to what a workflow asks."""
    _decide(ctx, approval, decision="approve", comment=comment, as_json=as_json)


def reject(ctx: typer.Context, approval: ApprovalId, comment: Comment = None, as_json: AsJson = False) -> None:
    """Say no to what a workflow asks."""
    _decide(ctx, approval, decision="reject", comment=comment, as_json=as_json)


def resolve(
    ctx: typer.Context,
    effect: Annotated[str, typer.Argument(metavar="EFFECT", help="call_…, an effect in doubt.")],
    verdict: Annotated[Verdict, typer.Argument(help="What you found out.")],
    note: Annotated[str, typer.Option("--note", help="How you know; kept for audit.")],
    result: Annotated[str | None, typer.Option("--result", metavar="JSON", help="With happened: what it gave.")] = None,
    as_json: AsJson = False,
) -> None:
    """Settle a doubt: it happened, it did not happen (it is then done again), or abandon it."""
    body: dict[str, JSON] = {"outcome": verdict.value.replace("-", "_"), "note": note}
    if result is not None:
        try:
            body["result"] = json.loads(result)
        except ValueError as error:
            raise Stop(f"--result is not JSON: {error}.", fix="Quote it for the shell: --result '{…}'") from error
    with client_of(ctx) as client:
        settled = client.post(f"/v1/effects/{effect}/resolve", body).body
    if as_json:
        printing.as_json(settled)
        return
    printing.out(f"{settled['step']} ({settled['tool']}): settled as {verdict.value}; it is now {settled['state']}.")
    printing.note(f"  surefoot trace {settled['workflow_id']} --follow")


def cancel(
    ctx: typer.Context,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="wf_…")],
    reason: Annotated[str | None, typer.Option("--reason", help="Kept with the workflow.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start nothing new in a workflow, settle what is in flight, then end it."""
    body = {} if reason is None else {"reason": reason}
    with client_of(ctx) as client:
        found = client.post(f"/v1/workflows/{workflow}/cancel", body).body
    if as_json:
        printing.as_json(found)
        return
    printing.out(printing.headline(found))
    printing.note(f"  surefoot trace {workflow} --follow")


def _decide(ctx: typer.Context, approval: str, *, decision: str, comment: str | None, as_json: bool) -> None:
    with client_of(ctx) as client:
        asked = client.get(f"/v1/approvals/{approval}")
        body = {"decision": decision, "revision": asked["revision"]} | ({} if comment is None else {"comment": comment})
        decided = client.post(f"/v1/approvals/{approval}/decision", body).body
    if as_json:
        printing.as_json(decided)
        return
    said = "Approved" if decision == "approve" else "Rejected"
    printing.out(f"{said}: {plain(str(decided['title']))}")
    printing.note(f"  surefoot trace {decided['workflow_id']} --follow")
