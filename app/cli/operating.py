"""The commands of an operator: pause, resume, retry, compensate, step, undo, hold, release, holds.

Each says in one sentence what is so now and prints the next command. The same command again is harmless.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote

import typer

from app.cli import printing
from app.cli.client import Problem
from app.cli.exits import Stop
from app.cli.json_arguments import json_argument
from app.cli.session import client_of
from app.domain.outcomes import JSON
from app.domain.plain import plain
from app.domain.trace_rows import glyph_of

if TYPE_CHECKING:
    from app.cli.client import Client

AsJson = Annotated[bool, typer.Option("--json", help="What the server said, as JSON.")]
WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", help="wf_…")]
Reason = Annotated[str | None, typer.Option("--reason", help="Kept for audit.")]
Note = Annotated[str | None, typer.Option("--note", help="Kept for audit.")]
NeededNote = Annotated[str, typer.Option("--note", help="Why, or how you know; kept for audit.")]

TENANT: Final = "tenant"
_SCOPES: Final = "Write: tool NAME, model NAME, or tenant alone."


class Mode(StrEnum):
    UNDO = "undo"
    KEEP = "keep"


class StepAction(StrEnum):
    SKIP = "skip"
    COMPLETE = "complete"
    FAIL = "fail"
    RETRY_NOW = "retry-now"


class UndoAction(StrEnum):
    RETRY = "retry"
    DONE = "done"
    SKIP = "skip"


class What(StrEnum):
    TOOL = "tool"
    MODEL = "model"
    TENANT = "tenant"


def pause(ctx: typer.Context, workflow: WorkflowId, reason: Reason = None, as_json: AsJson = False) -> None:
    """Send nothing new of a workflow until it is resumed; what is in flight is settled."""
    _workflow(ctx, workflow, "pause", _given(reason=reason), as_json=as_json, then=f"surefoot resume {workflow}")


def resume(ctx: typer.Context, workflow: WorkflowId, reason: Reason = None, as_json: AsJson = False) -> None:
    """Go on with a paused workflow."""
    _workflow(ctx, workflow, "resume", _given(reason=reason), as_json=as_json, then=_followed(workflow))


def retry(ctx: typer.Context, workflow: WorkflowId, note: Note = None, as_json: AsJson = False) -> None:
    """Reopen a failed or cancelled workflow: what failed is tried again, what succeeded is not repeated."""
    _workflow(ctx, workflow, "retry", _given(note=note), as_json=as_json, then=_followed(workflow))


def compensate(
    ctx: typer.Context,
    workflow: WorkflowId,
    mode: Annotated[Mode, typer.Argument(help="undo what was done, or keep it.")],
    note: NeededNote,
    as_json: AsJson = False,
) -> None:
    """Decide about a failed workflow that waits for an operator: undo its effects, or keep them."""
    body = {"mode": mode.value, "note": note}
    _workflow(ctx, workflow, "compensate", body, as_json=as_json, then=_followed(workflow))


def step(
    ctx: typer.Context,
    workflow: WorkflowId,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Of the step: understand, availability.3")],
    action: Annotated[StepAction, typer.Argument(help="What to do with it.")],
    output: Annotated[
        str | None, typer.Option("--output", metavar="JSON|@file", help="With complete: what it came to.")
    ] = None,
    note: Note = None,
    as_json: AsJson = False,
) -> None:
    """Take a step into your own hands: skip, complete or fail it, or do not wait for its next try."""
    body = _given(note=note)
    if output is None and action is StepAction.COMPLETE:
        # Nothing is an output, too, and whoever forgets the option does not mean it: the steps behind read it.
        raise Stop("complete needs --output: what the step came to.", fix="--output '{…}', or --output null.")
    if output is not None:
        if action is not StepAction.COMPLETE:
            raise Stop(f"--output does not go with {action}.", fix="Only complete gives a step its output.")
        body["output"] = json_argument(output, option="--output")
    with client_of(ctx) as client:
        found = client.post(f"/v1/workflows/{workflow}/steps/{quote(path, safe='')}/{action}", body).body
    if as_json:
        printing.as_json(found)
        return
    printing.out(f"{glyph_of(found['state'])} {plain(str(found['path']))}  {plain(str(found['headline']))}")
    printing.note(f"  {_followed(workflow)}")


def undo(
    ctx: typer.Context,
    effect: Annotated[str, typer.Argument(metavar="EFFECT", help="call_…, an effect that could not be undone.")],
    action: Annotated[UndoAction, typer.Argument(help="retry it, say it was done by hand, or skip it.")],
    note: NeededNote,
    as_json: AsJson = False,
) -> None:
    """Settle an undo that failed: try again, it was done by hand, or it stays done."""
    with client_of(ctx) as client:
        found = client.post(f"/v1/effects/{effect}/compensation", {"action": action.value, "note": note}).body
    if as_json:
        printing.as_json(found)
        return
    printing.out(f"{plain(str(found['step']))} ({plain(str(found['tool']))}): {_undone(str(found['undo']))}")
    printing.note(f"  {_followed(str(found['workflow_id']))}")


def hold(
    ctx: typer.Context,
    what: Annotated[What, typer.Argument(help="A tool, a model, or the whole tenant.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="email.send, or a model's id or alias.")] = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Send nothing new of a tool, a model or the whole tenant until it is released."""
    scope = _scope(what, name)
    with client_of(ctx) as client:
        found = client.put(f"/v1/switches/{quote(scope, safe='')}", _given(reason=reason))
        strange = what is What.TOOL and not as_json and _never_seen(client, str(name))
    if as_json:
        printing.as_json(found)
        return
    printing.out(f"Held: nothing new of {plain(scope)} is sent, in any workflow, until it is released.")
    if strange:
        printing.note(f"No effect of a tool {plain(str(name))} has been seen so far: is that its name?")
    printing.note(f"  surefoot release {_words(scope)}")


