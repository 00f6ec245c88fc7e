"""The numbers of a trace: of the workflow (time, money, retries, effects) and of a `for_each` (its items). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from app.domain.amounts import usd
from app.domain.ledger_records import REOPENED
from app.domain.outcomes import JSON
from app.domain.spans import Span, chains, milliseconds
from app.domain.states import StepState

Row = Mapping[str, Any]


def totals(workflow: Row, root: Span, as_of: datetime, *, probing: int) -> dict[str, JSON]:
    ended = root.ended_at or as_of
    duration = timedelta() if root.started_at is None else max(ended - root.started_at, timedelta())
    lost = timedelta()
    for step in (span for span in root.walk() if span.kind == "step"):
        for part in (part for chain in chains(step.calls) for part in _unattended(chain)):
            tries = [attempt for call in part for attempt in call.attempts]
            if len(tries) > 1 and tries[0].started_at is not None and tries[-1].started_at is not None:
                lost += max(tries[-1].started_at - tries[0].started_at, timedelta())
    return {
        "duration_ms": milliseconds(duration),
        "cost_usd": usd(workflow["spent_microusd"]),
        "retries": workflow["retries"],
        "recovery_usd": usd(workflow["recovery_microusd"]),
        "recovery_ms": milliseconds(lost),
        "effects": {
            "done": workflow["effects_done"],
            "unknown": workflow["doubts"] + probing,
            "undone": workflow["effects_undone"],
            "abandoned": workflow["effects_abandoned"],
            "duplicates_prevented": workflow["duplicates_prevented"],
        },
    }


def _unattended(chain: Sequence[Span]) -> list[list[Span]]:
    """What was done without a person: until somebody reopened the workflow, and from then on."""
    parts: list[list[Span]] = [[]]
    for call in chain:
        if any(record["kind"] == REOPENED for record in call.recovery):
            parts.append([])
        parts[-1].append(call)
    return parts


def items(step: Row, children: Sequence[Span]) -> JSON:
    if step["items_total"] is None:
        return None
    items = [child for child in children if child.kind == "step"]
    ok = sum(child.status == StepState.SUCCEEDED for child in items)
    failed = sum(child.status == StepState.FAILED for child in items)
    return {"total": step["items_total"], "ok": ok, "failed": failed, "open": step["items_total"] - ok - failed}
