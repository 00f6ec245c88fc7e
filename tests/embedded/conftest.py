"""A directory servers of another user can reach, a way to wait for a condition, a list of what was started."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.embedded import homes


@pytest.fixture
def home() -> Iterator[Path]:
    with homes.temporary_home() as place:
        yield place


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition; fail with what was waited for."""

    def wait(condition: Callable[[], object], what: str, *, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        tick = threading.Event()
        while not condition():
            assert time.monotonic() < end, f"waited {seconds:.0f} s in vain: {what}"
            tick.wait(0.02)

    return wait
