"""`surefoot tool list`, `register`, `remove`: tools that definitions of this tenant may name without declaring them.

Of an MCP server `register` asks here and now what tools it has, and registers that list with it: what workflows offer
their models is then fixed, and a server that changes is noticed. Exit codes: as for every client of the API, and 5 if a
server was not reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from app.cli import printing
from app.cli.client import Problem
from app.cli.exits import Stop
from app.cli.session import client_of
from app.domain.outcomes import JSON

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.settings import Settings

_NOTHING = "No tool is registered. Register some: surefoot tool register FILE"


def listed(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The tools as JSON.")] = False,
) -> None:
    """List the registered tools."""
    with client_of(ctx) as client:
        page = client.get("/v1/tools")
    if as_json:
        printing.as_json(page)
    elif not page["data"]:
        printing.note(_NOTHING)
    else:
        rows = [(tool["name"], tool["kind"], _effect(tool), tool["updated_at"]) for tool in page["data"]]
        printing.table(rows, head=("TOOL", "KIND", "EFFECT", "REGISTERED"))


def _effect(tool: Mapping[str, Any]) -> str:
    if tool["kind"] != "mcp":
        return str(tool["effect"] or "at_most_once")
    if tool["tools"] is None:
        return "its tools are asked for by each workflow"
    return f"{len(tool['tools'])} tools, list frozen"


def register(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A definition, or a map of tools; - reads stdin.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Only these; else all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the servers and show it; register nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What was registered, as JSON.")] = False,
) -> None:
    """Register the tools of a file; MCP servers are asked for their lists, which are frozen with them."""
    from app.cli import tool_listing, tool_reading
    from app.domain.definition import servers

    settings = _settings()
    declared = _chosen(tool_reading.declared_in(file), names, file)
    ready = {
        name: tool_listing.with_list(name, each, settings=settings) if servers.is_server(each) else each
        for name, each in declared.items()
    }
    if dry_run:
        _show(ready, as_json=as_json)
        return
    with client_of(ctx) as client:
        put = _put(client, ready)
    if as_json:
        printing.as_json({"data": put})
        return
    for tool in put:
        printing.out(f"{tool['name']} is registered: {tool['kind']}, {_effect(tool)}.")


def _put(client: Client, ready: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One after the other. Which one was refused is said before why: the server knows it by its declaration alone."""
    put: list[dict[str, Any]] = []
    for name, each in ready.items():
        try:
            put.append(client.put(f"/v1/tools/{quote(name, safe='')}", each))
        except Problem:
            before = ", ".join(str(tool["name"]) for tool in put)
            printing.note(f"{name} was refused." + (f" Registered before it: {before}." if before else ""))
            raise
    return put


def _chosen(declared: Mapping[str, Any], names: list[str] | None, file: str) -> dict[str, Any]:
    unknown = [name for name in names or () if name not in declared]
    if unknown:
        known = ", ".join(declared) or "none"
        raise Stop(f"{file} declares no tool {unknown[0]}; it declares: {known}.", fix="Name one of them.")
    return {name: each for name, each in declared.items() if not names or name in names}


def _show(ready: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        printing.as_json({"data": [{"name": name, "declaration": each} for name, each in ready.items()]})
        return
    rows = [row for name, each in ready.items() for row in _rows(name, each)]
    printing.table(rows, head=("TOOL", "EFFECT", "DESCRIPTION"))


def _rows(name: str, declaration: Mapping[str, JSON]) -> list[tuple[str, str, str]]:
    from app.domain.definition import servers
    from app.domain.definition.catalogue import Catalogue
    from app.domain.definition.findings import Findings

    if not servers.is_server(declaration):
        return [(name, str(declaration.get("effect") or "at_most_once"), str(declaration.get("description") or ""))]
    server = servers.check_server(name, declaration, "", findings=Findings(lines={}), catalogue=Catalogue())
    made, left_out = servers.tools_of(server, server["listed"])
    return [
        *((tool["name"], tool["effect"], tool["description"].partition("\n")[0][:60]) for tool in made.values()),
        *((f"{name}: {gone['tool']}", "left out", gone["reason"]) for gone in left_out),
    ]


def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tool, as it is registered.")],
) -> None:
    """Remove a registered tool. Workflows that run go on; definitions that name it are refused from now on."""
    with client_of(ctx) as client:
        client.delete(f"/v1/tools/{quote(name, safe='')}")
    printing.out(f"{name} is not registered any more.")


def _settings() -> Settings:
    from app.cli import reading_settings
    from app.embedded.refusal import CannotStart

    try:
        return reading_settings.read()
    except CannotStart as error:
        raise Stop(str(error), fix=error.fix) from error
