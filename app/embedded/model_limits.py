"""The scripted model's rate limits: a bucket of requests, of input and of output tokens for each model, as the real
API has them. Nobody is limited until `POST /behave {"limits": {…}}` says so.

    {"limits": {"model": "claude-haiku-5-5", "requests": 5, "input_tokens": 20000, "output_tokens": null,
                "seconds": 60}}

A bucket fills up evenly: `requests` in `seconds`. A request is let in if each bucket holds enough (output: anything at
all, because nobody knows how long the answer will be; it is taken afterwards), else it gets the real 429 with
`retry-after`. While a model is limited its answers carry the real headers, `anthropic-ratelimit-…`; they speak
of a minute whatever `seconds` says: a client has no other word for how fast a bucket fills up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.embedded.model_rules import Refused

MINUTE: Final = 60.0

KINDS: Final = {"requests": "requests", "input_tokens": "input-tokens", "output_tokens": "output-tokens"}
"""As they are posted → as the headers call them."""
_SAID: Final = {"requests": "requests", "input_tokens": "input tokens", "output_tokens": "output tokens"}


@dataclass(kw_only=True, slots=True)
class Bucket:
    limit: float
    per_second: float
    level: float
    filled_at: float

    def fill(self, now: float) -> None:
        self.level = min(self.limit, self.level + self.per_second * (now - self.filled_at))
        self.filled_at = now

    def seconds_until(self, wanted: float) -> float:
        return max(0.0, (min(wanted, self.limit) - self.level) / self.per_second)


class Limited(Refused):
    """429, and when to come again."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(429, "rate_limit_error", message)
        self.retry_after = retry_after


class RateLimits:
    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._buckets: dict[str, dict[str, Bucket]] = {}
        self._seconds: dict[str, float] = {}

    def limit(self, told: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what is no limit. The buckets begin full."""
        model, seconds, now = str(told["model"]), float(told.get("seconds", 60)), self._clock()
        wanted = {kind: float(told[kind]) for kind in KINDS if told.get(kind) is not None}
        if seconds <= 0 or any(limit <= 0 for limit in wanted.values()):
            raise ValueError("limits and seconds are above 0")
        self._seconds[model] = seconds
        self._buckets[model] = {
            kind: Bucket(limit=limit, per_second=limit / seconds, level=limit, filled_at=now)
            for kind, limit in wanted.items()
        }

    def clear(self) -> None:
        self._buckets.clear()

    def admit(self, model: str, *, input_tokens: int) -> None:
        """Takes a request and its input out of the buckets. Raises `Limited`, and then takes nothing."""
        buckets = self._filled(model)
        wanted = {"requests": 1.0, "input_tokens": float(input_tokens), "output_tokens": 1.0}
        for kind, bucket in buckets.items():
            if bucket.level < min(wanted[kind], bucket.limit):
                raise Limited(
                    "This request would exceed your organization's rate limit of "
                    f"{bucket.limit:g} {_SAID[kind]} per {self._seconds[model]:g} seconds.",
                    retry_after=max(1, math.ceil(bucket.seconds_until(wanted[kind]))),
                )
        for kind, bucket in buckets.items():
            bucket.level -= 0.0 if kind == "output_tokens" else wanted[kind]

    def answered(self, model: str, *, output_tokens: int) -> None:
        bucket = self._filled(model).get("output_tokens")
        if bucket is not None:
            bucket.level -= output_tokens

    def headers(self, model: str) -> dict[str, str]:
        """The real headers, of every limited kind; none for a model that is not limited."""
        found: dict[str, str] = {}
        for kind, bucket in self._filled(model).items():
            minutes = self._seconds[model] / MINUTE
            name = f"anthropic-ratelimit-{KINDS[kind]}"
            full_at = self._clock() + bucket.seconds_until(bucket.limit)
            found[f"{name}-limit"] = f"{bucket.limit / minutes:.0f}"
            found[f"{name}-remaining"] = str(max(0, math.floor(bucket.level / minutes)))
            found[f"{name}-reset"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(full_at)))
        return found

    def _filled(self, model: str) -> dict[str, Bucket]:
        buckets, now = self._buckets.get(model, {}), self._clock()
        for bucket in buckets.values():
            bucket.fill(now)
        return buckets
