"""Pieces of OpenAPI that FastAPI cannot know: bodies that are read by our own parser, headers, problem answers."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from app.api.shapes.problem import Problem

_WHEN: Final = {
    400: "The request cannot be read.",
    401: "No valid API key or token.",
    403: "The key lacks the scope.",
    404: "Nothing here with that id.",
    409: "The state of things does not allow it now.",
    410: "Too late.",
    413: "The body is too large.",
    415: "Another Content-Type is needed.",
    422: "A value is not allowed.",
    503: "The database does not answer; repeat after Retry-After.",
}

REQUEST_MODELS: Final[dict[str, type[BaseModel]]] = {}
"""Models of bodies, by name: filled by `accepts` while the routes are declared, read by `app/api/openapi.py`."""


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _WHEN[status]} for status in statuses}


def accepts(model: type[BaseModel], *, key: str | None, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads `model` as its JSON body. `key`: is an Idempotency-Key `required`,
    `accepted`, or (None) none of its concern?"""
    REQUEST_MODELS[model.__name__] = model
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    reads = {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
    if key is None:
        return reads
    return {
        **reads,
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": key == "required",
                "description": "Your own id of this request: 1 to 255 printable ASCII characters, bare or quoted.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 257},
                "example": "order-7731",
            }
        ],
    }
