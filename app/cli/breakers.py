"""`surefoot breakers`: what keeps failing and is left in peace; `surefoot breakers reset`: the trouble is over.

Without a subcommand it lists, and prints the command that goes on.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Final
from urllib.parse import quote

import typer

from app.cli import printing
from app.cli.operating import AsJson
from app.cli.session import client_of
from app.domain.outcomes import JSON
from app.domain.plain import plain

breakers: Final = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@breakers.callback()
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Tools and models that keep failing, refused credentials, rate limits that are near."""
    if ctx.invoked_subcommand is not None:
        return
    with client_of(ctx) as client:
        page = client.get("/v1/breakers")
    if as_json:
        printing.as_json(page)
        return
    if not page["data"]:
        printing.note("Nothing is in trouble: every tool and model answers.")
        return
    printing.table(
        [(one["scope"], one["state"], _next(one), str(one["held"]), one["headline"]) for one in page["data"]],
        head=("what", "state", "next try (UTC)", "held", "because"),
    )
    for one in page["data"]:
        if one["state"] != "closed":
            printing.note(f"  surefoot breakers reset {plain(shlex.quote(str(one['scope'])))}")


@breakers.command("reset")
def reset(
    ctx: typer.Context,
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="As surefoot breakers lists it: tool:crm.search")],
    as_json: AsJson = False,
) -> None:
    """Say that the trouble is over: what waited for it goes on."""
    with client_of(ctx) as client:
        found = client.post(f"/v1/breakers/{quote(scope, safe='')}/reset", {}).body
    if as_json:
        printing.as_json(found)
        return
    if not found["reset"]:
        printing.out(f"Nothing was wrong with {plain(scope)}.")
    else:
        calls = "1 call goes" if found["released"] == 1 else f"{found['released']} calls go"
        printing.out(f"Reset: {plain(scope)}; {calls} on.")
    printing.note("  surefoot breakers")


def _next(one: JSON) -> str:
    limits = one["limits"] or {}
    at = one["until"] or limits.get("blocked_until")
    return "-" if at is None else str(at)[11:19]
