"""`surefoot budget`: what a workflow may still take, and giving it more.

Without an amount it only shows. With one it adds, once: the request carries a key of its own, so that repeating the
same command adds again, and a lost answer does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated
from uuid import uuid4

import typer

from app.cli import printing
from app.cli.exits import Stop
from app.cli.session import client_of
from app.domain.outcomes import JSON
from app.domain.plain import plain

AsJson = Annotated[bool, typer.Option("--json", help="What the server said, as JSON.")]
WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", help="wf_…")]


def budget(
    ctx: typer.Context,
    workflow: WorkflowId,
    usd: Annotated[str | None, typer.Option("--usd", metavar="DOLLARS", help="Dollars more, as 1.00.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Tokens more.")] = None,
    turns: Annotated[int | None, typer.Option("--turns", min=1, help="Turns of agents more.")] = None,
    tool_calls: Annotated[int | None, typer.Option("--tool-calls", min=1, help="Tool calls more.")] = None,
    duration: Annotated[str | None, typer.Option("--duration", help="Time more, as 10m.")] = None,
    recovery_usd: Annotated[
        str | None, typer.Option("--recovery-usd", metavar="DOLLARS", help="Dollars more for what had to be repeated.")
    ] = None,
    step: Annotated[str | None, typer.Option("--step", help="A step that has a budget of its own.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="Kept for audit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a workflow's budget, or top it up: what was held for it goes on."""
    amounts: dict[str, JSON] = {
        "usd": usd,
        "tokens": tokens,
        "turns": turns,
        "tool_calls": tool_calls,
        "duration": duration,
        "recovery_usd": recovery_usd,
    }
    given = {name: amount for name, amount in amounts.items() if amount is not None}
    with client_of(ctx) as client:
        if given:
            words = {name: text for name, text in (("step", step), ("note", note)) if text is not None}
            found = client.post(f"/v1/workflows/{workflow}/budget", {**given, **words}, key=f"cli-{uuid4()}").body
        elif step is not None or note is not None:
            raise Stop("Nothing is given: say how much more.", fix="--usd 1.00, --tokens, --turns, --tool-calls, …")
        else:
            found = client.get(f"/v1/workflows/{workflow}")
    budgets = found.get("budget") or []
    if as_json:
        printing.as_json(budgets or None)
        return
    if not budgets:
        printing.note("The workflow has no budget; its definition or its submission gives it one.")
        return
    for line in lines(budgets):
        printing.out(plain(line))
    printing.out(printing.headline(found))
    failed = given and found["status"] == "failed"
    printing.note(f"  surefoot retry {workflow}" if failed else f"  surefoot trace {workflow} --follow")


def lines(budgets: Sequence[Mapping[str, JSON]]) -> list[str]:
    """One line a scope: what was taken of what is allowed."""
    return [f"{_scope(one):<12} {', '.join(_parts(one)) or 'no limit'}{_state(one)}" for one in budgets]


def _scope(one: Mapping[str, JSON]) -> str:
    return "budget" if one["scope"] == "workflow" else str(one["scope"]).removeprefix("step:")


def _parts(one: Mapping[str, JSON]) -> list[str]:
    parts = []
    for name, limit in one["limits"].items():
        if limit is None:
            continue
        dollar = "$" if name.endswith("usd") else ""
        unit = "" if dollar or name == "duration" else f" {name.replace('_', ' ')}"
        reserved = one["reserved"].get(name)
        held = f" ({dollar}{reserved} reserved)" if reserved and reserved not in ("0.0000", 0) else ""
        what = {"duration": " of its time", "recovery_usd": " for repairs"}.get(name, unit)
        parts.append(f"{dollar}{one['spent'][name]} of {dollar}{limit}{what}{held}")
    return parts


def _state(one: Mapping[str, JSON]) -> str:
    return f"  (used up: {one['on_exceeded']})" if one["exceeded"] else ""
