"""The OpenAPI document: stable operation ids, bodies of our own parser, every error code, the `webhooks` section.

Built once per app from FastAPI's own; added are the models of request bodies (`documents.py`), examples, the problem
media type, and one webhook per event that is delivered by default.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api import problems, version
from app.api.documents import REQUEST_MODELS
from app.api.error_pages import CATALOGUE
from app.domain.events import CATALOGUE as EVENTS
from app.domain.transition import DEFAULT_WEBHOOK_EVENTS

_REF: Final = "#/components/schemas/{model}"

DESCRIPTION: Final = (
    "Durable AI-agent workflows. POST a workflow with an Idempotency-Key, poll it or wait for it, read its trace, "
    "receive signed webhooks. Instants are RFC 3339 UTC, money is decimal text in dollars, lists are cursor pages, "
    "errors are RFC 9457 problems whose `code` is listed under `Problem`."
)

_SUBMISSION_EXAMPLE: Final = {
    "definition": {
        "name": "hello",
        "tools": {
            "greet": {
                "description": "Say hello.",
                "http": {"method": "POST", "url": "https://tools.example.com/greet"},
                "effect": "keyed",
                "key_header": "Idempotency-Key",
                "key_ttl": "24h",
            }
        },
        "steps": {"greet": {"tool": "greet", "with": {"name": "${{ input.name }}"}}},
        "output": {"greeting": "${{ steps.greet.output }}"},
    },
    "input": {"name": "Ana"},
    "labels": {"team": "a"},
    "webhook": {"url": "https://example.com/hooks", "events": ["workflow.*"]},
    "deadline": "2h",
}
_EXAMPLES: Final[dict[str, Any]] = {
    "SubmissionBody": _SUBMISSION_EXAMPLE,
    "CancelBody": {"reason": "The customer called it off."},
    "PauseBody": {"reason": "The bank has announced maintenance."},
    "ResumeBody": {"reason": "The bank is back."},
    "RetryBody": {"note": "The model key is renewed."},
    "CompensateBody": {"mode": "undo", "note": "The customer wants the money back."},
    "OperateStepBody": {"note": "Not needed for this customer."},
    "CompleteStepBody": {"output": {"event_id": "8841"}, "note": "Entered by hand."},
    "ResolveBody": {"outcome": "did_not_happen", "note": "No entry in the calendar; checked by hand."},
    "ResolveManyBody": {
        "filter": {"tool": "email.send", "since": "2026-11-22T09:00:00Z"},
        "outcome": "probe",
        "note": "The mail server is back.",
        "limit": 500,
        "dry_run": True,
    },
    "SettleUndoBody": {"action": "done", "note": "Refunded by hand, receipt 7731."},
    "HoldBody": {"reason": "It sends everything twice today."},
    "ResetBody": {"note": "The vendor says it is mended."},
    "ResultBody": {"outcome": "succeeded", "result": {"report": "https://example.com/reports/7731.pdf"}},
    "DecisionBody": {"decision": "approve", "comment": "Looks right.", "revision": 1},
}


def install(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own documented way to extend the document


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Surefoot", version=version.installed(), description=DESCRIPTION, routes=app.routes, tags=app.openapi_tags
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, bodies = models_json_schema([(model, "validation") for model in REQUEST_MODELS.values()], ref_template=_REF)
    schemas.update(bodies.get("$defs", {}))
    for name, example in _EXAMPLES.items():
        schemas[name]["examples"] = [example]
    schemas["Problem"]["properties"]["code"]["enum"] = sorted(CATALOGUE)
    for operation in _operations(document):
        _correct_answers(operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["webhooks"] = _webhooks()
    schemas["Delivery"] = _delivery()
    return document


def _operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        operation for path in document["paths"].values() for operation in path.values() if isinstance(operation, dict)
    ]


def _correct_answers(operation: dict[str, Any]) -> None:
    """FastAPI adds a validation answer that is never given, and says application/json for every declared model."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status, response in responses.items():
        content = response.get("content", {})
        if int(status) >= 400 and "Problem" in str(content):
            response["content"] = {problems.MEDIA_TYPE: content["application/json"]}


def _webhooks() -> dict[str, Any]:
    def delivered(name: str) -> bool:
        return any(
            name == pattern or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
            for pattern in DEFAULT_WEBHOOK_EVENTS
        )

    return {name: {"post": _webhook(name, event.description)} for name, event in EVENTS.items() if delivered(name)}


def _webhook(name: str, description: str) -> dict[str, Any]:
    headers = {
        "webhook-id": "Id of the event, the same in every try: dedupe by it.",
        "webhook-timestamp": "Seconds since the epoch of this try.",
        "webhook-signature": "`v1,` and base64 of the HMAC-SHA256 (Standard Webhooks); several while rotating.",
    }
    return {
        "operationId": f"webhook_{name.replace('.', '_')}",
        "summary": description,
        "tags": ["webhooks"],
        "parameters": [
            {"name": header, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for header, text in headers.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model="Delivery")}}},
        },
        "responses": {
            "2XX": {"description": "Received."},
            "410": {"description": "Never again: the receiver is disabled."},
            "default": {"description": "Tried again later, in order."},
        },
    }


def _delivery() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "title": "Delivery",
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "description": "Name of the event; see docs/events.md."},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {
                "type": "object",
                "properties": {
                    "workflow_id": text,
                    "sequence": {"type": "integer", "description": "The event's seq; gaps are filtered events."},
                    "status": text,
                    "headline": text,
                    "step": {"type": ["string", "null"]},
                    "event": {"$ref": _REF.format(model="Event")},
                    "links": {"type": "object", "properties": {"workflow": text}},
                },
            },
        },
    }
