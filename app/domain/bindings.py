"""What the expressions of a step see."""

from __future__ import annotations

from app.domain import canonical, expressions, ids
from app.domain.aggregate import StepRow
from app.domain.outcomes import JSON
from app.domain.transition import Draft


def instant(value: object) -> str | None:
    return None if value is None else str(value.isoformat().replace("+00:00", "Z"))  # type: ignore[attr-defined]


def seen_by(draft: Draft, names: frozenset[str], row: StepRow | None = None) -> dict[str, JSON]:
    """What the expressions of a step see. Only the steps in `names` are bound: they were loaded."""
    steps = {}
    for name in names:
        seen = draft.snapshot.steps.get(name)
        if seen is not None:
            steps[name] = expressions.step_binding(
                output=seen.output, state=seen.state, error=seen.failure, failures=None
            )
    found: dict[str, JSON] = {
        "input": draft.workflow.input,
        "workflow": {
            "id": ids.encode("wf", draft.workflow.id),
            "name": draft.workflow.name,
            "started_at": instant(draft.workflow.started_at or draft.now),
        },
        "steps": steps,
    }
    if row is not None and row.item_index is not None:
        found |= {"item": row.item, "item_index": row.item_index}
    return found


def size(value: JSON) -> int:
    return len(canonical.canonical_json(value))
