"""The body of a webhook: small, frozen at its first attempt, links for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.domain import canonical, headlines, ids
from app.domain.bindings import instant
from app.domain.outcomes import JSON

MOST_BYTES: Final = 20_000
"""Receivers behind queues and functions often take no more than this."""

Row = Mapping[str, Any]


def body(workflow: Row, event: Row) -> bytes:
    """`workflow` and `event` are rows. The same rows give the same bytes."""
    document = _document(workflow, event, data=event["data"])
    encoded = canonical.canonical_json(document)
    if len(encoded) >= MOST_BYTES:
        encoded = canonical.canonical_json(_document(workflow, event, data={"omitted": "too large; read the event"}))
    return encoded


def _document(workflow: Row, event: Row, *, data: JSON) -> JSON:
    workflow_id = ids.encode("wf", workflow["id"])
    return {
        "type": event["type"],
        "timestamp": instant(event["at"]),
        "data": {
            "workflow_id": workflow_id,
            "sequence": event["seq"],
            "status": workflow["status"],
            "headline": headlines.workflow_headline_brief(workflow),
            "step": event["step"],
            "event": event_document(event, traceparent=workflow["traceparent"], data=data),
            "links": {"workflow": f"/v1/workflows/{workflow_id}"},
        },
    }


def event_document(event: Row, *, traceparent: str | None, data: JSON) -> JSON:
    """An event as the API shows it."""
    return {
        "id": ids.encode("evt", event["id"]),
        "seq": event["seq"],
        "type": event["type"],
        "timestamp": instant(event["at"]),
        "workflow_id": ids.encode("wf", event["workflow_id"]),
        "step": event["step"],
        "call": None if event["call_id"] is None else ids.encode("call", event["call_id"]),
        "attempt": None if event["attempt_id"] is None else ids.encode("att", event["attempt_id"]),
        "from": event["from_state"],
        "to": event["to_state"],
        "trace_id": traceparent.split("-")[1] if traceparent else None,
        "data": data,
    }
