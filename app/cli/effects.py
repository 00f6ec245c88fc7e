"""`surefoot effects`: what a workflow, or every workflow, changed in the world, and what nobody knows.

Every page is read: nothing is cut off. Behind the table stands the command for each effect that needs a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import next_commands, printing
from app.cli.session import client_of
from app.domain.outcomes import JSON
from app.domain.plain import plain
from app.domain.trace_rows import glyph_of

if TYPE_CHECKING:
    from app.cli.client import Client

PAGE: Final = 500
"""The server's largest page: fewer questions."""
SHOWN: Final = 3
"""Effects whose commands are written out; many are settled with one word."""


def effects(
    ctx: typer.Context,
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", help="wf_…; without it: of all workflows, newest first.")
    ] = None,
    state: Annotated[str | None, typer.Option("--state", help="in_doubt, probing, succeeded, …")] = None,
    undo: Annotated[str | None, typer.Option("--undo", help="failed is what could not be undone.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", help="Only of this tool.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="What the server said, as JSON (every page in one).")] = False,
) -> None:
    """What was changed in the world, what nobody knows, and what could not be undone."""
    path = "/v1/effects" if workflow is None else f"/v1/workflows/{workflow}/effects"
    with client_of(ctx) as client:
        found = _whole(client, path, {"state": state, "undo": undo, "tool": tool})
    if as_json:
        printing.as_json(found)
        return
    if not found["data"]:
        asked = workflow is None or state or undo or tool
        printing.note("No effect fits." if asked else "It changed nothing in the world so far.")
        printing.note(f"  surefoot trace {workflow}" if workflow else "  surefoot list")
        return
    _table(found["data"], tell_workflow=workflow is None)
    if "totals" in found:
        printing.out(" · ".join(f"{number} {name.replace('_', ' ')}" for name, number in found["totals"].items()))
    for line in [*_said(found["data"]), *_needs(found["data"])]:
        printing.out(line)


def _whole(client: Client, path: str, filters: Mapping[str, JSON]) -> dict[str, JSON]:
    """Every page as one."""
    page = client.get(path, query={**filters, "limit": PAGE})
    rows = list(page["data"])
    while page["has_more"]:
        page = client.get(path, query={**filters, "limit": PAGE, "cursor": page["next_cursor"]})
        rows += page["data"]
    return {**page, "data": rows}


def _table(rows: Sequence[Mapping[str, JSON]], *, tell_workflow: bool) -> None:
    """Undoing has a column only where something was to be undone."""
    tell_undo = any(one["undo"] != "none" for one in rows)
    shown = []
    for one in rows:
        place = [str(one["workflow_id"])] if tell_workflow else []
        undo = [str(one["undo"])] if tell_undo else []
        shown.append(
            [
                glyph_of(one["state"]), one["state"], *undo, *place, one["step"], str(one["tool"]), one["effect"],
                str(one["attempts"]), one["id"], f"key {one['key']}" if one["key"] else "no key",
            ]
        )  # fmt: skip
    columns = ["undo"] if tell_undo else []
    columns += ["workflow"] if tell_workflow else []
    printing.table(shown, head=("", "state", *columns, "step", "tool", "class", "tries", "effect", "key"))


def _said(rows: Sequence[Mapping[str, JSON]]) -> list[str]:
    """How it became known what nobody knew, and whose effect it is."""
    lines = []
    for one in rows:
        said = one["resolved"]
        if one.get("attached_to"):
            lines.append(f"{one['id']} is the effect of {one['attached_to']}, which has the same key; it was not sent")
        elif said:
            note = f": {said['note']}" if said["note"] else ""
            told = f"{said['by']} said {str(said['outcome']).replace('_', ' ')}{note}"
            lines.append(f"{one['id']} was not known; {told}")
    return [plain(line) for line in lines]


def _needs(rows: Sequence[Mapping[str, JSON]]) -> list[str]:
    """What a person can do about them."""
    doubts = [one for one in rows if one["state"] == "in_doubt"]
    lines = [line for one in doubts[:SHOWN] for line in next_commands.of_doubt(str(one["id"]))]
    if len(doubts) > SHOWN:
        tool = plain(str(doubts[SHOWN]["tool"]))
        lines.append(f"and {len(doubts) - SHOWN} more in doubt; all of one tool at once:")
        lines.append(f"surefoot resolve did-not-happen --all --tool {tool} --note '…' --dry-run")
    failed = [one for one in rows if one["undo"] == "failed"]
    lines += [line for one in failed[:SHOWN] for line in next_commands.of_undo(str(one["id"]))]
    if len(failed) > SHOWN:
        lines.append(f"and {len(failed) - SHOWN} more could not be undone")
    return lines
