"""The questions that decisions ask of the recovery table (`app/domain/recovery_table.py`) and of a step's policies.

`next_try(…)` — may the same bytes be sent again, and when. `changed(…)` — may a changed request be tried instead.
How many times is the merged policy of the step (`Step.retry`, from `app/domain/recovery_defaults.py` and the
definition); that repeating is *safe* was decided before, by the effect class (`app/domain/repeating.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.domain.outcomes import JSON, Failure
from app.domain.plan import RetryPolicy, Step
from app.domain.recovery_table import IN_A_ROW, TABLE, Action
from app.domain.states import FailureKind

SAME_BYTES: Final = frozenset(row.kind for row in TABLE.values() if Action.REPEAT in row.actions)
"""Kinds whose recovery repeats the identical request."""

PERMANENT_STATUS = frozenset({400, 401, 403, 404, 405, 406, 410, 411, 413, 414, 415, 422, 431})
"""A tool that answers with one of these would answer the same again (RFC 9110 §15.5): repeating is waste."""

RETRY_AFTER_CAP = timedelta(hours=1)
"""A longer Retry-After is believed only up to this: the deadline decides the rest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    delay: timedelta
    policy: RetryPolicy
    used: int
    """Which retry this is, from 1."""


def next_try(step: Step, failure: Failure, *, tries: int, attempt_id: UUID) -> Retry | None:
    """When the same bytes may go again after `failure`, or None. `tries` were already used for its kind."""
    policy = step.retry.get(failure.kind)
    if policy is None or failure.kind not in SAME_BYTES or tries >= policy.max_retries:
        return None
    answered = failure.kind is FailureKind.TOOL_ERROR and not failure.detail.get("not_executed")
    if answered and policy.source == "default" and not worth_repeating(step, failure):
        return None
    return Retry(delay=_delay(policy, failure, tries=tries, attempt_id=attempt_id), policy=policy, used=tries + 1)


def worth_repeating(step: Step, failure: Failure) -> bool:
    """A step that names a tool asked for exactly that: a definite refusal is its answer. An agent's call may be
    repeated if the status allows that the same request is answered otherwise a moment later, or the function does."""
    permanent = failure.status_code in PERMANENT_STATUS or bool(failure.detail.get("permanent"))
    return step.agent is not None and not permanent


def changed(step: Step, kind: FailureKind, *, used: int) -> RetryPolicy | None:
    """The policy under which a changed request may be tried after `used` such changes on this step, or None."""
    policy = step.retry.get(kind)
    return None if policy is None or used >= policy.max_retries else policy


def in_a_row(step: Step, kind: FailureKind) -> int:
    """How many times in a row it must happen before something is done about it."""
    policy = step.retry.get(kind)
    return IN_A_ROW if policy is None or policy.after is None else policy.after


def _delay(policy: RetryPolicy, failure: Failure, *, tries: int, attempt_id: UUID) -> timedelta:
    """Retry-After if given, plus jitter; else exponential backoff with full jitter. Jitter follows from the attempt."""
    draw = jitter(attempt_id)
    if failure.kind is FailureKind.WORKER_LOST:
        return timedelta(0)
    if failure.retry_after is not None:
        return min(failure.retry_after, RETRY_AFTER_CAP) + policy.first * (0.25 * draw)
    ceiling = min(policy.cap, policy.first * policy.factor ** min(tries, 60))
    return ceiling * draw


def jitter(attempt_id: UUID) -> float:
    """0 ≤ x < 1, always the same for one attempt."""
    return int.from_bytes(hashlib.sha256(attempt_id.bytes).digest()[:4], "big") / 2**32


def record(
    kind: FailureKind,
    policy: RetryPolicy,
    *,
    change: str | None,
    waited: timedelta = timedelta(0),
    diff: JSON = None,
    message: str | None = None,
    used: int,
    tool: str | None = None,
) -> dict[str, JSON]:
    """The record an automatic decision leaves on the call it caused; `result` is filled in when that call ends. `diff`
    says line by line what is different in the request; `tool` whose failure it was, if not the call's own."""
    about = {} if tool is None else {"tool": tool}
    return {
        "kind": kind.value,
        "rule": policy.rule or kind.value,
        "source": policy.source,
        "line": policy.line,
        "used": used,
        "allowed": policy.max_retries,
        "message": message,
        "change": change,
        "diff": diff,
        "waited_ms": int(waited.total_seconds() * 1000),
        "result": None,
        **about,
    }
