"""The server's recovery defaults: how many times, and how far apart, for each failure kind. One table.

A definition's `retry` is merged over it, key by key (`app/domain/definition/retrying.py`); what is done about each
kind is in `app/domain/recovery.py`. The merged policies are pinned in the plan, so that a later release that changes
a number here changes no workflow that was accepted before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Final

from app.domain.plan import RetryPolicy
from app.domain.states import FailureKind

UNTIL_DEADLINE: Final = 1000
"""As good as "until the deadline": a rate limit is somebody's schedule, not a failure of ours."""
FORMAT_REMINDER: Final = "format_reminder"


def _policy(kind: FailureKind, max_retries: int, *, repair: str | None = None) -> tuple[FailureKind, RetryPolicy]:
    return kind, RetryPolicy(
        max_retries=max_retries,
        first=timedelta(seconds=1),
        factor=2.0,
        cap=timedelta(seconds=60),
        repair=repair,
        rule=kind.value,
        source="default",
    )


RECOVERY_DEFAULTS: Final[Mapping[FailureKind, RetryPolicy]] = dict(
    [
        _policy(FailureKind.RATE_LIMITED, UNTIL_DEADLINE),
        _policy(FailureKind.OVERLOADED, 8),
        _policy(FailureKind.SERVER_ERROR, 5),
        _policy(FailureKind.TIMEOUT, 5),
        _policy(FailureKind.NETWORK, 5),
        _policy(FailureKind.WORKER_LOST, 5),
        _policy(FailureKind.CONTEXT_TOO_LONG, 2),
        _policy(FailureKind.OUTPUT_TRUNCATED, 3),
        _policy(FailureKind.MALFORMED_OUTPUT, 2, repair=FORMAT_REMINDER),
        _policy(FailureKind.WRONG_SHAPE, 2, repair=FORMAT_REMINDER),
        _policy(FailureKind.TOOL_ARGUMENTS_INVALID, 3),
        _policy(FailureKind.TOOL_UNKNOWN, 3),
        _policy(FailureKind.TOOL_ERROR, 2),
        _policy(FailureKind.TOOL_BROKEN, 1),
        _policy(FailureKind.REFUSED, 1),
        _policy(FailureKind.PAUSED_TURN, 10),
        _policy(FailureKind.NO_PROGRESS, 2),
        # The effect class decides about these before any policy is read, or nothing can be gained by repeating.
        _policy(FailureKind.UNKNOWN_OUTCOME, 0),
        _policy(FailureKind.SPEND_LIMITED, 0),
        _policy(FailureKind.AUTH, 0),
        _policy(FailureKind.MODEL_NOT_FOUND, 0),
        _policy(FailureKind.INVALID_REQUEST, 0),
        _policy(FailureKind.BUDGET_EXCEEDED, 0),
        _policy(FailureKind.EXPRESSION_ERROR, 0),
        _policy(FailureKind.DEADLINE_EXCEEDED, 0),
        _policy(FailureKind.STEP_TIMEOUT, 0),
        _policy(FailureKind.APPROVAL_REJECTED, 0),
        _policy(FailureKind.APPROVAL_EXPIRED, 0),
        _policy(FailureKind.SIGNAL_TIMEOUT, 0),
        _policy(FailureKind.CHILD_FAILED, 0),
        _policy(FailureKind.ITEM_FAILURES_EXCEEDED, 0),
        _policy(FailureKind.KEY_CONFLICT, 0),
        _policy(FailureKind.PAYLOAD_TOO_LARGE, 0),
        _policy(FailureKind.OUTBOUND_FORBIDDEN, 0),
        _policy(FailureKind.CANCELLED, 0),
        _policy(FailureKind.INTERNAL, 0),
    ]
)

RETRYABLE: Final = frozenset(kind for kind, policy in RECOVERY_DEFAULTS.items() if policy.max_retries > 0)
"""Kinds that a definition may have retried. For the others repeating cannot help, or is not ours to decide."""

GROUPS: Final[Mapping[str, frozenset[FailureKind]]] = {
    "transient": frozenset(
        {
            FailureKind.RATE_LIMITED,
            FailureKind.OVERLOADED,
            FailureKind.SERVER_ERROR,
            FailureKind.TIMEOUT,
            FailureKind.NETWORK,
            FailureKind.WORKER_LOST,
        }
    ),
    "malformed_output": frozenset({FailureKind.MALFORMED_OUTPUT, FailureKind.WRONG_SHAPE}),
    "any": RETRYABLE,
}
"""Names under `retry` that stand for several kinds, the most specific first."""


@cache
def rules_for(kind: FailureKind) -> tuple[str, ...]:
    """The keys of a definition's `retry` that speak for `kind`, the most specific first."""
    names = [kind.value, *(name for name, kinds in GROUPS.items() if kind in kinds)]
    return tuple(dict.fromkeys(names))
