"""The commands that look: list, show, trace, events (and effects, in `effects.py`). They change nothing.

`trace` asks for the tree and draws it here, so that it fits this terminal; `--json` prints what the server said.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final, TextIO
from urllib.parse import quote

import typer

from app.cli import budgeting, following, labels, next_commands, printing
from app.cli.session import client_of
from app.domain import partials
from app.domain.outcomes import JSON
from app.domain.plain import plain
from app.domain.trace_rows import glyph_of

if TYPE_CHECKING:
    from app.cli.client import Client

AsJson = Annotated[bool, typer.Option("--json", help="What the server said, as JSON.")]
WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", help="wf_…")]

PAGE: Final = 50


def list_(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="running, waiting, failed, …")] = None,
    definition: Annotated[str | None, typer.Option(help="Name of the definition.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = PAGE,
    as_json: AsJson = False,
) -> None:
    """The newest workflows, one line each."""
    query: dict[str, JSON] = {"status": status, "definition": definition, "limit": limit}
    for one in label or []:
        name, value = labels.label(one)
        query[f"label.{name}"] = value
    with client_of(ctx) as client:
        page = client.get("/v1/workflows", query=query)
    if as_json:
        printing.as_json(page)
        return
    if not page["data"]:
        asked = status or definition or label
        printing.note("No workflow fits." if asked else "There is no workflow yet; surefoot submit FILE makes one.")
        return
    printing.table(
        [
            (glyph_of(one["status"]), one["id"], one["definition"]["name"], one["created_at"][:19], one["headline"])
            for one in page["data"]
        ],
        head=("", "workflow", "definition", "created (UTC)", "what happened"),
    )
    if page["has_more"]:
        printing.note(f"the newest {len(page['data'])}; there are more: --limit, --status or --definition")


def show(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID", help="wf_…, call_… (an effect) or apr_… (an approval).")],
    step: Annotated[str | None, typer.Argument(help="Path of a step: understand, availability.3")] = None,
    call: Annotated[int | None, typer.Option("--call", min=1, help="Number of a call: its request and answer.")] = None,
    as_json: AsJson = False,
) -> None:
    """A workflow, one of its steps, or the exact bytes of a call."""
    with client_of(ctx) as client:
        found = client.get(_path(what, step, call))
    if as_json:
        printing.as_json(found)
    elif what.startswith("wf_") and step is None:
        _show_workflow(found)
    elif what.startswith("wf_") and call is None:
        _show_step(what, found)
    else:
        _show_members(found)


def trace(
    ctx: typer.Context,
    workflow: WorkflowId,
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends or needs a person.")] = False,
    width: Annotated[int | None, typer.Option(min=40, max=400, help="Columns; else the terminal's.")] = None,
    timeout: Annotated[float | None, typer.Option(help="With --follow: most seconds; then exit code 4.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every attempt in time, with its cost and why it was made."""
    with client_of(ctx) as client:
        if follow and not as_json:
            found = watch(client, workflow, seconds=timeout, stream=sys.stdout, columns=width)
            raise typer.Exit(following.exit_code(found))
        if follow:
            following.follow(client, workflow, seconds=timeout, seen=lambda *_: None)
        if as_json:
            printing.as_json(tree(client, workflow))
        else:
            printing.out(drawn(client, workflow, columns=width, stream=sys.stdout).rstrip("\n"))


def events(ctx: typer.Context, workflow: WorkflowId, as_json: AsJson = False) -> None:
    """Everything that happened, numbered without gaps; with --json one object per line."""
    with client_of(ctx) as client:
        for event in following.events(client, workflow):
            printing.out(printing.json_line(event) if as_json else following.event_line(event))


def watch(client: Client, workflow: str, *, seconds: float | None, stream: TextIO, columns: int | None = None) -> JSON:
    """Follow a workflow: on a terminal a trace that redraws itself, elsewhere one line per event and then the trace."""
    if not stream.isatty():
        found = following.follow(
            client,
            workflow,
            seconds=seconds,
            seen=lambda _, new: print(*map(following.event_line, new), sep="\n", file=stream, flush=True),
        )
        print("\n" + drawn(client, workflow, columns=columns, stream=stream), end="", file=stream, flush=True)
        return found
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(file=stream), auto_refresh=False, vertical_overflow="visible") as live:
        being_written = False

        def redraw(*_: object) -> None:
            nonlocal being_written
            told = tree(client, workflow)
            being_written = any(_being_written(span) for span in told["spans"])
            live.update(Text.from_ansi(_picture(told, columns=columns, stream=stream)), refresh=True)

        def quiet() -> None:
            if being_written:  # no event tells of it
                redraw()

        found = following.follow(client, workflow, seconds=seconds, seen=redraw, quiet=quiet)
        redraw()
    return found


def _being_written(span: Mapping[str, JSON]) -> bool:
    """Whether a model call is open somewhere under it."""
    open_call = span["kind"] == "attempt" and span["name"] == "model" and span["status"] == "open"
    return open_call or any(_being_written(child) for child in span["children"])


def tree(client: Client, workflow: str) -> JSON:
    return client.get(f"/v1/workflows/{workflow}/trace", query={"format": "tree"})


def drawn(client: Client, workflow: str, *, columns: int | None, stream: TextIO) -> str:
    return _picture(tree(client, workflow), columns=columns, stream=stream)


def _picture(told: JSON, *, columns: int | None, stream: TextIO) -> str:
    from app.domain.spans import Trace
    from app.domain.trace_text import render_text

    found = Trace.from_json(told)
    return render_text(found, width=printing.width(columns, stream=stream), color=printing.coloured(stream))


