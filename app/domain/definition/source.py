"""Definition text → tree: YAML as people expect it (1.2-minded), with the line of every JSON pointer.

`true`, `false`, `null`, JSON numbers are what they look like; everything else is text: `yes`, `on`, `1:30`, `0755`,
`2026-11-22` and `.inf` mean themselves. Keys are always text. JSON is YAML, too.

Promises: the first trouble is a fault with its line and a fix, never an exception; nothing is constructed but JSON
values (no tags); depth, size and the growth of aliases are bounded while reading, not afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from app.domain.definition.limits import DEPTH, DIGITS, NODES
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.schemas import escape

TEXT_LIMIT: Final = 4 * 1024 * 1024
"""Characters. The definition's own limit is on its JSON; comments and indentation may be as long again."""
ALIASES: Final = 1000

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: Final = {
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
}  # fmt: skip
"""The core schema of YAML 1.2 (§10.3.2), without its octals, hexadecimals and infinities."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPES: Final = re.compile(r"(\\+)u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_STANDARD_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What was read: a tree and its lines, or faults (then the tree is None)."""

    tree: JSON
    lines: dict[str, int]
    faults: tuple[Fault, ...]


class _Trouble(Exception):
    def __init__(self, code: str, detail: str, fix: str, *, line: int | None, pointer: str = "") -> None:
        super().__init__(detail)
        self.fault = Fault(code=code, detail=detail, fix=fix, line=line, pointer=pointer)


def read_text(text: str) -> Source:
    """YAML or JSON text → tree and lines, or the fault that kept it from being read."""
    try:
        _readable(text)
        tree, lines = _Reading(text=_joined_escapes(text)).run()
    except _Trouble as trouble:
        return Source(tree=None, lines={}, faults=(trouble.fault,))
    except yaml.YAMLError as error:
        return Source(tree=None, lines={}, faults=(_syntax_fault(text, error),))
    return Source(tree=tree, lines=lines, faults=())


def _readable(text: str) -> None:
    if len(text) > TEXT_LIMIT:
        detail = f"The text has {len(text)} characters; {TEXT_LIMIT} are allowed."
        raise _Trouble("too_large", detail, "Pass large data as input.", line=None)
    for found, what in ((text.find("\x00"), "a NUL"), (_surrogate_at(text), "half a character (a lone surrogate)")):
        if found >= 0:
            line = text.count("\n", 0, found) + 1
            raise _Trouble("not_json", f"The text has {what} in it.", "Save it as UTF-8 without it.", line=line)


def _surrogate_at(text: str) -> int:
    found = None if text.isascii() else _SURROGATE.search(text)
    return found.start() if found else -1


def _joined_escapes(text: str) -> str:
    r"""JSON writes characters beyond the first plane as two escapes (`😀`), which YAML refuses."""
    if text.lstrip()[:1] not in ("{", "[", '"') or "\\u" not in text:
        return text

    def joined(match: re.Match[str]) -> str:
        slashes, high, low = match.groups()
        if len(slashes) % 2 == 0:
            # An escaped backslash stands before the `u`: plain text.
            return match.group()
        code = 0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00)
        return f"{slashes}U{code:08x}"

    return _SURROGATE_ESCAPES.sub(joined, text)


