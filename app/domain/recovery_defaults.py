"""The server's recovery defaults as policies: how many times, and how far apart, for each failure kind.

The numbers stand in the recovery table (`app/domain/recovery_table.py`). A definition's `retry` is merged over them,
key by key (`app/domain/definition/retrying.py`). The merged policies are pinned in the plan, so that a later release
that changes a number changes no workflow that was accepted before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Final

from app.domain.plan import RetryPolicy
from app.domain.recovery_table import GROUPS, TABLE, UNTIL_DEADLINE, Action, Row
from app.domain.states import FailureKind

__all__ = ["FORMAT_REMINDER", "GROUPS", "RECOVERY_DEFAULTS", "RETRYABLE", "UNTIL_DEADLINE", "rules_for"]

FORMAT_REMINDER: Final = "format_reminder"
"""The one word that `repair` of a policy knows."""


def _policy(row: Row) -> RetryPolicy:
    return RetryPolicy(
        max_retries=row.budget,
        first=timedelta(seconds=1),
        factor=2.0,
        cap=timedelta(seconds=60),
        repair=FORMAT_REMINDER if Action.REMIND in row.actions else None,
        rule=row.kind.value,
        source="default",
        after=row.after,
    )


RECOVERY_DEFAULTS: Final[Mapping[FailureKind, RetryPolicy]] = {row.kind: _policy(row) for row in TABLE.values()}

RETRYABLE: Final = frozenset(row.kind for row in TABLE.values() if row.written)
"""Kinds that a definition may have retried. For the others repeating cannot help, or is not ours to decide."""


@cache
def rules_for(kind: FailureKind) -> tuple[str, ...]:
    """The keys of a definition's `retry` that speak for `kind`, the most specific first."""
    names = [kind.value, *(name for name, kinds in GROUPS.items() if kind in kinds)]
    return tuple(dict.fromkeys(names))
