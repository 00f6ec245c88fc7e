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


def tools_of(path: str, *, settings: Settings) -> Mapping[str, Tool]:
    """Every tool the file declares. Raises `Stop` with the first fault, and how many there are."""
    source = read_text(_text(path, what="definition"))
    if source.faults:
        raise _refused(path, source.faults)
    tree, lines = source.tree, source.lines
    if not isinstance(tree, dict):
        raise Stop(
            f"{path} declares no tools.", fix="Give a definition with `tools:`, or a map from name to declaration."
        )
    if "tools" not in tree and "steps" not in tree:
        tree, lines = {"tools": tree}, {f"/tools{pointer}": line for pointer, line in lines.items()}
    alone = {"name": "tool-check", "tools": tree.get("tools"), "steps": {"nothing": {"set": {"x": 1}}}}
    catalogue = Catalogue(
        models=settings.models, tool_timeout=settings.tool_timeout, settle_factor=settings.settle_factor
    )
    checked = check(alone, lines=lines, source_name=Path(path).name, catalogue=catalogue)
    if checked.plan_body is None:
        raise _refused(path, checked.faults)
    return compile_plan(checked.plan_body).tools


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
