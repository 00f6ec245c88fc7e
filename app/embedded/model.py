"""The scripted model: a stand-in for the Messages API over real HTTP, for the demo and the tests.

    POST /v1/messages                 streamed or whole
    POST /v1/messages/count_tokens · GET /v1/models · GET /v1/models/{id}
    GET  /ledger    every request: {"data": [{"hash", "model", "status", "input_tokens", "output_tokens", "at", …}]}
    POST /behave    {"fail": {…}, "times": n}: the next n requests fail so, whoever sends them · DELETE: no more
    POST /reset · GET /livez

It is strict where the real API is strict (`model_rules.py`), answers by scenario (`model_scenarios.py`) and can fail
in every way the real one can (`model_reply.py`). Answers follow from the conversation alone; only the failures of
"the first k requests" are counted, in memory, by the hash of the messages. It never pretends to be a model.
`python -m app.embedded.model --port N --port-file P [--latency-ms 300]`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from app.embedded import model_reply, model_rules, wire
from app.embedded.model_rules import ModelRequest, Refused
from app.embedded.model_scenarios import Script, script
from app.embedded.wire import Reply, Request, json_reply

LATENCY_MS: Final = 300
"""How long an answer takes unless told otherwise: enough to look real in the demo."""

MODELS: Final = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-2")

_IDS: Final = {"workflow": "surefoot-workflow", "call": "surefoot-call", "attempt": "surefoot-attempt"}


class ScriptedModel:
    def __init__(self, *, latency_ms: int = 0) -> None:
        self._latency_ms = latency_ms
        self._seen: Counter[str] = Counter()
        """Requests by hash of their conversation: which of its failures is next."""
        self._told: list[dict[str, Any]] = []
        self._ledger: list[dict[str, Any]] = []

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
        number = len(self._ledger) + 1
        request_id = f"req_scripted{number:06d}"
        entry = {"at": wire.instant(), "request_id": request_id, "status": 200, "failure": None}
        entry |= {name: request.headers.get(header) for name, header in _IDS.items()}
        self._ledger.append(entry)
        try:
            asked = model_rules.read_request(request.headers, request.body)
            answer = script(asked)
        except Refused as refused:
            entry |= {"status": refused.status, "message": refused.message}
            return model_reply.error_reply(refused, request_id=request_id)
        failure = self._next_failure(asked, answer)
        answer = model_reply.altered(answer, failure)
        message = model_reply.message_of(asked, answer, number=number)
        entry |= {
            "hash": asked.digest,
            "model": asked.body["model"],
            "stream": bool(asked.body.get("stream")),
            "input_tokens": asked.input_tokens,
            "output_tokens": message["usage"]["output_tokens"],
            "stop_reason": answer.stop_reason,
            "failure": failure or None,
        }
        seconds = (self._latency_ms if answer.latency_ms is None else answer.latency_ms) / 1000
        broken = model_reply.failed(failure, request_id=request_id)
        if broken is not None:
            entry["status"] = broken.status
            await asyncio.sleep(seconds * model_reply.FIRST_TOKEN)
            return broken
        headers = {"request-id": request_id, "anthropic-organization-id": "org_scripted"}
        if not asked.body.get("stream"):
            await asyncio.sleep(seconds)
            return json_reply(message, headers=headers)
        events = model_reply.stream(message, seconds=seconds, failure=failure)
        return Reply(
            headers={**headers, "content-type": "text/event-stream", "cache-control": "no-cache"}, stream=events
        )

    def _next_failure(self, asked: ModelRequest, answer: Script) -> Mapping[str, Any]:
        """What goes wrong with this request; empty if nothing does. What was posted comes before what is scripted."""
        if self._told:
            told = self._told[0]
            told["times"] -= 1
            if told["times"] <= 0:
                self._told.pop(0)
            return dict(told["fail"])
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
            case "POST", "/behave":
                try:
                    posted = request.json()
                    self._told.append({"fail": dict(posted["fail"]), "times": int(posted.get("times", 1))})
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    return json_reply({"error": f'post {{"fail": {{…}}, "times": n}}: {error}'}, status=400)
                return json_reply({"data": self._told})
            case "DELETE", "/behave":
                self._told.clear()
                return json_reply({"data": []})
            case "POST", "/reset":
                self._told.clear()
                self._seen.clear()
                self._ledger.clear()
                return json_reply({})
        refused = Refused(404, "not_found_error", f"no such path: {request.method} {request.path}")
        return model_reply.error_reply(refused, request_id="req_scripted")


def _model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": f"{name} (scripted)",
        "created_at": "2026-01-01T00:00:00Z",
        "max_input_tokens": model_rules.WINDOW,
        "max_tokens": model_rules.MAX_OUTPUT,
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
