"""Templates: any JSON value whose texts may hold `${{ CEL }}`.

A text that is one whole expression becomes that expression's value, type kept; an expression inside other text
becomes text (text as it is, everything else as compact JSON). `$${{` stands for a literal `${{`.

Promises: compiled once, rendered without side effects, the keys of maps are never templates. `{{ x }}` without `$` is
refused, because it would be sent to the world as it stands.
Never: evaluates what an expression returned a second time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.domain import references
from app.domain.expressions import Expression, ExpressionError, compile_expression
from app.domain.outcomes import JSON
from app.domain.schemas import escape

OPENING: Final = "${{"
KEY_LENGTH: Final = 512
"""Longest idempotency key, characters: it travels in a header and is part of an index."""

_FOREIGN: Final = re.compile(r"(?<!\$)\{\{-?\s*([A-Za-z_][\w.\[\]\"']*)\s*-?\}\}")
"""What people write who come from other template languages."""

_Bindings = Mapping[str, JSON]
_Render = Callable[[_Bindings], JSON]


class TemplateError(ExpressionError):
    """An expression of a template does not compile. `pointer` says where in the template's value."""

    def __init__(
        self, message: str, fix: str, column: int | None = None, *, pointer: str = "", code: str = "bad_expression"
    ) -> None:
        super().__init__(message, fix, column, code=code)
        self.pointer = pointer


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One expression and where it stands."""

    pointer: str
    whole: bool
    """True if the text is nothing but this expression."""
    expression: Expression


class Template:
    """A compiled JSON value. Immutable by convention; a value without expressions renders as itself."""

    __slots__ = ("_render", "_value", "places", "steps")

    def __init__(self, value: JSON, render: _Render | None, places: tuple[Place, ...]) -> None:
        self._value = value
        self._render = render
        self.places = places
        self.steps: frozenset[str] = frozenset().union(*(place.expression.steps for place in places))

    @property
    def literal(self) -> bool:
        """True if nothing in it is evaluated: `render` gives the same value for all bindings."""
        return self._render is None

    def render(self, bindings: _Bindings) -> JSON:
        """The value. Raises `ExpressionError`."""
        return self._value if self._render is None else self._render(bindings)

    def render_key(self, bindings: _Bindings) -> str:
        """The value as an idempotency key. Raises `ExpressionError` for null, lists, maps, and empty or long keys:
        two different things must never share the key "null"."""
        for place in self.places:
            part = place.expression.evaluate(bindings)
            if part is None or isinstance(part, list | dict) or part == "":
                what = "null" if part is None else "empty" if part == "" else "not text or a number"
                raise ExpressionError(
                    f"`{place.expression.source.strip()}` in the idempotency key is {what}.",
                    "A key names one thing; use a value that is always there.",
                )
        value = self.render(bindings)
        key = value if isinstance(value, str) else _as_text(value)
        if not key or len(key) > KEY_LENGTH:
            raise ExpressionError(
                f"The idempotency key has {len(key)} characters; 1 to {KEY_LENGTH} are allowed.",
                "Use an id of your own system.",
            )
        if not key.isprintable():
            raise ExpressionError("The idempotency key has a control character in it.", "Use an id of your own system.")
        return key


def compile_template(value: JSON, *, names: frozenset[str]) -> Template:
    """Compiles a JSON value. Raises `TemplateError` for the first expression that does not compile."""
    places: list[Place] = []
    render = _compile(value, names, "", places)
    if render is None and not places:
        return Template(value, None, ())
    return Template(value, render, tuple(places))


def template_errors(value: JSON, *, names: frozenset[str]) -> tuple[list[Place], list[TemplateError]]:
    """Every expression and every mistake of a JSON value, for a check that reports all of them at once."""
    places: list[Place] = []
    errors: list[TemplateError] = []
    pending: list[tuple[JSON, str]] = [(value, "")]
    while pending:
        node, pointer = pending.pop()
        if isinstance(node, str):
            _text_errors(node, pointer, names, places, errors)
        elif isinstance(node, Mapping):
            pending.extend((inner, f"{pointer}/{escape(str(key))}") for key, inner in reversed(list(node.items())))
        elif isinstance(node, list):
            pending.extend((node[index], f"{pointer}/{index}") for index in reversed(range(len(node))))
    return places, errors


def is_dynamic(value: JSON) -> bool:
    """True if a text has an expression in it."""
    return isinstance(value, str) and OPENING in value.replace(f"${OPENING}", "")


def _text_errors(
    text: str, pointer: str, names: frozenset[str], places: list[Place], errors: list[TemplateError]
) -> None:
    try:
        parts = _split(text, pointer)
    except TemplateError as error:
        errors.append(error)
        return
    for part in parts:
        try:
            if isinstance(part, str):
                _refuse_foreign(part, pointer)
                continue
            expression = compile_expression(part.source, names=names)
        except TemplateError as error:
            errors.append(error)
        except ExpressionError as error:
            errors.append(_placed(error, pointer, part.start if isinstance(part, _Source) else 0))
        else:
            places.append(Place(pointer=pointer, whole=len(parts) == 1, expression=expression))


def _compile(value: JSON, names: frozenset[str], pointer: str, places: list[Place]) -> _Render | None:
    """A function of the bindings, or None for a value without expressions. Recursive: depth is bounded at the door."""
    if isinstance(value, str):
        return _compile_text(value, names, pointer, places)
    if isinstance(value, Mapping):
        inner = {key: _compile(item, names, f"{pointer}/{escape(key)}", places) for key, item in value.items()}
        if not any(inner.values()):
            return None
        fields = tuple((key, item, inner[key]) for key, item in value.items())
        return lambda bindings: {key: item if render is None else render(bindings) for key, item, render in fields}
    if isinstance(value, list):
        items = tuple((item, _compile(item, names, f"{pointer}/{index}", places)) for index, item in enumerate(value))
        if not any(render for _, render in items):
            return None
        return lambda bindings: [item if render is None else render(bindings) for item, render in items]
    return None


def _compile_text(text: str, names: frozenset[str], pointer: str, places: list[Place]) -> _Render | None:
    if "{{" not in text:
        return None
    parts: list[str | Expression] = []
    split = _split(text, pointer)
    for part in split:
        if isinstance(part, str):
            _refuse_foreign(part, pointer)
            parts.append(part)
            continue
        try:
            expression = compile_expression(part.source, names=names)
        except ExpressionError as error:
            raise _placed(error, pointer, part.start) from None
        places.append(Place(pointer=pointer, whole=len(split) == 1, expression=expression))
        parts.append(expression)
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0].evaluate
    if all(isinstance(part, str) for part in parts):
        literal = "".join(str(part) for part in parts)
        return None if literal == text else lambda bindings: literal
    return lambda bindings: "".join(
        part if isinstance(part, str) else _as_text(part.evaluate(bindings)) for part in parts
    )


def _as_text(value: JSON) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    source: str
    start: int


def _split(text: str, pointer: str) -> list[str | _Source]:
    """Literal text and expressions in turn. Raises `TemplateError` for `${{` without an end."""
    parts: list[str | _Source] = []
    literal, position = "", 0
    while True:
        start = text.find(OPENING, position)
        if start < 0:
            break
        if start > 0 and text[start - 1] == "$":
            literal += text[position : start - 1] + OPENING
            position = start + len(OPENING)
            continue
        literal += text[position:start]
        end = references.closing(text, start + len(OPENING))
        if end is None:
            raise TemplateError(
                "`${{` has no matching `}}`.",
                "Close it; in YAML quote the text if it has ` #` or `: ` in it. A literal ${{ is written $${{",
                start + 1,
                pointer=pointer,
            )
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_Source(source=text[start + len(OPENING) : end], start=start + len(OPENING)))
        position = end + 2
    literal += text[position:]
    if literal or not parts:
        parts.append(literal)
    return parts


def _refuse_foreign(literal: str, pointer: str) -> None:
    found = _FOREIGN.search(literal)
    if found:
        raise TemplateError(
            f"`{found.group()}` would be sent as it stands.",
            f"Write ${{{{ {found.group(1)} }}}}; literal braces are written ${{{{ '{{{{' }}}}",
            pointer=pointer,
        )


def _placed(error: ExpressionError, pointer: str, start: int) -> TemplateError:
    column = None if error.column is None else start + error.column
    return TemplateError(error.message, error.fix, column, pointer=pointer, code=error.code)
