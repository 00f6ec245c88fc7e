"""What a model call sends of its conversation, at the cost of what is new: what this process has read and checked for
an earlier call is neither fetched nor checked again.

    Conversations.read        a conversation up to a message: from memory what is known, from Postgres the rest
    Conversations.problems    every rule a request with it would break; empty if it may be sent, and then it is known

A conversation's messages never change, so what was read of it, and what held for it, holds for ever. That the rows
are still those that were read is not believed but compared: in the statement that fetches the rest Postgres takes the
digest of their marks (`Stored.mark`). Where they are others (a restored database, rows changed by hand) everything is
fetched and checked anew, like what another process has written. The memory is bounded; what has fallen out of it costs
one whole read and check.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from app.domain import conversation, ids
from app.domain.outcomes import JSON
from app.store import messages

log = structlog.get_logger(__name__)

MOST_BYTES: Final = 32 * 1024 * 1024
"""Of conversations that a process remembers: a thousand agents with 32 KB each, or two hundred with 160. As much as a
worker's memory grows by it, a tenth of what it may take with a thousand calls in flight."""

LARGEST: Final = MOST_BYTES // 4
"""A conversation larger than that is not remembered: it would put a crowd of others out of memory in each turn."""

OF_MESSAGE: Final = 200
"""Bytes that a message takes beside its own: the object, its place in a tuple, the id of a tool use."""

Place = tuple[UUID, str, int]
"""Workflow, step, conversation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """The first messages of a conversation, read and checked."""

    messages: tuple[bytes, ...] = ()
    taken: hashlib._Hash = field(default_factory=hashlib.sha256)
    """SHA-256 of their rows' marks, as far as it goes: what is new is added to a copy of it."""
    uses: frozenset[str] = frozenset()
    """Ids of the tool uses among them: none may come again."""
    size: int = 0
    """What remembering it takes, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """A conversation up to a message."""

    known: Known
    new: Sequence[messages.Stored]
    """What the rows say after what is known."""
    messages: tuple[bytes, ...]
    """All of it. Those that are known are the objects that are remembered, however many calls have them in hand."""


NOTHING: Final = Known()


class Conversations:
    """Of one process."""

    def __init__(self, *, most: int = MOST_BYTES, largest: int = LARGEST) -> None:
        self._most = most
        self._largest = largest
        self._known: OrderedDict[Place, Known] = OrderedDict()
        self._size = 0

    def known(self, place: Place) -> Known:
        return self._known.get(place, NOTHING)

    async def read(self, connection: messages.Connection, place: Place, *, count: int) -> Read:
        """The first `count` messages. Raises LookupError if they are not there."""
        workflow_id, step, number = place
        known = self.known(place)
        if 0 < len(known.messages) <= count:
            digest, new = await messages.rest(
                connection,
                workflow_id=workflow_id,
                step=step,
                conversation=number,
                known=len(known.messages),
                count=count,
            )
            if digest == known.taken.digest() and len(known.messages) + len(new) == count:
                return _read(known, new)
            self._forget(place)
            log.warning(
                "conversation.rows_changed", workflow_id=ids.encode("wf", workflow_id), step=step, conversation=number
            )
        every = await messages.conversation(
            connection, workflow_id=workflow_id, step=step, conversation=number, count=count
        )
        return _read(NOTHING, every)

    def problems(self, place: Place, read: Read) -> list[str]:
        broken, uses = _problems(read.known, [row.body for row in read.new])
        if broken:
            return conversation.check(read.messages) or broken  # in words that count from the first message
        self._keep(place, _longer(read, uses))
        return []

    def _keep(self, place: Place, known: Known) -> None:
        self._forget(place)
        if known.size > self._largest:
            return
        self._known[place] = known
        self._size += known.size
        while self._size > self._most:
            _, oldest = self._known.popitem(last=False)
            self._size -= oldest.size

    def _forget(self, place: Place) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._size -= known.size


def _read(known: Known, new: Sequence[messages.Stored]) -> Read:
    return Read(known=known, new=new, messages=(*known.messages, *(row.body for row in new)))


def _longer(read: Read, uses: frozenset[str]) -> Known:
    if not read.new:
        return read.known
    taken = read.known.taken.copy()
    taken.update(b"".join(row.mark for row in read.new))
    size = read.known.size + sum(len(row.body) + OF_MESSAGE for row in read.new)
    return Known(messages=read.messages, taken=taken, uses=read.known.uses | uses, size=size)


def _problems(known: Known, new: Sequence[bytes]) -> tuple[list[str], frozenset[str]]:
    """Of what is new, and the ids of its tool uses. The first message, and the last one that is known, stand before it:
    what may follow depends on them."""
    if known.messages and not new:
        return [], frozenset()
    if not known.messages:
        before: Sequence[bytes] = ()
    elif conversation.parsed(known.messages[-1:])[0].get("role") == "user":
        before = known.messages[:1]  # its tool uses are answered: any user message is as good
    else:
        before = (known.messages[0], known.messages[-1])
    found = conversation.check([*before, *new])
    if found:
        return found, frozenset()
    given = [use for message in conversation.parsed(new) for use in _uses(message.get("content"))]
    return [f"tool use {used} occurs twice" for used in given if used in known.uses], frozenset(given)


def _uses(content: JSON) -> list[str]:
    blocks = content if isinstance(content, list) else []
    return [str(block.get("id")) for block in blocks if isinstance(block, dict) and block.get("type") == "tool_use"]
