"""Structured logs of every process: one line per event on stderr, the libraries' own words included.

An event name and fields; the fields bound for a task (`call`, `workflow_id`, …) come along by themselves, because each
task is its own asyncio context. Never: a secret, a payload, or a line on stdout.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

QUIET: Final = ("celery", "kombu", "amqp", "httpx", "httpx2", "httpcore", "httpcore2")
"""They log a line per message or request at INFO, which costs more than the message."""


def configure(*, level: str, as_json: bool) -> None:
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    last = [structlog.processors.format_exc_info] if as_json else []
    structlog.configure(
        processors=[*shared, *last, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
