"""What a function said, made into what is stored: its result as JSON bytes, its exception as words and a traceback.

    Answers.returned(value)   the evidence of a result
    Answers.raised(error)     the evidence of an exception: its traceback, as an HTTP tool's 500 page
    testimony(error)          what an exception says about whether the function acted

Never raises, whatever a stranger's objects do when they are shown or serialised; masks the secrets of this process.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog

from app.domain.bodies import opaque, storable_text
from app.domain.function_certainty import Seen
from app.domain.outcomes import Evidence
from app.ports.secrets import Secrets
from surefoot import NotExecuted, ToolFailed

log = structlog.get_logger(__name__)

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
"""As `canonical.canonical_json`, made once: a call that does nothing should cost nothing."""

_LONGEST_WAIT: Final = 366 * 86400.0
"""Seconds of a `retry_after` that are believed."""

_SHOWN: Final = 500
_TRACEBACK: Final = 16 * 1024
"""Letters kept of a traceback: its end, where it says what happened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    secrets: Secrets
    limit: int
    """The most bytes kept, as of an HTTP answer."""

    def returned(self, value: Any, *, tool: str, most: int | None = None) -> Evidence:
        """The value as JSON bytes. What is none is a success with an opaque output, as an HTTP answer that cannot be
        read: the function returned, so it has executed. `most`: bytes, if the tool wants less than the limit."""
        try:
            body = _ENCODER.encode(value).encode()
        except UnicodeEncodeError:  # a lone surrogate: escaped it is JSON, and the reader says what it is
            body = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        except Exception as error:  # no JSON value, or one that contains itself
            log.warning("python_tool.unusable_result", tool=tool, type=type(value).__name__)
            shown = storable_text(_text(value, how=repr), limit=_SHOWN).encode("utf-8", "replace")
            said = storable_text(_text(error, how=str), limit=_SHOWN)
            body = _ENCODER.encode(opaque(shown, "text/x-python", reason=f"not JSON: {said}")).encode()
        body = self.secrets.mask(body)
        limit = self.limit if most is None else min(self.limit, most)
        return Evidence(body=body[:limit], media_type="application/json", truncated=len(body) > limit)

    def raised(self, error: BaseException) -> Evidence:
        below = error.__traceback__ and error.__traceback__.tb_next  # our own frame is nobody's news
        text = "".join(traceback.format_exception(type(error), error, below))
        body = self.secrets.mask(text[-_TRACEBACK:].encode("utf-8", "replace"))
        truncated = len(text) > _TRACEBACK or len(body) > self.limit
        return Evidence(body=body[: self.limit], media_type="text/plain; charset=utf-8", truncated=truncated)


def testimony(error: BaseException) -> tuple[Seen, str, timedelta | None]:
    """(what was seen, a fragment that says it, when to come back)."""
    if isinstance(error, NotExecuted):
        wait = _seconds(error.retry_after)
        return (Seen.NOT_EXECUTED if wait is None else Seen.COME_BACK), _text(error, how=str), wait
    if isinstance(error, ToolFailed):
        return Seen.FAILED, _text(error, how=str), None
    return Seen.RAISED, type(error).__name__, None


def _seconds(value: object) -> timedelta | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return timedelta(seconds=min(float(value), _LONGEST_WAIT))


def _text(value: object, *, how: Callable[[object], str]) -> str:
    try:
        return how(value)
    except Exception as error:
        return f"a {type(value).__name__} whose text raised {type(error).__name__}"