@dataclass(kw_only=True, slots=True)
class _Open:
    """A collection whose end has not been read."""

    value: dict[str, Any] | list[Any]
    pointer: str
    anchor: str | None
    before: int
    """How many values had been counted when it began."""
    key: str | None = None
    """The key whose value comes next; None if a key comes next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Anchored:
    value: JSON
    size: int
    depth: int


@dataclass(kw_only=True, slots=True)
class _Reading:
    """One pass over the events of one text. Iterative: nothing here recurses, whatever the nesting."""

    text: str
    lines: dict[str, int] = field(default_factory=dict)
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    stack: list[_Open] = field(default_factory=list)
    root: JSON = None
    count: int = 0
    aliases: int = 0

    def run(self) -> tuple[JSON, dict[str, int]]:
        documents = 0
        for event in self._events():
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    fix = "Keep one definition in a text; remove the `---` between them."
                    raise _Trouble("yaml", "There is a second document.", fix, line=_line(event))
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.MappingStartEvent):
                self._open(event, {})
            elif isinstance(event, yaml.SequenceStartEvent):
                self._open(event, [])
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close()
        return self.root, self.lines

    def _events(self) -> Iterator[yaml.Event]:
        """From libyaml's own parser, which keeps its nesting on the heap."""
        return iter(yaml.parse(self.text, Loader=yaml.CSafeLoader))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._refuse_tag(event)
        text = event.value
        if "\x00" in text or _surrogate_at(text) >= 0:
            detail = "An escape in this text stands for a NUL or half a character."
            raise _Trouble("not_json", detail, "Remove it.", line=_line(event), pointer=self._pointer())
        if self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None:
            self._key(text, event)
            return
        plain = event.style in (None, "")
        self._place(self._resolved(text, event) if plain else text, event, anchor=event.anchor, depth=0)

    def _resolved(self, text: str, event: yaml.ScalarEvent) -> JSON:
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > DIGITS:
                detail = f"The number has more than {DIGITS} digits."
                raise _Trouble("not_json", detail, "Put it in quotes.", line=_line(event), pointer=self._pointer())
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                detail = f"{text[:40]} is too large for a number."
                raise _Trouble("not_json", detail, "Put it in quotes.", line=_line(event), pointer=self._pointer())
            return number
        return text

    def _key(self, key: str, event: yaml.ScalarEvent) -> None:
        top = self.stack[-1]
        where = f"{top.pointer}/{escape(key)}"
        if key == "<<" and event.style in (None, ""):
            fix = "Write the keys out."
            raise _Trouble("yaml", "Merge keys (`<<`) are not read.", fix, line=_line(event), pointer=where)
        if key in top.value:
            first = self.lines.get(where)
            detail = f"`{key[:60]}` stands here twice (first on line {first})."
            raise _Trouble("duplicate_key", detail, "Remove one of them.", line=_line(event), pointer=where)
        top.key = key
        self.lines[where] = _line(event)

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = str(event.anchor)
        anchored = self.anchors.get(name)
        if anchored is None:
            detail = f"`*{name[:60]}` names no value before it."
            fix = f"Write &{name[:60]} at that value, or put the text in quotes."
            raise _Trouble("yaml", detail, fix, line=_line(event), pointer=self._pointer())
        if self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None:
            self._refuse_key(event)
        self.aliases += 1
        if self.aliases > ALIASES:
            detail = f"More than {ALIASES} aliases."
            raise _Trouble("too_large", detail, "Write the values out.", line=_line(event))
        self.count += anchored.size - 1
        if len(self.stack) + anchored.depth > DEPTH:
            self._too_deep(event)
        self._place(anchored.value, event, anchor=None, depth=anchored.depth)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, value: dict[str, Any] | list[Any]) -> None:
        self._refuse_tag(event)
        if self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None:
            self._refuse_key(event)
        if len(self.stack) >= DEPTH:
            self._too_deep(event)
        pointer = self._pointer()
        self.lines.setdefault(pointer, _line(event))
        before = self.count
        self.stack.append(_Open(value=value, pointer=pointer, anchor=event.anchor, before=before))

    def _close(self) -> None:
        done = self.stack.pop()
        size = self.count - done.before + 1
        depth = 0 if done.anchor is None else _depth(done.value)
        self._place(done.value, None, anchor=done.anchor, depth=depth, size=size)

    def _place(self, value: JSON, event: yaml.Event | None, *, anchor: str | None, depth: int, size: int = 1) -> None:
        """Puts a finished value where it belongs."""
        self.count += 1
        if self.count > NODES:
            detail = f"More than {NODES} values; aliases count as often as they are used."
            line = None if event is None else _line(event)
            raise _Trouble("too_large", detail, "Pass large data as input.", line=line)
        if anchor is not None:
            self.anchors[anchor] = _Anchored(value=value, size=size, depth=depth)
        if event is not None:
            self.lines.setdefault(self._pointer(), _line(event))
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is not None:
            top.value[top.key] = value
            top.key = None

    def _pointer(self) -> str:
        """Where the next value goes."""
        if not self.stack:
            return ""
        top = self.stack[-1]
        return f"{top.pointer}/{len(top.value) if isinstance(top.value, list) else escape(top.key or '')}"

    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag
        if tag is None or tag == "!":
            return
        shown = f"!!{tag.removeprefix(_STANDARD_TAG)}" if tag.startswith(_STANDARD_TAG) else tag
        fix = "Remove the tag; put text in quotes."
        raise _Trouble("yaml", f"Tags (`{shown[:60]}`) are not read.", fix, line=_line(event), pointer=self._pointer())

    def _refuse_key(self, event: yaml.Event) -> NoReturn:
        """`{ email: {{ x }} }`, `? [a]`, and the start of an unquoted expression."""
        line = _line(event)
        written = self.text.split("\n")[line - 1] if line <= self.text.count("\n") + 1 else ""
        if "{{" in written:
            raise _Trouble(**_EXPRESSION_TRAP, line=line, pointer=self.stack[-1].pointer)
        raise _Trouble("yaml", "A key is text.", "Write key: value", line=line, pointer=self.stack[-1].pointer)

    def _too_deep(self, event: yaml.Event) -> NoReturn:
        detail = f"More than {DEPTH} levels."
        raise _Trouble("too_deep", detail, "Nest less.", line=_line(event), pointer=self._pointer())


_EXPRESSION_TRAP: Final[dict[str, str]] = {
    "code": "yaml_expression",
    "detail": "YAML reads the braces, colon or `#` of this expression as its own.",
    "fix": 'Put the whole value in quotes: "${{ … }}"',
}


def _depth(value: JSON) -> int:
    """Levels of a finished collection that has an anchor."""
    deepest, pending = 0, [(value, 1)]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        pending.extend((item, depth + 1) for item in inner if isinstance(item, dict | list))
    return deepest


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _syntax_fault(text: str, error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = None if mark is None else min(int(mark.line) + 1, text.count("\n") + 1)
    context = getattr(error, "context_mark", None)
    first = line if context is None else int(context.line) + 1
    near = text.split("\n")[max(0, (first or 1) - 1) : line or 1]
    if any(_unquoted_expression(written) for written in near[-3:]):
        return Fault(**_EXPRESSION_TRAP, line=line)
    problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
    fix = "Check the indentation, and put text with `: `, ` #`, { or [ in quotes."
    if any("\t" in written for written in near):
        fix = "Indent with spaces: YAML does not take tabs."
    return Fault(code="yaml", detail=f"This is not YAML: {problem}.", fix=fix, line=line)


def _unquoted_expression(line: str) -> bool:
    start = line.find("{{")
    return start >= 0 and line.count('"', 0, start) % 2 == 0 and line.count("'", 0, start) % 2 == 0
