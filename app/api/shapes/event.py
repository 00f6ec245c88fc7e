"""An event: a numbered fact out of a workflow. `agent.*` names serve every step kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from app.api.shapes.values import JSON, Shape, id_or_none
from app.domain import ids

Row = Mapping[str, Any]


class Event(Shape):
    id: str
    seq: int
    type: str
    timestamp: datetime
    workflow_id: str
    step: str | None
    call: str | None
    attempt: str | None
    from_: str | None = Field(alias="from")
    to: str | None
    trace_id: str | None
    data: dict[str, JSON]


class EventPage(Shape):
    data: list[Event]
    next_cursor: str | None
    """The `after` of the next page; null at the (present) end."""
    has_more: bool


def event_shape(row: Row, *, trace_id: str | None) -> Event:
    return Event(
        id=ids.encode("evt", row["id"]),
        seq=row["seq"],
        type=row["type"],
        timestamp=row["at"],
        workflow_id=ids.encode("wf", row["workflow_id"]),
        step=row["step"],
        call=id_or_none("call", row["call_id"]),
        attempt=id_or_none("att", row["attempt_id"]),
        from_=row["from_state"],
        to=row["to_state"],
        trace_id=trace_id,
        data=row["data"],
    )
