"""A shape becomes a response: JSON bytes, a strong ETag on every GET, 304 if the client has it already.

Serialised once by pydantic's own serializer; text that UTF-8 cannot carry (a lone surrogate in a tool's reply) goes
out as a JSON escape instead of failing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from fastapi import Request
from pydantic_core import PydanticSerializationError
from starlette.responses import Response

from app.api import preferences
from app.api.shapes.values import JSON, Shape

JSON_TYPE: Final = "application/json"
_NO_STORE: Final = {"Cache-Control": "no-store"}
"""Caches between us and the client keep nothing; the client itself may revalidate by ETag."""


def answer(
    request: Request,
    shape: Shape,
    *,
    status: int = 200,
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = json_bytes(shape)
    more = dict(headers or {})
    if request.method == "GET" and status == 200:
        tag = etag or f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        more |= {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Accept"}
        if preferences.known_etag(request.headers, tag):
            return Response(status_code=304, headers=more)
        return Response(body, media_type=JSON_TYPE, headers=more)
    return Response(body, status_code=status, media_type=JSON_TYPE, headers=_NO_STORE | more)


def json_bytes(shape: Shape) -> bytes:
    try:
        return shape.model_dump_json(by_alias=True).encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        return json.dumps(shape.model_dump(mode="python", by_alias=True), default=_plain).encode("ascii")


def next_link(request: Request, **changed: str) -> dict[str, str]:
    """`Link: <…>; rel="next"` for a page: this request's path and query with the cursor in it."""
    query = [(name, value) for name, value in request.query_params.multi_items() if name not in changed]
    return {"Link": f'<{request.url.path}?{urlencode([*query, *changed.items()])}>; rel="next"'}


def _plain(value: object) -> JSON:
    isoformat = getattr(value, "isoformat", None)
    if isoformat is None:
        raise TypeError(f"{type(value).__name__} is not JSON")
    return isoformat().replace("+00:00", "Z")