def release(
    ctx: typer.Context,
    what: Annotated[What, typer.Argument(help="A tool, a model, or the whole tenant.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="email.send, or a model's id or alias.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let go what was held: its calls are due again."""
    scope = _scope(what, name)
    with client_of(ctx) as client:
        found = client.delete(f"/v1/switches/{quote(scope, safe='')}")
    if as_json:
        printing.as_json(found)
        return
    calls = "1 call is" if found["released"] == 1 else f"{found['released']} calls are"
    printing.out(f"Released: {plain(scope)}; {calls} due again.")
    printing.note("  surefoot holds")


def holds(ctx: typer.Context, as_json: AsJson = False) -> None:
    """What is held back, since when, by whom and why."""
    with client_of(ctx) as client:
        page = client.get("/v1/switches")
    if as_json:
        printing.as_json(page)
        return
    if not page["data"]:
        printing.note("Nothing is held.\n  surefoot hold tool NAME --reason '…'")
        return
    printing.table(
        [(one["scope"], one["created_at"][:19], one["by"], one["reason"] or "-") for one in page["data"]],
        head=("held", "since (UTC)", "by", "reason"),
    )
    for one in page["data"]:
        printing.note(f"  surefoot release {_words(str(one['scope']))}")


def _workflow(ctx: typer.Context, workflow: str, verb: str, body: dict[str, JSON], *, as_json: bool, then: str) -> None:
    with client_of(ctx) as client:
        found = client.post(f"/v1/workflows/{workflow}/{verb}", body).body
    if as_json:
        printing.as_json(found)
        return
    printing.out(printing.headline(found))
    printing.note(f"  {then}")


def _given(*, reason: str | None = None, note: str | None = None) -> dict[str, JSON]:
    return {name: text for name, text in (("reason", reason), ("note", note)) if text is not None}


def _followed(workflow: str) -> str:
    return f"surefoot trace {workflow} --follow"


def _undone(undo: str) -> str:
    said = {
        "running": "its undo is tried again.",
        "done": "it counts as undone.",
        "skipped": "it stays done; nothing will undo it.",
        "failed": "its undo failed again at once.",
    }
    return said.get(undo, f"its undo is {undo}.")


def _never_seen(client: Client, tool: str) -> bool:
    """Any name may be held, so that a slip of the pen would look like a tool that was stopped."""
    try:
        return not client.get("/v1/effects", query={"tool": tool, "limit": 1})["data"]
    except Problem:  # the key may hold and not read; what was asked for is done
        return False


def _scope(what: What, name: str | None) -> str:
    if what is What.TENANT:
        if name is not None:
            raise Stop("The tenant has no name here.", fix=_SCOPES)
        return TENANT
    if not name:
        raise Stop(f"Which {what}?", fix=_SCOPES)
    return f"{what}:{name}"


def _words(scope: str) -> str:
    """The scope as the command line takes it."""
    return plain(scope.replace(":", " ", 1))
