"""`surefoot why`: what a workflow waits for, since when, until when, who can move it, and the command that does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import typer

from app.cli import printing
from app.cli.session import client_of
from app.domain.outcomes import JSON
from app.domain.plain import plain

GLYPHS: Final[Mapping[str, str]] = {
    "approval": "⏸",
    "paused": "⏸",
    "held": "⏸",
    "attached": "⏸",
    "saga_held": "⏸",
    "doubt": "?",
    "probing": "?",
    "compensation_failed": "✗",
    "no_worker": "✗",
    "restored": "✗",
    "nothing": "✗",
}
"""Everything else is under way."""
UNDER_WAY: Final = "◌"
TAKEN: Final = "–"
"""A tool that an agent does without: nothing waits for it."""
SWITCHED: Final = "→"
"""A model that goes on in the place of another."""


def why(
    ctx: typer.Context,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="wf_…")],
    curl: Annotated[bool, typer.Option("--curl", help="Each command as a curl instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What the server said, as JSON.")] = False,
) -> None:
    """Why nothing moves: what it waits for, since and until when, and who can move it, with the exact command."""
    with client_of(ctx) as client:
        found = client.get(f"/v1/workflows/{workflow}/why")
    if as_json:
        printing.as_json(found)
        return
    printing.out(plain(str(found["headline"])))
    for reason in found["reasons"]:
        _print(reason, curl=curl)
    if found["more"]:
        printing.out(f"\n… and {found['more']:,} more open calls")
    for missed in found.get("tools_disabled") or ():
        _print_beside(TAKEN, missed, curl=curl)
    for switched in found.get("models_switched") or ():
        _print_beside(SWITCHED, switched, curl=curl)
    if not found["reasons"]:
        printing.note("It waits for nothing: it has ended.")
        for command in found["commands"]:
            printing.note(f"  {_line(command, curl=curl)}")


def _print(reason: Mapping[str, JSON], *, curl: bool) -> None:
    printing.out(f"\n{GLYPHS.get(reason['kind'], UNDER_WAY)} {plain(str(reason['headline']))}")
    times = [f"{word} {_instant(reason[name])}" for name, word in _TIMES.items() if reason[name]]
    printing.out(f"  {' · '.join([*times, plain(str(reason['who']))])}")
    for command in reason["commands"]:
        printing.out(f"    {_line(command, curl=curl)}")


def _print_beside(glyph: str, told: Mapping[str, JSON], *, curl: bool) -> None:
    """What nothing waits for."""
    printing.out(f"\n{glyph} {plain(str(told['headline']))}")
    for command in told["commands"]:
        printing.out(f"    {_line(command, curl=curl)}")


def _line(command: Mapping[str, JSON], *, curl: bool) -> str:
    """Never broken or escaped: it is there to be pasted."""
    return str(command["curl"] if curl and command["curl"] else command["cli"])


_TIMES: Final = {"since": "since", "until": "until", "not_before": "not before"}


def _instant(text: JSON) -> str:
    return f"{str(text)[:19].replace('T', ' ')} UTC"
