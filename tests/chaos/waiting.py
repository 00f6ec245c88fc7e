"""Waiting in a chaos run: for a condition, or for a moment that the end of the run cuts short. Never blindly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

LOOK: Final = 0.05
"""Seconds between two looks at a condition."""

Found = TypeVar("Found")


async def until(what: str, condition: Callable[[], Found | None], *, seconds: float = 30.0) -> Found:
    """Wait until the condition holds and return what it found; AssertionError with what was waited for."""
    end = asyncio.get_running_loop().time() + seconds
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < end, f"waited {seconds:.0f} s in vain: {what}"
        await moment(LOOK)
    return found


async def moment(seconds: float, *, unless: asyncio.Event | None = None) -> bool:
    """Let that time pass, or less if the event comes first. True if the event has come."""
    event = unless or asyncio.Event()
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
