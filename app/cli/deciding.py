"""The commands that decide: approve, reject, resolve (one doubt, or many), cancel. Each says what it did.

A decision names the revision that was read a moment before, so that nobody approves what changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

import typer

from app.cli import printing, server_clock
from app.cli.exits import USAGE
from app.cli.json_arguments import json_argument
from app.cli.recovering import parse_instant
from app.cli.session import client_of
from app.domain.amounts import counted
from app.domain.outcomes import JSON
from app.domain.plain import plain

ApprovalId = Annotated[str, typer.Argument(metavar="APPROVAL", help="apr_…")]
Comment = Annotated[str | None, typer.Option("--comment", help="Kept with the decision.")]
AsJson = Annotated[bool, typer.Option("--json", help="What the server said, as JSON.")]


class Verdict(StrEnum):
    HAPPENED = "happened"
    DID_NOT_HAPPEN = "did-not-happen"
    ABANDON = "abandon"
    PROBE = "probe"


AT_ONCE: Final = 5_000
"""Doubts of one `resolve --all`: the most the server takes."""
PATIENCE: Final = 300.0
"""Seconds it may take: each doubt is a transaction of its own."""


def approve(
    ctx: typer.Context,
    approval: ApprovalId,
    edit: Annotated[
        str | None, typer.Option("--edit", metavar="JSON|@file", help="Approve this instead: the whole new arguments.")
    ] = None,
    comment: Comment = None,
    as_json: AsJson = False,
) -> None:
    """Say yes to what a workflow asks, as it is or with other arguments."""
    body: dict[str, JSON] = {"decision": "approve"}
    if edit is not None:
        body = {"decision": "edit", "values": json_argument(edit, option="--edit")}
    _decide(ctx, approval, body, comment=comment, as_json=as_json)


def reject(ctx: typer.Context, approval: ApprovalId, comment: Comment = None, as_json: AsJson = False) -> None:
    """Say no to what a workflow asks."""
    _decide(ctx, approval, {"decision": "reject"}, comment=comment, as_json=as_json)


def resolve(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[EFFECT] VERDICT",
            help="call_…, an effect in doubt (left out with --all), and happened, did-not-happen, abandon or probe.",
        ),
    ],
    note: Annotated[str, typer.Option("--note", help="How you know; kept for audit.")],
    result: Annotated[
        str | None, typer.Option("--result", metavar="JSON|@file", help="With happened: what it gave.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every doubt that fits the options below.")] = False,
    tool: Annotated[str | None, typer.Option("--tool", help="With --all: of this tool.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="With --all: of this workflow.")] = None,
    step: Annotated[str | None, typer.Option("--step", help="With --all: of steps with this path.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="With --all: in doubt since then: RFC 3339, or 2h ago.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="With --all: in doubt before then: RFC 3339, or 2h ago.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --all: only say what would be settled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Settle a doubt, or with --all many: it happened, it did not (it is then done again), abandon it, or probe."""
    between = {"since": since, "until": until}
    given = {"tool": tool, "workflow": workflow, "step": step, **between}
    wanted = {name: value for name, value in given.items() if value is not None}
    *effect, verdict = words
    body: dict[str, JSON] = {"outcome": _verdict(verdict).value.replace("-", "_"), "note": note}
    if every:
        if effect or result is not None:
            raise typer.BadParameter(
                "--all takes no effect and no --result: surefoot resolve --all --tool NAME VERDICT"
            )
        if not wanted:
            raise typer.BadParameter("--all needs at least one of --tool, --workflow, --step, --since, --until")
        meant = {name: parse_instant(text, option=f"--{name}") for name, text in between.items() if text is not None}
        body |= {"filter": wanted, "limit": AT_ONCE, "dry_run": dry_run}
        _resolve_all(ctx, body, meant, said=verdict, as_json=as_json)
        return
    if len(effect) != 1 or wanted or dry_run:
        raise typer.BadParameter("name one effect and the verdict, or use --all: surefoot resolve call_… VERDICT")
    if result is not None:
        body["result"] = json_argument(result, option="--result")
    with client_of(ctx) as client:
        settled = client.post(f"/v1/effects/{effect[0]}/resolve", body).body
    if as_json:
        printing.as_json(settled)
        return
    step_and_tool = f"{plain(str(settled['step']))} ({plain(str(settled['tool']))})"
    if verdict == Verdict.PROBE:
        printing.out(f"{step_and_tool}: the tool is asked again; it is now {settled['state']}.")
    else:
        printing.out(f"{step_and_tool}: settled as {verdict}; it is now {settled['state']}.")
    printing.note(f"  surefoot trace {settled['workflow_id']} --follow")


def _verdict(word: str) -> Verdict:
    try:
        return Verdict(word)
    except ValueError as error:
        known = ", ".join(verdict.value for verdict in Verdict)
        raise typer.BadParameter(f"{plain(word)} is no verdict; those are {known}") from error


def _resolve_all(
    ctx: typer.Context,
    body: dict[str, JSON],
    meant: Mapping[str, datetime | timedelta],
    *,
    said: str,
    as_json: bool,
) -> None:
    """`meant`: the filter's instants; a duration is that long ago."""
    with client_of(ctx) as client:
        for name, when in meant.items():
            instant = server_clock.now(client) - when if isinstance(when, timedelta) else when
            body["filter"][name] = instant.isoformat()
        bulk = client.post("/v1/effects/resolve", body, patience=PATIENCE).body
    if as_json:
        printing.as_json(bulk)
    else:
        printing.out(_told(bulk, said=said, dry_run=bool(body["dry_run"])))
        if bulk["refused"]:
            rows = [(one["effect"], one["code"], one["detail"]) for one in bulk["refused"]]
            printing.table(rows, head=("effect", "refused", "because"))
        if bulk["remaining"]:
            printing.note(f"{bulk['remaining']} were not looked at; the same command again goes on.")
        for one in bulk["refused"][:1]:
            printing.note(f"  surefoot show {one['effect']}")
    if bulk["refused"]:
        raise typer.Exit(USAGE)


def _told(bulk: Mapping[str, JSON], *, said: str, dry_run: bool) -> str:
    if not bulk["matched"]:
        return "No doubt fits."
    would = "would be " if dry_run else ""
    done = f"{would}probed again" if said == Verdict.PROBE else f"{would}settled as {said}"
    return f"{bulk['resolved']} of {counted(bulk['matched'], 'doubt')} {done}; {len(bulk['refused'])} refused."


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


def _decide(ctx: typer.Context, approval: str, body: dict[str, JSON], *, comment: str | None, as_json: bool) -> None:
    with client_of(ctx) as client:
        asked = client.get(f"/v1/approvals/{approval}")
        body = body | {"revision": asked["revision"]} | ({} if comment is None else {"comment": comment})
        decided = client.post(f"/v1/approvals/{approval}/decision", body).body
    if as_json:
        printing.as_json(decided)
        return
    said = {"approve": "Approved", "edit": "Approved with other arguments", "reject": "Rejected"}[body["decision"]]
    printing.out(f"{said}: {plain(str(decided['title']))}")
    printing.note(f"  surefoot trace {decided['workflow_id']} --follow")
