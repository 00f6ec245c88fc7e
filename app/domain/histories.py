"""What is read of an agent step's past before its conversation begins anew: rows, never anybody's memory of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.domain.outcomes import JSON

EFFECTS_READ: Final = 100
"""Effects of one step that are read, the newest: more would not fit into a message that is to be short."""
RESULT_READ: Final = 20_000
"""Bytes: a longer result is named by its size. Only its first part would be shown anyway."""
LATEST_READ: Final = 3
"""Messages at the end of a conversation among which its latest input is: results of tools, a note, a reminder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectDone:
    """An effect of this step that happened, or may have."""

    call_id: UUID
    tool: str
    arguments: JSON
    result: JSON
    result_bytes: int | None = None
    """Set if the result is too long to be read here."""
    state: str
    undo: str = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    task: bytes
    """The first message of the step's first conversation."""
    latest: tuple[bytes, ...] = ()
    """The messages after the model's last one, in order."""
    effects: tuple[EffectDone, ...] = ()
    """In the order in which they were made; at most `EFFECTS_READ`."""
    more_effects: int = 0
    """Earlier ones that were not read."""
