"""What ports log while a command runs goes to stderr: stdout is the command's answer, which programs read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def on_stderr() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
    try:
        yield
    finally:
        structlog.configure(logger_factory=before["logger_factory"])
