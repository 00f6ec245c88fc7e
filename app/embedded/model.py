"""The scripted model: a stand-in for the Messages API over real HTTP, for the demo and the tests.

    POST /v1/messages                 streamed or whole
    POST /v1/messages/count_tokens · GET /v1/models · GET /v1/models/{id}
    GET  /ledger            every request: {"data": [{"request_id", "model", "hash", "bytes", "max_tokens", "status",
                            "stop_reason", "input_tokens", "output_tokens", "disconnected", "at", …}]}
    GET  /requests/{id}     the body of one of the last requests, as it came
    POST /behave            {"fail": {…}, "times": n, "where": {…}} or {"limits": {…}} (`model_orders.py`) · DELETE
    POST /reset · GET /livez

It is strict where the real API is strict (`model_rules.py`), answers by scenario (`model_scenarios.py`), is cut where
the real one is cut (`model_cutting.py`) and can fail in every way the real one can (`model_reply.py`). Answers follow
from the conversation alone; only the failures of "the first k requests" are counted, in memory, by the hash of the
messages. It never pretends to be a model.
`python -m app.embedded.model --port N --port-file P [--latency-ms 300]`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Mapping
from hashlib import sha256
from typing import Any, Final

from app.domain import model_facts
from app.embedded import model_cutting, model_reply, model_rules, wire
from app.embedded.model_limits import Limited, RateLimits
from app.embedded.model_orders import Orders
from app.embedded.model_rules import ModelRequest, Refused
from app.embedded.model_scenarios import Script, script
from app.embedded.model_usage import PromptCache
from app.embedded.wire import Reply, Request, json_reply

LATENCY_MS: Final = 300
"""How long an answer takes unless told otherwise: enough to look real in the demo."""

MODELS: Final = (
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-fable-5-2",
    "claude-scripted-small",
)

BODIES: Final = 500
"""Requests whose bodies are kept: those of the last minutes of a test."""
BODY_MOST: Final = 256 * 1024
"""Bytes of a body that is kept: 500 of them are 128 MB at worst, usually two."""

_IDS: Final = {"workflow": "surefoot-workflow", "call": "surefoot-call", "attempt": "surefoot-attempt"}


class ScriptedModel:
    def __init__(self, *, latency_ms: int = 0, limits: RateLimits | None = None) -> None:
        self._latency_ms = latency_ms
        self._seen: Counter[str] = Counter()
        """Requests by hash of their conversation: which of its failures is next."""
        self._limits = limits or RateLimits()
        self._orders = Orders()
        self._cache = PromptCache()
        self._ledger: list[dict[str, Any]] = []
        self._bodies: deque[tuple[str, bytes]] = deque(maxlen=BODIES)

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        match request.method, request.path:
            case "POST", "/v1/messages":
                return self._messages(request)
            case "POST", "/v1/messages/count_tokens":
                return self._count_tokens(request)
            case "GET", "/v1/models":
                return json_reply({"data": [_model(name) for name in MODELS], "has_more": False})
            case "GET", path if path.removeprefix("/v1/models/") in MODELS:
                return json_reply(_model(path.removeprefix("/v1/models/")))
        return self._admin(request)

    async def _messages(self, request: Request) -> Reply:
        entry = self._entry(request)
        try:
            return await self._answer(request, entry)
        except asyncio.CancelledError:
            entry["disconnected"] = wire.instant()
            raise

    def _entry(self, request: Request) -> dict[str, Any]:
        entry: dict[str, Any] = {"at": wire.instant(), "request_id": f"req_scripted{len(self._ledger) + 1:06d}"}
        entry |= {"status": 200, "failure": None, "disconnected": None, "bytes": sha256(request.body).hexdigest()}
        entry |= {name: request.headers.get(header) for name, header in _IDS.items()}
        self._ledger.append(entry)
        if len(request.body) <= BODY_MOST:
            self._bodies.append((entry["request_id"], request.body))
        return entry

    async def _answer(self, request: Request, entry: dict[str, Any]) -> Reply:
        request_id = entry["request_id"]
        headers = {"request-id": request_id}
        try:
            asked = model_rules.read_request(request.headers, request.body)
            model = str(asked.body["model"])
            entry |= {"hash": asked.digest, "model": model, "stream": bool(asked.body.get("stream"))}
            entry |= {"max_tokens": asked.body["max_tokens"], "input_tokens": asked.input_tokens}
            answer = script(asked)
            self._limits.admit(model, input_tokens=asked.input_tokens)
        except Limited as limited:
            entry |= {"status": limited.status, "message": limited.message}
            told = {"retry_after": limited.retry_after}
            named = self._limits.headers(entry["model"])
            return model_reply.error_reply(limited, request_id=request_id, told=told, headers=named)
        except Refused as refused:
            entry |= {"status": refused.status, "message": refused.message}
            return model_reply.error_reply(refused, request_id=request_id)
        failure = self._next_failure(request, asked, answer)
        answer = model_cutting.fitted(asked, model_reply.altered(answer, failure))
        message = model_reply.message_of(asked, answer, number=len(self._ledger), prompt=self._cache.usage(asked))
        written = message["usage"]["output_tokens"]
        entry |= {"output_tokens": written, "stop_reason": answer.stop_reason, "failure": failure or None}
        self._limits.answered(model, output_tokens=written)
        headers |= {"anthropic-organization-id": "org_scripted", **self._limits.headers(model)}
        seconds = (self._latency_ms if answer.latency_ms is None else answer.latency_ms) / 1000
        broken = model_reply.failed(failure, request_id=request_id)
        if broken is not None:
            entry["status"] = broken.status
            await asyncio.sleep(seconds * model_reply.FIRST_TOKEN)
            return broken
        if not asked.body.get("stream"):
            await asyncio.sleep(seconds)
            return json_reply(message, headers=headers)
        events = model_reply.stream(message, seconds=seconds, failure=failure, half=answer.half)
        headers |= {"content-type": "text/event-stream", "cache-control": "no-cache"}
        return Reply(headers=headers, stream=_watched(events, entry))

    def _next_failure(self, request: Request, asked: ModelRequest, answer: Script) -> Mapping[str, Any]:
        """What goes wrong with this request; empty if nothing does. What was posted comes before what is scripted."""
        told = self._orders.next_for(request, model=asked.body["model"])
        if told is not None:
            return told
        before = self._seen[asked.digest]
        self._seen[asked.digest] += 1
        return answer.fail[before] if before < len(answer.fail) else {}

    def _count_tokens(self, request: Request) -> Reply:
        try:
            body = {"max_tokens": 1, **json.loads(request.body)}
            asked = model_rules.read_request(request.headers, json.dumps(body).encode())
        except Refused as refused:
            return model_reply.error_reply(refused, request_id="req_scripted")
        except (ValueError, TypeError) as error:
            return model_reply.error_reply(Refused(400, "invalid_request_error", str(error)), request_id="req_scripted")
        return json_reply({"input_tokens": asked.input_tokens})

    def _admin(self, request: Request) -> Reply:
        match request.method, request.path:
            case "GET", "/livez":
                return json_reply({"status": "ok"})
            case "GET", "/ledger":
                return json_reply({"data": self._ledger})
            case "GET", path if path.startswith("/requests/"):
                body = dict(self._bodies).get(path.removeprefix("/requests/"))
                if body is not None:
                    return Reply(body=body, headers={"content-type": "application/json"})
            case "POST", "/behave":
                return self._behave(request)
            case "DELETE", "/behave":
                self._orders.clear()
                self._limits.clear()
                return json_reply({"data": []})
            case "POST", "/reset":
                self._orders.clear()
                self._limits.clear()
                self._seen.clear()
                self._ledger.clear()
                self._bodies.clear()
                return json_reply({})
        refused = Refused(404, "not_found_error", f"no such path: {request.method} {request.path}")
        return model_reply.error_reply(refused, request_id="req_scripted")

    def _behave(self, request: Request) -> Reply:
        try:
            posted = request.json()
            if "limits" in posted:
                self._limits.limit(posted["limits"])
            else:
                self._orders.post(posted)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wanted = 'post {"fail": {…}, "times": n, "where": {…}} or {"limits": {"model": …, "requests": n}}'
            return json_reply({"error": f"{wanted}: {error}"}, status=400)
        return json_reply({"data": self._orders.told})


async def _watched(events: AsyncIterator[bytes], entry: dict[str, Any]) -> AsyncIterator[bytes]:
    """The same events; a client that hangs up before the end is written down."""
    try:
        async for event in events:
            yield event
    except asyncio.CancelledError:
        entry["disconnected"] = wire.instant()
        raise


def _model(name: str) -> dict[str, Any]:
    facts = model_facts.facts(name)
    return {
        "type": "model",
        "id": name,
        "display_name": f"{name} (scripted)",
        "created_at": "2026-01-01T00:00:00Z",
        "max_input_tokens": facts.window,
        "max_tokens": facts.max_output,
        "lifecycle": "active",
    }


def main() -> None:
    parser = wire.arguments("A scripted stand-in for the Messages API. It is not a model.")
    parser.set_defaults(latency_ms=LATENCY_MS)
    options = parser.parse_args()
    model = ScriptedModel(latency_ms=options.latency_ms)
    wire.run(model.handle, host=options.host, port=options.port, port_file=options.port_file)


if __name__ == "__main__":
    main()
