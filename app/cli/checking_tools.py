"""`surefoot tool check FILE NAME`: does a tool keep what its declaration says?

It sends real requests to the real tool (twice with one key, once with the answer lost, …), counts by the tool's probe
what that came to, and says whether the declared effect class is true. It says what it will send and asks first. Needs
no server: it uses the workers' own ports and outbound guard. A Python tool's function is called in this process, which
therefore needs its package (`surefoot tool installed`).

Exit codes: 0 true, or at_most_once, of which nothing can be checked · 1 usage, or nothing could be told · 2 the
declaration is not true · 5 the tool cannot be reached.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import printing
from app.cli.exits import FAILED, OK, USAGE, Stop
from app.domain.outcomes import JSON
from app.domain.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.cli.tool_conformance import Laws, Verdict
    from app.cli.tool_trying import Case, Try
    from app.cli.tool_witness import Witness
    from app.domain.plan import Tool
    from app.settings import Settings

_GLYPH: Final = {True: "✓", False: "✗", None: "?"}
_CODES: Final = {"true": OK, "unchecked": OK, "not_true": FAILED, "cannot_tell": USAGE}
_SAID: Final = {
    "true": "True, as far as these requests show: {tool} is {effect}.",
    "not_true": "Not true: {tool} is not {effect} as it is declared.",
    "cannot_tell": "This does not tell whether {tool} is {effect}.",
    "unchecked": "{tool} is at_most_once: it promises nothing, so there is nothing to check; nothing was sent. "
    "Surefoot never repeats it, and asks a person when its outcome is unknown.",
}
_SENT: Final = {
    "read_only": "3 requests, which should change nothing",
    "idempotent": "the same request 3 times, which should come to one effect",
    "keyed": "5 requests with 2 keys, which should come to 2 effects",
    "checkable": "1 request, and a second one if the probe does not find the first",
}

_WHERE: Final = "this machine"
ANY_COMMAND: Final = frozenset({"*"})
"""Whoever types this command can run programs anyway."""

THREADS: Final = 4
"""One call at a time is made; a function that outlives its deadline keeps one."""

tools = typer.Typer(help="Look at tools by themselves.", add_completion=False, rich_markup_mode=None)


@tools.callback()
def choose() -> None:
    """Look at tools by themselves."""


@tools.command("check")
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A definition, or a map of tools; - reads stdin.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tool, as the file names it.")],
    arguments: Annotated[
        str | None,
        typer.Option("--arguments", metavar="JSON|@file", help="What to send; ${{ run }} is new in every run."),
    ] = None,
    probe: Annotated[
        str | None, typer.Option("--probe", metavar="TOOL", help="A read_only tool of the file that shows what it did.")
    ] = None,
    probe_arguments: Annotated[
        str | None,
        typer.Option("--probe-arguments", metavar="JSON|@file", help="What to ask it; knows arguments, key."),
    ] = None,
    count: Annotated[
        str | None, typer.Option("--count", metavar="CEL", help="How many there are: size(output.events)")
    ] = None,
    input_: Annotated[str | None, typer.Option("--input", metavar="JSON|@file", help="`input` for the probe.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tries, laws and verdict as JSON.")] = False,
) -> None:
    """Try whether a tool keeps what its declaration says. Sends real requests."""
    from app.cli import logs_aside, tool_conformance, tool_reading

    settings = _settings()
    known = tool_reading.tools_of(file, settings=settings, wanted=name)
    tool = tool_reading.tool_named(name, known, path=file)
    if tool.effect.value == "at_most_once":
        _print(tool, (), [], tool_conformance.verdict(tool.effect, []), as_json=as_json)
        return
    witness = _witness(tool, known, probe=probe, asked=probe_arguments, count=count, given=input_)
    case = _case(tool, arguments, witness)
    if not yes:
        _ask_first(case)
    with logs_aside.on_stderr():
        tries, laws = asyncio.run(_try(case, settings))
    verdict = tool_conformance.verdict(tool.effect, laws)
    _print(tool, tries, laws, verdict, as_json=as_json)
    raise typer.Exit(_CODES[verdict.value])


def _settings() -> Settings:
    from app.cli import reading_settings
    from app.embedded.refusal import CannotStart

    try:
        return reading_settings.read()
    except CannotStart as error:
        raise Stop(str(error), fix=error.fix) from error


def _witness(
    tool: Tool, known: Mapping[str, Tool], *, probe: str | None, asked: str | None, count: str | None, given: str | None
) -> Witness | None:
    from app.cli import tool_reading
    from app.cli.tool_witness import Witness
    from app.domain.definition import seen
    from app.domain.expressions import ExpressionError, compile_expression
    from app.domain.templates import compile_template

    if probe is not None and tool.probe is not None:
        raise Stop(f"{tool.name} declares its own probe.", fix="Leave --probe out.")
    if probe is None and tool.probe is None:
        if count is not None or asked is not None:
            raise Stop("Nobody is asked what the tool did.", fix="Name a read_only tool of the file: --probe TOOL")
        return None
    try:
        counting = None if count is None else compile_expression(count, names=seen.FOUND_SEES)
        input_ = {} if given is None else tool_reading.json_of(given, what="--input")
        if tool.probe is not None:
            asks, found, named = tool.probe.arguments, tool.probe.found, known[tool.probe.tool]
            return Witness(tool=named, arguments=asks, found=found, count=counting, input=input_)
        named = tool_reading.tool_named(str(probe), known, path="The file")
        if named.effect.value != "read_only":
            raise Stop(
                f"{named.name} is {named.effect.value}: looking must change nothing.", fix="Name a read_only tool."
            )
        written = {} if asked is None else tool_reading.json_of(asked, what="--probe-arguments")
        template = compile_template(written, names=seen.PROBE_SEES)
        return Witness(tool=named, arguments=template, found=None, count=counting, input=input_)
    except ExpressionError as error:
        raise Stop(error.message, fix=error.fix) from error


def _case(tool: Tool, written: str | None, witness: Witness | None) -> Case:
    from app.cli import tool_reading
    from app.cli.tool_trying import Case

    run = uuid.uuid4().hex[:12]
    arguments = tool_reading.arguments_of(written, tool=tool, run=run)
    unique = arguments != tool_reading.arguments_of(written, tool=tool, run=f"{run}x")
    return Case(tool=tool, arguments=arguments, run=run, unique=unique, witness=witness)


def _ask_first(case: Case) -> None:
    tool = case.tool
    printing.note(f"{tool.name} is declared {tool.effect.value}. This sends {_SENT[tool.effect.value]}:")
    printing.note(f"  {plain(_place(tool))}")
    for line in printing.pretty(case.arguments):
        printing.note(f"  {line}")
    if case.witness is None:
        printing.note("It has no probe: only its answers will be compared (see --probe).")
    if not sys.stdin.isatty():
        raise Stop("Nobody is there to be asked whether to send that.", fix="Look at it, then repeat with --yes.")
    if not typer.confirm("It really happens. Send it?", err=True):
        raise typer.Exit(USAGE)


async def _try(case: Case, settings: Settings) -> tuple[list[Try], Laws]:
    from app.cli import tool_conformance
    from app.cli.tool_trying import Bench, Unheard
    from app.embedded.parts import OUTBOUND_DEFAULT
    from app.ports.addresses import OutboundPolicy
    from app.ports.cutting import Cutter
    from app.ports.http_tools import HttpTools
    from app.ports.isolated_tools import IsolatedTools
    from app.ports.mcp_tools import McpTools
    from app.ports.python_tools import PythonTools
    from app.ports.tools import Tools

    # As `surefoot up`: a developer's own tools may be tried unless the operator said which hosts may.
    named = "SUREFOOT_OUTBOUND_ALLOW" in os.environ
    policy = OutboundPolicy.parse(settings.outbound_allow if named else OUTBOUND_DEFAULT)
    limit, secrets = settings.response_limit, settings.secrets
    port = Tools(
        http=HttpTools(policy, secrets=secrets, response_limit=limit),
        python=PythonTools(secrets=secrets, response_limit=limit, threads=THREADS, where=_WHERE),
        isolated=IsolatedTools(secrets=secrets, response_limit=limit, processes=THREADS, memory=0, where=_WHERE),
        mcp=McpTools(policy, secrets=secrets, response_limit=limit, commands=ANY_COMMAND, where=_WHERE),
    )
    losing = Cutter(policy, secrets=secrets) if case.tool.http is not None else Unheard(port=port)
    bench = Bench(case, port=port, cutter=losing)
    try:
        return bench.tries, await tool_conformance.conform(bench)
    finally:
        await port.aclose()


def _print(tool: Tool, tries: list[Try] | tuple[()], laws: Laws, verdict: Verdict, *, as_json: bool) -> None:
    said = _SAID[verdict.value].format(tool=tool.name, effect=tool.effect.value)
    if as_json:
        printing.as_json(_document(tool, tries, laws, verdict, said))
        return
    if tries:
        head = ("TRY", "KEY", "ANSWER", "THE PROBE SAYS")
        rows = [(str(one.number), one.key or "-", _answer(one), one.seen.shown if one.seen else "-") for one in tries]
        printing.table(rows, head=head)
        printing.out()
    for law in laws:
        printing.out(f"{_GLYPH[law.holds]} {law.says}: {plain(law.seen)}")
    printing.out(said)


def _document(tool: Tool, tries: list[Try] | tuple[()], laws: Laws, verdict: Verdict, said: str) -> JSON:
    return {
        "tool": tool.name,
        "effect": tool.effect.value,
        "verdict": verdict.value,
        "headline": said,
        "tries": [
            {
                "try": one.number,
                "key": one.key,
                "answer": one.status,
                "found": None if one.seen is None else one.seen.found,
                "count": None if one.seen is None else one.seen.count,
            }
            for one in tries
        ],
        "laws": [{"says": law.says, "holds": law.holds, "seen": law.seen} for law in laws],
    }


def _answer(tried: Try) -> str:
    if tried.status is None:
        return "lost"
    text = json.dumps(tried.body, ensure_ascii=False)
    return f"{tried.said} {text if len(text) <= 40 else text[:39] + '…'}"


def _place(tool: Tool) -> str:
    """As far as it is known before anything is filled in: never with a secret."""
    if tool.mcp is not None:
        command, name = tool.mcp.server.command, tool.mcp.name
        return f"mcp {name} of {' '.join(command)}" if command else f"mcp {name} of the server {tool.mcp.server.name}"
    if tool.http is None:
        of_its_own = tool.python is not None and tool.python.isolate
        return f"python {tool.python}, called in {'a process of its own' if of_its_own else 'this process'}"
    url = tool.http.url
    return f"{tool.http.method} {url.render({}) if url.literal else '(its url is made when it is sent)'}"
