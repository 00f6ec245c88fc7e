"""Tool declarations and requests for the tests of the HTTP tools, written as a definition writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.domain.plan import HttpTool, Tool
from app.domain.states import EffectClass
from app.domain.templates import compile_template
from app.ports.world import ToolRequest

NAMES = frozenset({"arguments", "secrets"})
HEADERS = {
    "Surefoot-Workflow": "wf_1",
    "Surefoot-Call": "call_1",
    "Surefoot-Attempt": "att_1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


def http(
    url: str,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    path: Mapping[str, str] | None = None,
    query: Any = None,
    body: Any = None,
) -> HttpTool:
    def compiled(value: Any) -> Any:
        return compile_template(value, names=NAMES)

    return HttpTool(
        method=method,
        url=compiled(url),
        headers={name: compiled(value) for name, value in (headers or {}).items()},
        path=None if path is None else {name: compiled(value) for name, value in path.items()},
        query=None if query is None else compiled(query),
        body=None if body is None else compiled(body),
    )


def call(
    declared: HttpTool,
    arguments: Mapping[str, Any] | None = None,
    *,
    effect: EffectClass = EffectClass.IDEMPOTENT,
    key: str | None = None,
    key_header: str | None = None,
    key_argument: str | None = None,
    on_5xx: str = "unknown",
    on_3xx: str = "unknown",
    on_408: str = "unknown",
    on_202: str = "succeeded",
    result_url: str | None = None,
    result_token: str | None = None,
) -> ToolRequest:
    if effect is EffectClass.KEYED and key is None:
        key, key_header = "key-1", "Idempotency-Key"
    tool = Tool(
        name="calendar.create_event",
        description="Book one event.",
        input_schema=None,
        http=declared,
        effect=effect,
        key_header=key_header,
        key_argument=key_argument,
        key_ttl=None,
        timeout=timedelta(seconds=5),
        settle_time=timedelta(seconds=10),
        on_repeat="ask",
        on_5xx=on_5xx,
        on_3xx=on_3xx,
        on_408=on_408,
        on_202=on_202,
    )
    return ToolRequest(
        tool=tool,
        arguments=arguments or {},
        key=key,
        headers=HEADERS,
        fresh_connection=effect in (EffectClass.AT_MOST_ONCE, EffectClass.CHECKABLE),
        result_url=result_url,
        result_token=result_token,
    )
