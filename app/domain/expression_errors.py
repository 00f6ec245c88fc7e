"""What can be wrong with an expression, in words people can act on.

`ExpressionError` is the only thing that compiling, rendering and evaluating raise. The functions here turn what the
CEL library says, and what a path did not find, into a sentence and a fix. They raise nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from app.domain.outcomes import JSON
from app.domain.references import Path, written

_ITEM_NAMES: Final = ("item", "item_index")


class ExpressionError(Exception):
    """An expression that cannot be compiled or has no value. `column` counts from 1, None if it has no place."""

    def __init__(self, message: str, fix: str, column: int | None = None, *, code: str = "bad_expression") -> None:
        super().__init__(message)
        self.message, self.fix, self.column = message, fix, column
        self.code = code
        """The fault code, if it is found in a definition."""


def no_field(path: Path, index: int, value: JSON) -> ExpressionError:
    """Why `path[index]` cannot be read from `value`, which is what stands before it."""
    part = path[index]
    if index == 0:
        return ExpressionError(f"`{part}` has no value here.", "Use it only where the documentation lists it.")
    before = written(path[:index])
    if path[0] == "steps" and index == 1:
        return ExpressionError(f"`{written(path[:2])}` has not ended.", f"Add it to needs: [{part}]")
    if value is None:
        return ExpressionError(f"`{before}` is null.", f"Write coalesce({written(path)}, …) or test {before} != null.")
    if isinstance(part, int):
        size = f"has {len(value)} items" if isinstance(value, list) else f"is {kind_of_value(value)}"
        return ExpressionError(f"`{before}` {size}; there is no [{part}].", "Test size() first.")
    if isinstance(value, Mapping):
        fields = ", ".join(f"`{name}`" for name in list(value)[:12]) or "none"
        return ExpressionError(
            f"`{before}` has no field `{part}`; it has {fields}.", f"Use one of these, or coalesce({written(path)}, …)."
        )
    return ExpressionError(
        f"`{before}` is {kind_of_value(value)}; it has no field `{part}`.", f"Use `{before}` itself."
    )


def kind_of_value(value: JSON) -> str:
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "null" if value is None else "a map")


_PLACE: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD: Final = re.compile(r"No matching overloads found : (\S+?)\((.*)\)")


def compile_error(source: str, raw: str, names: frozenset[str], *, placed: bool = True) -> ExpressionError:
    match = _PLACE.search(raw)
    column = None
    message = raw.split("[", 1)[0].strip() or raw
    if match:
        line, offset, message = int(match.group(1)), int(match.group(2)), match.group(3)
        if placed and line > 0:
            column = sum(len(text) + 1 for text in source.split("\n")[: line - 1]) + offset
    undeclared = _UNDECLARED.search(message)
    if undeclared:
        return _undeclared_error(undeclared.group(1), names, column)
    if "recursion" in message:
        return ExpressionError("It is nested too deeply: 32 levels, operators in a row included.", "Split it.", column)
    message = message.split(" expecting {")[0].replace("<EOF>", "the end of the expression")
    return ExpressionError(f"It does not compile: {message}", "Correct it; the language is CEL.", column)


def _undeclared_error(name: str, names: frozenset[str], column: int | None) -> ExpressionError:
    known = ", ".join(sorted(names))
    # The library names the whole path and points at its first dot.
    root, dot, _ = name.lstrip(".").partition(".")
    if column is not None and dot:
        column = max(1, column - len(root))
    name = root
    if name == "secrets":
        message = "Secrets are known only in a tool's own url and headers."
        return ExpressionError(message, "Move the secret into the tool.", column, code="secret_not_allowed")
    if name in _ITEM_NAMES:
        return ExpressionError(f"`{name}` is known only inside a step with for_each.", "Add for_each.", column)
    return ExpressionError(f"`{name}` is not known here.", f"Known are {known}. Text needs quotes: '{name}'", column)


def run_error(source: str, raw: str) -> ExpressionError:
    shown = source if len(source) <= 80 else source[:79] + "…"
    overload = _OVERLOAD.search(raw)
    if overload:
        operator, kinds = overload.group(1).strip("_"), overload.group(2).replace("int64", "int")
        fix = "Convert one side: int(x), double(x) or string(x)."
        return ExpressionError(f"`{operator}` cannot take ({kinds}) in `{shown}`.", fix)
    if "Iteration budget" in raw:
        return ExpressionError(f"`{shown}` goes through more than 10,000 items.", "Let a tool do it.")
    missing = re.search(r'Key not found in map : "?([^"]*)"?', raw)
    if missing:
        name = missing.group(1)
        fix = f"Test it first with has(….{name})."
        return ExpressionError(f"There is no field `{name}` in what `{shown}` reads.", fix)
    message = raw.split(": ", 1)[-1].split(" [")[0]
    return ExpressionError(f"`{shown}` has no value: {message}.", "Test the value before it is used.")
