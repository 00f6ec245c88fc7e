"""`surefoot approvals`: what waits for a person's yes or no, oldest first, with the commands that decide it.

Every page is read: nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import typer

from app.cli import next_commands, printing
from app.cli.session import client_of
from app.domain.outcomes import JSON

PAGE: Final = 500
"""The server's largest page: fewer questions."""
SHOWN: Final = 3
"""Questions whose commands are written out; those of the others differ by the id alone."""
_NEVER: Final = "-"


def approvals(
    ctx: typer.Context,
    workflow: Annotated[str | None, typer.Argument(metavar="WORKFLOW", help="wf_…; without it: of all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="What the server said, as JSON (every page in one).")] = False,
) -> None:
    """What waits for a person: each open question, until when, and how to answer it."""
    with client_of(ctx) as client:
        asked: dict[str, JSON] = {"status": "open", "workflow": workflow, "limit": PAGE}
        page = client.get("/v1/approvals", query=asked)
        rows = list(page["data"])
        while page["has_more"]:
            page = client.get("/v1/approvals", query={**asked, "cursor": page["next_cursor"]})
            rows += page["data"]
    rows.reverse()  # who has waited longest comes first
    if as_json:
        printing.as_json({**page, "data": rows})
        return
    if not rows:
        printing.note("Nobody is asked anything.\n  surefoot list")
        return
    printing.table([_row(one) for one in rows], head=("approval", "workflow", "step", "until (UTC)", "question"))
    for one in rows[:SHOWN]:
        for command in next_commands.of_approval(str(one["id"])):
            printing.note(f"  {command}")
    if len(rows) > SHOWN:
        printing.note(f"  … and {len(rows) - SHOWN} more")


def _row(one: Mapping[str, JSON]) -> tuple[str, ...]:
    until = _NEVER if one["expires_at"] is None else str(one["expires_at"])[:19]
    return (str(one["id"]), str(one["workflow_id"]), str(one["step"]), until, str(one["title"]))
