"""`surefoot tool installed`: the Python tools of this environment, and whether each can be called.

Run it where workers run. It looks the entry points up and imports them, as a worker does at the first call, and calls
nothing. Needs no server. Exit codes: 0 every one can be called (or there is none) · 2 one cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import printing
from app.cli.exits import FAILED, OK

if TYPE_CHECKING:
    from app.ports.python_functions import Function, Installed

_WHERE: Final = "this machine"
_NONE: Final = (
    "No Python tools are installed in this environment: no distribution declares an entry point in the group "
    "surefoot.tools (docs/tools.md)."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    python: str
    """As a declaration names it."""
    version: str
    function: str
    """`module:name`, as the distribution declares it."""
    takes: str
    """How it is called, or why it cannot be."""
    callable: bool


def installed(
    as_json: Annotated[bool, typer.Option("--json", help="The tools as JSON.")] = False,
) -> None:
    """List the Python tools that are installed here, and import each to see whether it can be called."""
    from app.ports import python_functions

    found = [_found(entry) for entry in python_functions.installed()]
    if as_json:
        printing.as_json({"data": [_document(each) for each in found]})
    elif not found:
        printing.note(_NONE)
    else:
        head = ("PYTHON", "VERSION", "FUNCTION", "TAKES")
        printing.table([(each.python, each.version, each.function, each.takes) for each in found], head=head)
    raise typer.Exit(OK if all(each.callable for each in found) else FAILED)


def _found(entry: Installed) -> Found:
    from app.ports.python_functions import NotLoaded, found

    takes, can = "", True
    try:
        takes = _takes(found(entry.tool, where=_WHERE))
    except NotLoaded as error:
        takes, can = f"✗ {error.detail}", False
    return Found(python=str(entry.tool), version=entry.version, function=entry.value, takes=takes, callable=can)


def _takes(function: Function) -> str:
    """`text, volume (optional), context · async`."""
    if function.accepts is None:
        names = [*sorted(function.requires), "any others"]
    else:
        given = sorted(function.accepts - {"context"}, key=lambda name: (name not in function.requires, name))
        names = [name if name in function.requires else f"{name} (optional)" for name in given]
    if function.takes_context:
        names.append("context")
    return f"{', '.join(names) or 'nothing'} · {'async' if function.is_async else 'in a thread'}"


def _document(found: Found) -> dict[str, str | bool]:
    return {
        "python": found.python,
        "version": found.version,
        "function": found.function,
        "takes": found.takes,
        "callable": found.callable,
    }