def say_what_to_do(workflow: Mapping[str, JSON]) -> None:
    """The next command for what it waits for or why it failed, on stderr: no dead end."""
    for command in next_commands.of_workflow(workflow):
        printing.note(f"  {command}")


def _path(what: str, step: str | None, call: int | None) -> str:
    if what.startswith("apr_"):
        return f"/v1/approvals/{what}"
    if what.startswith("call_"):
        return f"/v1/effects/{what}"
    path = f"/v1/workflows/{what}"
    if step is not None:
        path += f"/steps/{quote(step, safe='')}"
    elif call is not None:
        raise typer.BadParameter("--call needs a step: surefoot show wf_… understand --call 1")
    return path if call is None else f"{path}/calls/{call}"


def _show_workflow(found: Mapping[str, JSON]) -> None:
    printing.out(printing.headline(found))
    cost = found["cost"]
    facts = {
        "status": found["status"],
        "definition": found["definition"]["name"],
        "key": found["idempotency_key"],
        "progress": f"{found['progress']['done']} of {found['progress']['total']} {found['progress']['unit']}",
        "cost": f"${cost['usd']}, of that ${cost['recovery_usd']} for recovery; "
        f"{cost['input_tokens']:,} tokens in, {cost['output_tokens']:,} out",
        "effects": ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in found["effects"].items()),
        "created": found["created_at"],
        "deadline": found["deadline_at"],
        "ended": found["ended_at"] or "-",
    }
    _facts(facts)
    for line in budgeting.lines(found.get("budget") or ()):
        printing.out(plain(line))
    for one in found["waiting_on"]:
        printing.out(f"waits for    {plain(', '.join(f'{name} {value}' for name, value in one.items() if value))}")
    _disabled(found)
    if found["failure"]:
        printing.out(f"failure      {plain(str(found['failure']['message']))}")
        if found["failure"].get("fix"):
            printing.out(f"fix          {plain(str(found['failure']['fix']))}")
    for name in ("input", "output"):
        _value(name, found[name])
    _lines("next", next_commands.of_workflow(found))


def _show_step(workflow: str, found: Mapping[str, JSON]) -> None:
    printing.out(f"{glyph_of(found['state'])} {plain(str(found['path']))}  {plain(str(found.get('headline') or ''))}")
    _facts(
        {
            "kind": found["kind"],
            "state": found["state"],
            "needs": ", ".join(found["needs"]) or "-",
            "started": found["started_at"] or "-",
            "ended": found["ended_at"] or "-",
        }
    )
    if found.get("model"):
        printing.out(f"model        {plain(_model(found['model']))}")
    _disabled(found)
    for name in ("input", "output", "failure"):
        _value(name, found[name])
    for call in found.get("call_list") or []:
        printing.out()
        named = f"call {call['n']}  {call['kind']}  {call['tool'] or ''}  {call['effect']}  {call['state']}"
        printing.out(plain(" ".join(named.split(" "))))
        if call["key"]:
            printing.out(f"  key        {plain(str(call['key']))}")
        for record in call["recovery"]:
            said = ", ".join(f"{name} {value}" for name, value in record.items() if value is not None)
            printing.out(f"  ↻ {plain(said)}")
        for attempt in call["attempt_list"]:
            printing.out(f"  {plain(_attempt(attempt))}")
        if found["partial"] is not None and found["partial"]["call"] == call["id"]:
            _show_partial(found["partial"])
        printing.out(f"  surefoot show {workflow} {plain(str(found['path']))} --call {call['n']}")


def _model(used: Mapping[str, JSON]) -> str:
    named = used["id"] if used["alias"] == used["id"] else f"{used['alias']} ({used['id']})"
    return f"{named}, in the place of {used['switched_from']}" if used["switched_from"] else str(named)


def _disabled(found: Mapping[str, JSON]) -> None:
    """Tools that agents may not use any more; those of a reopened workflow are theirs again."""
    for one in found.get("tools_disabled") or ():
        if not one["given_back"]:
            why = f"{one['failures']} failures in a row in {one['step']}: {one['reason']}"
            printing.out(f"disabled     {plain(str(one['tool']))}, after {plain(why)}")


def _show_partial(told: Mapping[str, JSON]) -> None:
    partial = partials.read(told)
    if partial is not None:
        printing.out(f"  ◌ {plain(partials.line(partial))}")
        _lines("  so far", partial.text.splitlines() or ["-"])


def _attempt(attempt: Mapping[str, JSON]) -> str:
    outcome = attempt["outcome"] or ("lost" if attempt["lost_at"] else "in flight")
    parts = [f"{glyph_of(outcome)} attempt {attempt['n']}  {outcome}", attempt["failure_kind"]]
    parts += [f"HTTP {attempt['status_code']}" if attempt["status_code"] else None]
    parts += [f"${attempt['cost_usd']}" if attempt["cost_usd"] else None]
    parts += [f"sent {attempt['sent_at'] or '-'}", f"received {attempt['received_at'] or '-'}"]
    return "  ".join(part for part in parts if part)


def _show_members(found: JSON) -> None:
    if not isinstance(found, Mapping):
        printing.out(plain(str(found)))
        return
    for name, value in found.items():
        _value(str(name), value)


def _facts(facts: Mapping[str, JSON]) -> None:
    for name, value in facts.items():
        printing.out(f"{name:<12} {plain(str(value))}")


def _value(name: str, value: JSON) -> None:
    if value is None or value == [] or value == {}:
        return
    _lines(name, [plain(value)] if isinstance(value, str) else printing.pretty(value))


def _lines(name: str, lines: Sequence[str]) -> None:
    """The first beside its name, the others below it."""
    printing.out(f"{name:<12} {lines[0]}")
    for line in lines[1:]:
        printing.out(f"{'':<12} {line}")
