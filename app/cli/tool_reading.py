"""A tool's declaration out of a file, made ready to be called: for `surefoot tool check`.

The file is a definition, or a map of tools as under `tools:`. Only its tools are judged: a definition whose steps are
not finished yet has tools that can be tried.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.cli.exits import Stop
from app.domain import schemas
from app.domain.definition import servers
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.definition.source import read_text
from app.domain.expressions import ExpressionError
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.plan import Tool
from app.domain.templates import compile_template
from app.settings import Settings


def declared_in(path: str) -> dict[str, Any]:
    """The file's tools as they are written. Raises `Stop`."""
    tree, _ = _read(path)
    tools = tree.get("tools")
    if not isinstance(tools, dict) or not tools:
        raise Stop(f"{path} declares no tools.", fix="Write tools: {calendar.free_busy: {…}}")
    return tools


def _read(path: str) -> tuple[dict[str, Any], Mapping[str, int]]:
    """A definition, or a map of tools made into one; and its lines."""
    source = read_text(_text(path, what="definition"))
    if source.faults:
        raise _refused(path, source.faults)
    tree, lines = source.tree, source.lines
    if not isinstance(tree, dict):
        raise Stop(
            f"{path} declares no tools.", fix="Give a definition with `tools:`, or a map from name to declaration."
        )
    if "tools" not in tree and "steps" not in tree:
        return {"tools": tree}, {f"/tools{pointer}": line for pointer, line in lines.items()}
    return tree, lines


def tools_of(path: str, *, settings: Settings, wanted: str | None = None) -> Mapping[str, Tool]:
    """Every tool the file declares; an MCP server is asked for its tools if `wanted` is one of them. Raises `Stop` with
    the first fault, and how many there are."""
    tree, lines = _read(path)
    tools = {
        name: _with_tools(name, each, wanted=wanted, settings=settings)
        for name, each in (tree.get("tools") or {}).items()
    }
    # A server's tools are carried by who names them.
    uses = {
        f"s{n}": {"agent": {"model": "x-1", "tools": [f"{name}.*"]}, "prompt": "x"}
        for n, name in enumerate(_listed(tools))
    }
    alone = {"name": "tool-check", "tools": tools, "steps": {"nothing": {"set": {"x": 1}}, **uses}}
    catalogue = Catalogue(
        models=settings.models, tool_timeout=settings.tool_timeout, settle_factor=settings.settle_factor
    )
    checked = check(alone, lines=lines, source_name=Path(path).name, catalogue=catalogue)
    if checked.plan_body is None:
        raise _refused(path, checked.faults)
    return compile_plan(checked.plan_body).tools


def _with_tools(name: str, declaration: Any, *, wanted: str | None, settings: Settings) -> Any:
    known = not servers.is_server(declaration) or declaration.get("listed") is not None
    if known or wanted is None or not wanted.startswith(f"{name}."):
        return declaration
    from app.cli import tool_listing

    return tool_listing.with_list(name, declaration, settings=settings)


def _listed(tools: Mapping[str, Any]) -> list[str]:
    return [name for name, each in tools.items() if servers.is_server(each) and each.get("listed")]


def tool_named(name: str, tools: Mapping[str, Tool], *, path: str) -> Tool:
    if name not in tools:
        known = ", ".join(sorted(tools)) or "none"
        raise Stop(f"{path} declares no tool {name}; it declares: {known}.", fix="Name one of them.")
    return tools[name]


def arguments_of(written: str | None, *, tool: Tool, run: str) -> dict[str, JSON]:
    """`--arguments`: JSON, or `@file` with JSON; `${{ run }}` in a text is different in every run. Raises `Stop`."""
    value = json_of(written, what="--arguments") if written is not None else {}
    if not isinstance(value, dict):
        raise Stop("--arguments is not a JSON object.", fix='Write --arguments \'{"title": "…"}\'')
    try:
        rendered: dict[str, Any] = compile_template(value, names=frozenset({"run"})).render({"run": run})
    except ExpressionError as error:
        raise Stop(f"--arguments: {error.message}", fix="Only ${{ run }} is known here.") from error
    wrong = [] if tool.input_schema is None else schemas.validate(tool.input_schema, rendered)
    if wrong:
        said = "; ".join(f"{one.pointer or '/'}: {one.message}" for one in wrong)
        raise Stop(f"{tool.name} does not take these arguments: {said}.", fix="Give them with --arguments '{…}'")
    return rendered


def json_of(written: str, *, what: str) -> JSON:
    text = _text(written[1:], what=what) if written.startswith("@") else written
    try:
        return json.loads(text)
    except ValueError as error:
        raise Stop(f"{what} is not JSON: {error}.", fix=f"Quote it for the shell, or use {what} @file.json") from error


def _text(path: str, *, what: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Stop(f"The {what} {path} cannot be read: {error.strerror}.", fix="Check the path.") from error
    except UnicodeDecodeError as error:
        raise Stop(f"{path} is not UTF-8 text (byte {error.start}).", fix="Save it as UTF-8.") from error


def _refused(path: str, faults: tuple[Fault, ...]) -> Stop:
    first = faults[0]
    place = f"line {first.line}, " if first.line else ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Stop(f"{path}: {place}{first.pointer or '/'}: {first.detail}{more}", fix=first.fix)
