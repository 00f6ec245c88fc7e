"""CEL expressions: compiled once, evaluated on plain JSON, answering plain JSON or an `ExpressionError`.

`cel-expr-python` parses, checks and evaluates; `references.py` finds what an expression reads, so that only that is
handed over. An expression that is one reference (`steps.plan.output.items`) never enters CEL: its JSON is passed on
exactly, key order, large numbers and all.

Promises: undeclared names, syntax errors and oversized sources are refused at compile time, with the column;
evaluation is deterministic (no clock, no random), holds the interpreter for milliseconds at most (the bounds below),
and raises nothing but `ExpressionError`. A skipped step's output reads null, and so does every field of it.
Never: awaits, logs, or keeps anything of the bindings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from app.domain import references
from app.domain.expression_errors import ExpressionError, compile_error, no_field, run_error
from app.domain.expression_values import HANDED_OVER, RESULT_NODES, from_python, measure, result_json
from app.domain.outcomes import JSON
from app.domain.references import Leaf, Path, ReferenceMistake

__all__ = ["SKIPPED", "Expression", "ExpressionError", "compile_expression", "step_binding"]

SOURCE_LIMIT: Final = 4096
"""Characters of one expression: more is a program, and belongs into a tool."""
BUILT_ITEMS: Final = 2_000
"""Most items that filter() and map() may go through: the library copies the list for each one (2,000 take 80 ms,
8,000 take 3 s with the interpreter held). all(), exists() and exists_one() reach its own budget of 10,000."""
GROWTH: Final = 32 * 1024 * 1024
"""Most bytes that a macro could make of what it was given: `x + x` in thirty maps is 2^30 and takes no iterations."""


class _Skipped:
    """The output of a step that has none: it reads null, and so does every field of it, however deep."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SKIPPED"


SKIPPED: Final = _Skipped()

_WITHOUT_OUTPUT: Final = frozenset({"skipped", "failed", "cancelled"})


def step_binding(output: JSON, state: str, error: JSON, failures: JSON) -> dict[str, JSON]:
    """What `steps.<id>` is bound to. `state` is the step's state as text; a null output of a step that was skipped,
    or failed and was tolerated, reads null at every field."""
    absent = output is None and str(state) in _WITHOUT_OUTPUT
    return {"output": SKIPPED if absent else output, "state": str(state), "error": error, "failures": failures}


class Expression:
    """A compiled expression. Immutable by convention and shared between workflows; safe in threads and tasks."""

    __slots__ = ("_builds", "_grows", "_leaves", "_program", "paths", "source", "steps")

    def __init__(self, source: str, rewritten: references.Rewritten, program: Any) -> None:
        self.source: str = source
        self.paths: tuple[Leaf, ...] = tuple(rewritten.leaves.values())
        """Everything it reads, for checks before anything runs."""
        self.steps: frozenset[str] = frozenset(str(leaf.path[1]) for leaf in self.paths if leaf.path[0] == "steps")
        self._leaves = rewritten.leaves
        self._program = program
        """None if the whole expression is one reference."""
        self._builds = rewritten.builds
        self._grows = rewritten.uses, rewritten.repeats

    def evaluate(self, bindings: Mapping[str, JSON]) -> JSON:
        """The value as plain JSON. Raises `ExpressionError`. Bindings that it does not read are not looked at."""
        if self._program is None:
            return _plain(_read(self.paths[0], bindings))
        data: dict[str, JSON] = {}
        missing: dict[str, ExpressionError] = {}
        for name, leaf in self._leaves.items():
            try:
                value = _read(leaf, bindings)
            except ExpressionError as error:
                # Unbound, it is an error only if the expression comes to use it: `has(a.b) && a.b > 1` does not.
                missing[name] = error
                continue
            data[name] = _plain(value)
        self._bound(data)
        try:
            result = self._program.eval(data=data)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise run_error(self.source, str(error)) from None
        if result.type().name() in ("ERROR", "UNKNOWN"):
            raise self._explained(str(result.plain_value()), missing)
        return result_json(result, [RESULT_NODES])

    def _explained(self, message: str, missing: Mapping[str, ExpressionError]) -> ExpressionError:
        unbound = re.search(r'No value with name "(_\d+)"', message)
        if unbound and unbound.group(1) in missing:
            return missing[unbound.group(1)]
        return run_error(self.source, message)

    def _bound(self, data: Mapping[str, JSON]) -> None:
        """Refuses what would hold the interpreter for long, before it is handed over."""
        # The source counts: a literal can grow without reading anything.
        size, longest = len(self.source), 0
        for value in data.values():
            value_size, value_longest = measure(value)
            size += value_size
            longest += value_longest
        if size > HANDED_OVER:
            fix = "Read only the fields that are needed, or pass the value on whole: ${{ steps.x.output }}"
            raise ExpressionError(f"The values it reads are larger than {HANDED_OVER // 1024 // 1024} MiB.", fix)
        if self._builds and longest > BUILT_ITEMS:
            fix = "Let a tool do it, or give the whole list to for_each."
            message = f"filter() and map() go through at most {BUILT_ITEMS} items; here are {longest}."
            raise ExpressionError(message, fix)
        uses, repeats = self._grows
        if size * uses * (max(1, longest) if repeats and self._builds else 1) > GROWTH:
            fix = "Use the macro's variable fewer times, or read less inside it."
            raise ExpressionError("Its result could become larger than 32 MiB.", fix)


