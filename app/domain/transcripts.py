"""A conversation as plain text, short enough for a model that has refused it whole.

    transcript(messages, room)    at most `room` bytes; the oldest results of tools are shortened first

No tool blocks and no thinking are in it, so nothing is left that could be malformed. It is made anew for each attempt
from the stored bytes, so it must come out the same each time: pure, and its constants change only with the meaning of
the rows. Nothing stored is touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.domain.conversation import parsed
from app.domain.outcomes import JSON

SHORT: Final = 400
"""Characters that stay of an entry which is shortened: enough to see what it was about."""

_ORDER: Final = ("result", "use", "said")
"""What is shortened, the least loss first: a result can be asked for again, what somebody said cannot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    kind: str
    head: str
    text: str

    def shown(self) -> str:
        return f"[{self.head}]\n{self.text}\n"

    def size(self) -> int:
        return len(self.shown().encode())


def transcript(messages: Sequence[bytes], *, room: int) -> str:
    """The whole conversation, oldest first. What is left out says so where it stood."""
    entries = list(_entries(parsed(messages)))
    left = sum(entry.size() + 1 for entry in entries) - room
    for kind in _ORDER:
        for place, entry in enumerate(entries):
            if left <= 0:
                break
            if entry.kind == kind and place > 0:  # the first is the task
                entries[place] = _shortened(entry)
                left -= entry.size() - entries[place].size()
    text = "\n".join(entry.shown() for entry in entries)
    return text if left <= 0 else _without_the_middle(text, room)


def cut(text: str, most: int) -> str:
    """At most about `most` characters: the head, and what is left out said in words."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[… {len(text) - most:,} of {len(text):,} characters left out here …]"


def _shortened(entry: _Entry) -> _Entry:
    shorter = cut(entry.text, SHORT)
    return replace(entry, text=shorter) if len(shorter) < len(entry.text) else entry


def _without_the_middle(text: str, room: int) -> str:
    """Thousands of short entries: the task at the beginning and the newest at the end are worth most."""
    raw = text.encode()
    note = "\n[… the middle of this transcript is left out …]\n"
    half = max(0, room - len(note.encode())) // 2
    return raw[:half].decode(errors="ignore") + note + raw[len(raw) - half :].decode(errors="ignore")


def _entries(messages: Sequence[Mapping[str, JSON]]) -> Iterator[_Entry]:
    for message in messages:
        role, content = str(message.get("role")), message.get("content")
        if isinstance(content, str):
            yield _Entry(kind="said", head=role, text=content)
            continue
        for block in content if isinstance(content, list) else []:
            yield from _block(role, block)


def _block(role: str, block: Mapping[str, JSON]) -> Iterator[_Entry]:
    """Thinking, and kinds that are not known here, are left out: they mean nothing as text."""
    match block.get("type"):
        case "text":
            yield _Entry(kind="said", head=role, text=str(block.get("text", "")))
        case "tool_use":
            given = json.dumps(block.get("input"), ensure_ascii=False, separators=(",", ":"))
            yield _Entry(kind="use", head=f"{role} calls {block.get('name')}", text=given)
        case "tool_result":
            content = block.get("content")
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            failed = " (failed)" if block.get("is_error") else ""
            yield _Entry(kind="result", head=f"result{failed}", text=text)
