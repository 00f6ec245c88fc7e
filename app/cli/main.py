"""`surefoot`: the command line. All commands but up, demo, api, worker, migrate, recover are clients of the HTTP API.

This file only assembles: which command is which function, the options before the command, and how an exception ends
the process (`exits.py` lists the codes). Heavy imports happen inside the commands, so that `--help` is quick.
`--url` and `--key` may stand before or after the command; only `submit --key` is something else, the Idempotency-Key.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from app.cli import (
    approvals,
    breakers,
    budgeting,
    checking_tools,
    deciding,
    demo,
    doctor,
    effects,
    explaining,
    installed_tools,
    looking,
    operating,
    printing,
    processes,
    recovering,
    registering_tools,
    submitting,
)
from app.cli.client import Problem
from app.cli.exits import UNREACHABLE, USAGE, Stop
from app.cli.session import Chosen

app = typer.Typer(
    name="surefoot",
    help="Durable AI-agent workflows. Start with `surefoot demo`, or `surefoot up` and `surefoot submit FILE`.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED: Final = 130
_OWN_KEY: Final = frozenset({"submit"})
"""Commands whose `--key` is not the API key."""
_VALUED: Final = frozenset({"--url", "--key"})
_AWAY_STATUS: Final = 500
"""From here on the server, not the request, is the trouble: exit code 5."""


@app.callback(invoke_without_command=True)
def choose(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", help="The server; else SUREFOOT_URL, else the ready file.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="The API key; else SUREFOOT_KEY, else the ready file.")
    ] = None,
) -> None:
    ctx.obj = Chosen(url=url, key=key)
    if ctx.invoked_subcommand is None:
        printing.note(ctx.get_help())
        raise typer.Exit(USAGE)


app.command("submit")(submitting.submit)
app.command("list")(looking.list_)
app.command("show")(looking.show)
app.command("trace")(looking.trace)
app.command("why")(explaining.why)
app.command("effects")(effects.effects)
app.command("events")(looking.events)
app.command("approvals")(approvals.approvals)
app.command("approve")(deciding.approve)
app.command("reject")(deciding.reject)
app.command("resolve")(deciding.resolve)
app.command("cancel")(deciding.cancel)
app.command("pause")(operating.pause)
app.command("resume")(operating.resume)
app.command("retry")(operating.retry)
app.command("compensate")(operating.compensate)
app.command("budget")(budgeting.budget)
app.command("step")(operating.step)
app.command("undo")(operating.undo)
app.command("hold")(operating.hold)
app.command("release")(operating.release)
app.command("holds")(operating.holds)
app.add_typer(breakers.breakers, name="breakers")
app.command("demo")(demo.demo)
checking_tools.tools.command("installed")(installed_tools.installed)
checking_tools.tools.command("list")(registering_tools.listed)
checking_tools.tools.command("register")(registering_tools.register)
checking_tools.tools.command("remove")(registering_tools.remove)
app.add_typer(checking_tools.tools, name="tool")
app.command("up")(processes.up)
app.command("api")(processes.api)
app.command("worker")(processes.worker)
app.command("migrate")(processes.migrate)
app.command("recover")(recovering.recover)
app.command("doctor")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Ends the process with one of the codes of `exits.py`."""
    printing.ready_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit code."""
    try:
        code = app(args=hoisted(arguments), prog_name="surefoot", standalone_mode=False)
    except TyperException as error:
        printing.note(f"error  {error.format_message().replace('Value error, ', '')}")
        printing.note(f"fix    {_command_path(error)} --help")
        return USAGE
    except typer.Abort:
        return USAGE
    except Problem as error:
        printing.problem(error)
        return UNREACHABLE if error.status >= _AWAY_STATUS else USAGE
    except Stop as error:
        printing.stop(error)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; what Python flushes at exit must not complain again.
        sys.stdout = None
        return 0
    return code if isinstance(code, int) else 0


def _command_path(error: TyperException) -> str:
    """`surefoot submit`: the command whose help explains what was wrong."""
    context: typer.Context | None = getattr(error, "ctx", None)
    return "surefoot" if context is None else context.command_path


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--url` and `--key` moved before the command, where the callback reads them."""
    words = [word for before, word in pairwise(["", *arguments]) if before not in _VALUED and not word.startswith("-")]
    command = words[0] if words else None
    names = {"--url"} if command in _OWN_KEY else {"--url", "--key"}
    front: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*front, *rest, argument, *left]
        if argument in names and left:
            front += [argument, left.pop(0)]
        elif argument.partition("=")[0] in names:
            front.append(argument)
        else:
            rest.append(argument)
    return [*front, *rest]


if __name__ == "__main__":
    main()
