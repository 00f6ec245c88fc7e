"""What a model has written so far of an answer that is not there yet: shown while it lasts, kept nowhere.

A `Partial` is no fact: it is not stored in Postgres, no event tells it, nothing is decided by it. The answer itself
comes with its stop reason, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.domain import bodies
from app.domain.outcomes import JSON

TEXT_MOST: Final = 2000
"""Characters of the text that are shown, the last ones: what fits on a screen."""
TOOLS_MOST: Final = 16
"""Names of tools that are shown: an answer rarely asks for more than three."""
NAME_MOST: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    characters: int
    """Of its text, all of it."""
    thought: int
    """Characters of its thinking, which is not shown."""
    text: str
    """The last of its text."""
    tools: tuple[str, ...]
    """The tools it has begun to ask for, as the model names them. None of them is called before the answer is whole."""

    def to_json(self) -> dict[str, JSON]:
        return {
            "characters": self.characters,
            "thought": self.thought,
            "text": self.text,
            "tools": list(self.tools),
        }


def read(value: JSON) -> Partial | None:
    """What somebody has told, made fit for people to see; None if it is not a partial answer."""
    if not isinstance(value, Mapping):
        return None
    characters, thought, text, tools = (value.get(name) for name in ("characters", "thought", "text", "tools"))
    if not isinstance(characters, int) or not isinstance(thought, int):
        return None
    names = [name for name in tools if isinstance(name, str)] if isinstance(tools, list) else []
    return Partial(
        characters=characters,
        thought=thought,
        text=bodies.storable_text(text, limit=TEXT_MOST) if isinstance(text, str) else "",
        tools=tuple(bodies.storable_text(name, limit=NAME_MOST) for name in names[:TOOLS_MOST]),
    )


def line(partial: Partial) -> str:
    """`writing… 1,240 characters, asks for calendar-free_busy`."""
    if not partial.characters and not partial.tools:
        return f"thinking… {partial.thought:,} characters"
    said = f"writing… {partial.characters:,} characters" if partial.characters else "asking for tools…"
    return said + (f", asks for {', '.join(partial.tools)}" if partial.tools else "")
