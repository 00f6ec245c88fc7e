"""References in CEL source: which values of the workflow an expression reads, found without evaluating it.

A reference is a root name and what follows literally: `steps.plan.output.items[0].title`. Each one becomes a
variable of its own (`_0`, `_1`, …) and the source is rewritten to use it, so that evaluation converts only what the
expression reads, keeps the exact JSON of a value that is passed on whole, and can say which field was missing.

Promises: positions are those of the source as written; text inside strings and comments is never touched; a
variable of a macro (`x` in `list.map(x, …)`) is not a reference. Never evaluates, never raises anything but
`ReferenceMistake`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Path = tuple[str | int, ...]
Mode = Literal["value", "has", "lenient", "json"]
"""`value`: as it is, missing is an error. `has`: is the last field there? `lenient`: missing reads null (the first
argument of coalesce). `json`: its compact JSON text (the argument of to_json)."""

ROOTS: Final = frozenset({"input", "workflow", "steps", "item", "item_index", "arguments", "output", "secrets"})
_MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
_BUILDING_MACROS: Final = frozenset({"filter", "map"})

_TOKEN: Final = re.compile(
    r"""
    (?P<space>(?:\s+|//[^\n]*)+)
  | (?P<string>[rRbB]{0,2}(?:\"\"\".*?\"\"\"|'''.*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
  | (?P<number>0[xX][0-9a-fA-F]+[uU]?|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_PLAIN_STRING: Final = re.compile(r"""(["'])([^"'\\]*)\1""")


class ReferenceMistake(Exception):
    """`message`, `fix` and the 1-based `column`."""

    def __init__(self, message: str, fix: str, column: int) -> None:
        super().__init__(message)
        self.message, self.fix, self.column = message, fix, column


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    kind: str
    text: str
    start: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One thing an expression reads. `column` is that of its first mention, from 1."""

    mode: Mode
    path: Path
    column: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewritten:
    leaves: Mapping[str, Leaf]
    """Variable → what it reads."""
    source: str
    uses: int
    """How often the variables of macros are used in their bodies, multiplied: bounds what one item can grow to."""
    builds: bool
    """True if a macro makes a list."""
    repeats: bool
    """True if a macro's body reads the workflow, so that a value can be repeated for each item."""


def tokens(source: str) -> list[Token]:
    return [
        Token(kind=match.lastgroup or "mark", text=match.group(), start=match.start())
        for match in _TOKEN.finditer(source)
        if match.lastgroup != "space"
    ]


def closing(source: str, start: int) -> int | None:
    """Where the `}}` stands that ends the expression beginning at `start`; None if there is none."""
    depth, position = 0, start
    while position < len(source):
        if depth == 0 and source.startswith("}}", position):
            return position
        match = _TOKEN.match(source, position)
        if match is None:
            return None
        # An apostrophe that opens no string is one mark and the walk goes on: CEL complains about it later.
        text = match.group()
        if text.startswith("//"):
            # A comment would swallow the end of the template; CEL has no use for one here.
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text, 0)
        position = match.end()
    return None


def rewrite(source: str, *, names: frozenset[str]) -> Rewritten:
    """Reads the references out of `source`. Raises `ReferenceMistake` for what CEL itself would not refuse."""
    return _Rewriting(source, names).run()


def written(path: Sequence[str | int]) -> str:
    """A path as people write it: `steps.plan.output.items[0]`."""
    parts = [str(path[0])]
    for part in path[1:]:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            parts.append(f".{part}" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", part) else f'["{part}"]')
    return "".join(parts)


class _Rewriting:
    """One pass over the tokens of one source."""

    def __init__(self, source: str, names: frozenset[str]) -> None:
        self.source = source
        self.names = names
        self.tokens = tokens(source)
        self.leaves: dict[str, Leaf] = {}
        self.known: dict[tuple[Mode, Path], str] = {}
        self.pieces: list[str] = []
        self.copied = 0
        self.macros: list[tuple[str, int, list[int]]] = []
        """Of the macros we are inside of: variable, token index where the body ends, [uses]."""
        self.uses = 1
        self.builds = self.repeats = False

    def run(self) -> Rewritten:
        index = 0
        while index < len(self.tokens):
            while self.macros and index >= self.macros[-1][1]:
                self.uses *= max(1, self.macros.pop()[2][0])
            index = self._step(index)
        for _, _, count in self.macros:
            self.uses *= max(1, count[0])
        self.pieces.append(self.source[self.copied :])
        return Rewritten(
            leaves=self.leaves,
            source="".join(self.pieces),
            uses=self.uses,
            builds=self.builds,
            repeats=self.repeats,
        )

    def _step(self, index: int) -> int:
        token = self.tokens[index]
        if token.kind != "name" or self._is_field(index):
            return index + 1
        if self._text(index + 1) == "(" and token.text in ("has", "coalesce", "to_json"):
            return self._call(index)
        for variable, _, count in self.macros:
            count[0] += variable == token.text
        if token.text in self.names and self._text(index + 1) != "(":
            path, end = self._path(index)
            self._replace("value", path, index, end)
            return end
        return index + 1

    def _call(self, index: int) -> int:
        """`has(a.b)`, `to_json(a.b)` and `coalesce(a.b, …)`, when what stands there is one reference."""
        name, inner = self.tokens[index].text, index + 2
        if self._kind(inner) != "name" or self.tokens[inner].text not in self.names:
            return index + 1
        path, end = self._path(inner)
        after = self._text(end)
        if name == "coalesce" and after == ",":
            self._replace("lenient", path, inner, end)
            return end
        if name == "has" and after == ")" and len(path) > 1:
            self._replace("has", path, index, end + 1)
            return end + 1
        if name == "to_json" and after == ")":
            self._replace("json", path, index, end + 1)
            return end + 1
        return index + 1

    def _path(self, index: int) -> tuple[Path, int]:
        """The reference that starts at `index` and the index of the token after it."""
        path: list[str | int] = [self.tokens[index].text]
        index += 1
        while True:
            if self._text(index) == "." and self._kind(index + 1) == "name":
                if self._text(index + 2) == "(":
                    break
                path.append(self.tokens[index + 1].text)
                index += 2
            elif self._text(index) == "[" and self._text(index + 2) == "]":
                literal = self._literal(index + 1)
                if literal is None:
                    break
                path.append(literal)
                index += 3
            else:
                break
        if path[0] == "steps" and (len(path) < 2 or not isinstance(path[1], str)):
            raise ReferenceMistake(
                "`steps` is not a value by itself: what a step waits for must be known before anything runs.",
                "Name the step: steps.<id>.output",
                self.tokens[index - 1].start + 1,
            )
        return tuple(path), index

    def _literal(self, index: int) -> str | int | None:
        token = self.tokens[index]
        if token.kind == "number" and re.fullmatch(r"0|[1-9][0-9]{0,8}", token.text):
            return int(token.text)
        match = _PLAIN_STRING.fullmatch(token.text) if token.kind == "string" else None
        return match.group(2) if match else None

    def _is_field(self, index: int) -> bool:
        """True after a dot. Macros called on anything (`[1, 2].map(x, …)`) are entered here."""
        if index == 0 or self.tokens[index - 1].text != ".":
            return False
        if self._text(index + 1) == "(":
            self._enter_macro(index)
        return True

    def _enter_macro(self, index: int) -> None:
        token = self.tokens[index]
        if token.text not in _MACROS or self._kind(index + 2) != "name" or self._text(index + 3) != ",":
            return
        variable = self.tokens[index + 2]
        if variable.text in ROOTS:
            raise ReferenceMistake(
                f"`{variable.text}` already means something else here.",
                f"Call the variable of {token.text}() something else: {token.text}(x, …)",
                variable.start + 1,
            )
        end = self._matching(index + 1)
        # The walk counts the variable's own declaration as well: start one below.
        self.macros.append((variable.text, end, [-1]))
        self.builds = self.builds or token.text in _BUILDING_MACROS

    def _matching(self, index: int) -> int:
        depth = 0
        for position in range(index, len(self.tokens)):
            depth += {"(": 1, ")": -1}.get(self.tokens[position].text, 0)
            if depth == 0:
                return position
        return len(self.tokens)

    def _replace(self, mode: Mode, path: Path, index: int, end: int) -> None:
        start = self.tokens[index].start
        variable = self.known.get((mode, path))
        if variable is None:
            variable = f"_{len(self.leaves)}"
            self.known[mode, path] = variable
            self.leaves[variable] = Leaf(mode=mode, path=path, column=start + 1)
        self.repeats = self.repeats or bool(self.macros)
        last = self.tokens[end - 1]
        # The spaces keep neighbours apart; `_0` can never be written by a user, the source was compiled before.
        self.pieces.append(f"{self.source[self.copied : start]} {variable} ")
        self.copied = last.start + len(last.text)

    def _text(self, index: int) -> str | None:
        return self.tokens[index].text if index < len(self.tokens) else None

    def _kind(self, index: int) -> str | None:
        return self.tokens[index].kind if index < len(self.tokens) else None