@lru_cache(maxsize=4096)
def compile_expression(source: str, *, names: frozenset[str]) -> Expression:
    """Compiles `source`, which may use the variables `names`. Raises `ExpressionError` with the column."""
    if len(source) > SOURCE_LIMIT:
        raise ExpressionError(
            f"The expression has {len(source)} characters; {SOURCE_LIMIT} are allowed.", "Let a tool compute it."
        )
    if not source.strip():
        raise ExpressionError("The expression is empty.", "Write what to read, as steps.plan.output.title", 1)
    if "${{" in source:
        fix = f"Write it bare: {source.replace('${{', '').replace('}}', '').strip()}"
        raise ExpressionError("This is CEL already; `${{ }}` does not belong inside it.", fix, source.index("${{") + 1)
    try:
        rewritten = references.rewrite(source, names=names)
        _compile(source, names)
    except ReferenceMistake as mistake:
        raise ExpressionError(mistake.message, mistake.fix, mistake.column) from None
    except (RuntimeError, ValueError) as error:
        raise compile_error(source, str(error), names) from None
    if len(rewritten.leaves) == 1 and rewritten.source.strip() == "_0" and rewritten.leaves["_0"].mode != "lenient":
        return Expression(source, rewritten, None)
    try:
        program = _compile(rewritten.source, frozenset(rewritten.leaves))
    except (RuntimeError, ValueError) as error:
        raise compile_error(source, str(error), names, placed=False) from None
    return Expression(source, rewritten, program)


def _compile(source: str, variables: frozenset[str]) -> Any:
    return _environment(variables).compile(source)


@lru_cache(maxsize=256)
def _environment(variables: frozenset[str]) -> Any:
    return cel.NewEnv(variables=dict.fromkeys(sorted(variables), cel.Type.DYN), functions=_functions())


@lru_cache(maxsize=1)
def _functions() -> list[Any]:
    """`coalesce` and `to_json` for every kind of value: the library picks a Python function by the values' kinds."""
    kinds = ("NULL", "BOOL", "INT", "UINT", "DOUBLE", "STRING", "BYTES", "TIMESTAMP", "DURATION", "LIST", "MAP")
    types = [(kind.lower(), getattr(cel.Type, kind)) for kind in kinds]
    coalesce = [
        cel.Overload(f"coalesce_{one}_{other}", return_type=cel.Type.DYN, parameters=[first, second], impl=_coalesce)
        for one, first in types
        for other, second in types
    ]
    to_json = [
        cel.Overload(f"to_json_{one}", return_type=cel.Type.STRING, parameters=[kind], impl=_to_json)
        for one, kind in types
    ]
    return [cel.FunctionDecl("coalesce", coalesce), cel.FunctionDecl("to_json", to_json)]


def _coalesce(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _to_json(value: Any) -> str:
    return _json_text(from_python(value, [RESULT_NODES]))


def _json_text(value: JSON) -> str:
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


# --- reading a reference -------------------------------------------------------------------------------------------


def _read(leaf: Leaf, bindings: Mapping[str, JSON]) -> Any:
    if leaf.mode == "value":
        return _follow(leaf.path, len(leaf.path), bindings)
    if leaf.mode == "json":
        return _json_text(_follow(leaf.path, len(leaf.path), bindings))
    if leaf.mode == "lenient":
        try:
            return _follow(leaf.path, len(leaf.path), bindings)
        except ExpressionError:
            return None
    parent = _follow(leaf.path, len(leaf.path) - 1, bindings)
    if parent is SKIPPED:
        return False
    if not isinstance(parent, Mapping):
        raise no_field(leaf.path, len(leaf.path) - 1, parent)
    return leaf.path[-1] in parent


def _follow(path: Path, length: int, bindings: Mapping[str, JSON]) -> Any:
    value: Any = bindings
    for index in range(length):
        part = path[index]
        if value is SKIPPED:
            return SKIPPED
        if isinstance(part, str):
            there = isinstance(value, Mapping) and part in value
        else:
            there = isinstance(value, list) and part < len(value)
        if not there:
            raise no_field(path, index, value)
        value = value[part]
    return value


def _plain(value: Any) -> JSON:
    """SKIPPED becomes null, in a whole `steps.x` as well."""
    if value is SKIPPED:
        return None
    if isinstance(value, dict) and value.get("output") is SKIPPED:
        return {**value, "output": None}
    return value
