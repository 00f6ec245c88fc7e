"""The check before each model call, at the cost of what is new: what this process has checked is not checked again.

    Checked.problems    every rule a request with these messages would break; empty if it may be sent

A conversation's messages never change, so what held for the first of them holds for ever. That they are the same bytes
is not believed but compared, by digest: rows changed by hand are checked as a whole, like those that another process
has written. The memory is bounded; a conversation that has fallen out of it costs one whole check.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.domain import conversation
from app.domain.outcomes import JSON

CONVERSATIONS: Final = 1_024
"""As many as a process has agents in hand, and more: one costs about the ids of its tool uses."""

Place = tuple[UUID, str, int]
"""Workflow, step, conversation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """The first messages of a conversation, which have been checked."""

    count: int
    digest: bytes
    uses: frozenset[str]
    """Ids of the tool uses among them: none may come again."""


class Checked:
    def __init__(self, *, most: int = CONVERSATIONS) -> None:
        self._most = most
        self._known: OrderedDict[Place, _Known] = OrderedDict()

    def problems(self, place: Place, messages: Sequence[bytes]) -> list[str]:
        known = self._known.get(place)
        if known is None or known.count > len(messages) or _digest(messages[: known.count]) != known.digest:
            known = _Known(count=0, digest=b"", uses=frozenset())
        broken, uses = _problems(known, messages)
        if broken:
            return conversation.check(messages) or broken  # in words that count from the first message
        self._keep(place, _Known(count=len(messages), digest=_digest(messages), uses=known.uses | uses))
        return []

    def _keep(self, place: Place, known: _Known) -> None:
        self._known[place] = known
        self._known.move_to_end(place)
        while len(self._known) > self._most:
            self._known.popitem(last=False)


def _problems(known: _Known, messages: Sequence[bytes]) -> tuple[list[str], frozenset[str]]:
    """Of what is new, and the ids of its tool uses. The first message, and the last one that is known, stand before it:
    what may follow depends on them."""
    new = messages[known.count :]
    if known.count == 0:
        before: Sequence[bytes] = ()
    elif conversation.parsed([messages[known.count - 1]])[0].get("role") == "user":
        before = messages[:1]  # its tool uses are answered: any user message is as good
    else:
        before = (messages[0], messages[known.count - 1])
    if known.count and not new:
        return [], frozenset()
    found = conversation.check([*before, *new])
    if found:
        return found, frozenset()
    ids = [use for message in conversation.parsed(new) for use in _uses(message.get("content"))]
    return [f"tool use {used} occurs twice" for used in ids if used in known.uses], frozenset(ids)


def _uses(content: JSON) -> list[str]:
    blocks = content if isinstance(content, list) else []
    return [str(block.get("id")) for block in blocks if isinstance(block, dict) and block.get("type") == "tool_use"]


def _digest(messages: Sequence[bytes]) -> bytes:
    """Of the bytes and of where each message ends."""
    taken = hashlib.sha256()
    for message in messages:
        taken.update(len(message).to_bytes(8, "big"))
        taken.update(message)
    return taken.digest()
