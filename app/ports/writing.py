"""One model answer while it is being written: the model port tells each piece, whoever shows it looks now and then.

Promises: telling a piece is a few list operations on the event loop, whatever becomes of it; looking works from any
thread. What is held is bounded (the end of the text, the first few names of tools). Never: decides, throttles, sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.domain.outcomes import Evidence, Usage
from app.domain.partials import NAME_MOST, TEXT_MOST, TOOLS_MOST, Partial

HELD_MOST: Final = 4 * TEXT_MOST
"""Characters after which what nobody will be shown is let go of: rarely, so that a piece costs next to nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenOff:
    """What had arrived when the request was broken off by ourselves."""

    evidence: Evidence | None
    usage: Usage | None
    request_id: str | None
    sent_after: float | None


class Writing:
    """Of one attempt. `changed` is called with it when there is something new since the last look."""

    def __init__(self, *, attempt_id: UUID, changed: Callable[[Writing], None] | None = None) -> None:
        self.attempt_id = attempt_id
        self.broken_off: BrokenOff | None = None
        """Left by the port when it was cancelled: somebody pays for it."""
        self.shown = False
        """Whether somebody else holds something of it: then it has to be forgotten at the end."""
        self._changed = changed
        self._told = False
        self._pieces: list[str] = []
        self._held = 0
        self._characters = 0
        self._thought = 0
        self._tools: list[str] = []

    # --- on the event loop ---

    def text(self, piece: str) -> None:
        self._pieces.append(piece)
        self._characters += len(piece)
        self._held += len(piece)
        if self._held > HELD_MOST:
            self._pieces = ["".join(self._pieces)[-TEXT_MOST:]]
            self._held = len(self._pieces[0])
        self._tell()

    def thinking(self, characters: int) -> None:
        self._thought += characters
        self._tell()

    def tool(self, name: str) -> None:
        if len(self._tools) < TOOLS_MOST:
            self._tools.append(name[:NAME_MOST])
        self._tell()

    def _tell(self) -> None:
        if not self._told and self._changed is not None:
            self._told = True
            self._changed(self)

    # --- in any thread ---

    def look(self) -> Partial:
        """As it is now; from here on the next piece calls `changed` again."""
        self._told = False
        return Partial(
            characters=self._characters,
            thought=self._thought,
            text="".join(self._pieces[:])[-TEXT_MOST:],
            tools=tuple(self._tools[:]),
        )
