"""The demo tools: a calendar and a mailbox over HTTP, which keep books about what they really did.

    GET    /calendar/free_busy?email=   calendar.free_busy     read_only
    GET    /calendar/events             calendar.events        read_only
    POST   /calendar/events             calendar.create_event  keyed by Idempotency-Key: the same key, the same event
    DELETE /calendar/events?event_id=   calendar.delete_event  idempotent
    POST   /email/send                  email.send             at_most_once: every request is one more mail
    POST   /noop                        demo.noop              idempotent, answers {} at once (for the bench)

    GET  /ledger    every request received: {"data": [{"tool", "key", "arguments", "executed", "at", …}], "noops": n}
    POST /behave    misbehave (`tool_behaviour.py`) · GET: the rules · DELETE: none
    GET  /held · POST /release {"tool"?, "drop"?}     requests that a rule holds
    POST /reset     forget everything · GET /livez

What was executed once stays executed when the client hangs up: a request that arrived is carried out, as in any real
tool. State is rebuilt from the ledger file, so it survives `kill -9`. `python -m app.embedded.tools --port N
--port-file P --ledger FILE`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, Final

from app.embedded import wire
from app.embedded.tool_behaviour import Behaviour, Rule, read_rule
from app.embedded.tool_books import Books
from app.embedded.tool_declarations import declarations, noop_declaration
from app.embedded.tool_ledger import Entry, Ledger
from app.embedded.wire import Hangup, Reply, Request, json_reply

__all__ = ["Tools", "declarations", "main", "noop_declaration"]

_ROUTES: Final = {
    ("GET", "/calendar/free_busy"): "calendar.free_busy",
    ("GET", "/calendar/events"): "calendar.events",
    ("POST", "/calendar/events"): "calendar.create_event",
    ("DELETE", "/calendar/events"): "calendar.delete_event",
    ("POST", "/email/send"): "email.send",
}
_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "calendar.free_busy": ("email",),
    "calendar.events": (),
    "calendar.create_event": ("title", "start", "attendees"),
    "calendar.delete_event": ("event_id",),
    "email.send": ("to", "subject"),
}
_READS: Final = frozenset({"calendar.free_busy", "calendar.events"})
_NOTHING: Final = Reply(body=b"{}", headers={"content-type": "application/json"})


class Tools:
    """The tools behind their HTTP interface."""

    def __init__(self, *, ledger: Ledger, latency_ms: int = 0) -> None:
        self._ledger = ledger
        self._latency = latency_ms / 1000
        self._behaviour = Behaviour()
        self._noops = 0
        self._working: set[asyncio.Future[Reply]] = set()
        self._books = Books(ledger.entries)

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        if request.path == "/noop":
            self._noops += 1
            return _NOTHING
        tool = _ROUTES.get((request.method, request.path))
        if tool is None:
            return self._admin(request)
        try:
            arguments = dict(request.query) if request.method != "POST" else request.json()
        except ValueError as error:
            return json_reply({"error": f"the body is not JSON: {error}"}, status=400)
        if not isinstance(arguments, dict):
            return json_reply({"error": "the arguments are not a JSON object"}, status=400)
        work = asyncio.ensure_future(self._work(tool, arguments, request.headers))
        self._working.add(work)
        work.add_done_callback(self._done)
        # A client that goes away ends the waiting, not the work.
        return asyncio.shield(work)

    def _done(self, work: asyncio.Future[Reply]) -> None:
        self._working.discard(work)
        if not work.cancelled():
            work.exception()  # looked at, or asyncio complains about a hang-up that no client waited for

    async def _work(self, tool: str, arguments: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        rule = self._behaviour.take(tool, arguments)
        if self._latency:
            await asyncio.sleep(self._latency)
        if rule is not None and rule.when == "before":
            refused = await self._misbehave(rule, tool, arguments, headers, None)
            if refused is not None:
                self._ledger.note(_entry(tool, arguments, headers, executed=False, status=refused.status))
                return refused
        reply = await self._execute(tool, arguments, headers)
        if rule is not None and rule.when == "after":
            return await self._misbehave(rule, tool, arguments, headers, reply) or reply
        return reply

    async def _misbehave(
        self, rule: Rule, tool: str, arguments: dict[str, Any], headers: Mapping[str, str], reply: Reply | None
    ) -> Reply | None:
        """Carries out a rule; the answer it gives instead, if it gives one."""
        match rule.do:
            case "delay":
                await asyncio.sleep(rule.ms / 1000)
            case "hold":
                key = headers.get("idempotency-key")
                if not await self._behaviour.hold(tool=tool, key=key, arguments=arguments, when=rule.when):
                    raise Hangup
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "status":
                return json_reply(rule.body or {"error": "as told"}, status=rule.status, headers=rule.headers)
            case "drop_request" | "drop_reply":
                if reply is None:
                    self._ledger.note(_entry(tool, arguments, headers, executed=False, status=0))
                raise Hangup(reset=rule.reset)
            case "half" if reply is not None:
                return Reply(
                    body=reply.body[: len(reply.body) // 2], headers=reply.headers, claimed_length=len(reply.body)
                )
            case "garbage":
                return Reply(body=b"<html>upstream{", headers={"content-type": "application/json"})
        return None

    async def _execute(self, tool: str, arguments: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        """Does it, writes it down, and answers when it is on disk."""
        missing = [name for name in _NEEDED[tool] if not arguments.get(name)]
        if missing:
            self._ledger.note(_entry(tool, arguments, headers, executed=False, status=400))
            return json_reply({"error": f"missing: {', '.join(missing)}"}, status=400)
        if tool in _READS:
            reading = tool == "calendar.free_busy"
            books = self._books
            result = books.free_busy(arguments["email"], today=wire.instant()) if reading else books.events()
            self._ledger.note(_entry(tool, arguments, headers, executed=True, status=200))
            return json_reply(result)
        key = headers.get("idempotency-key") if tool == "calendar.create_event" else None
        before = self._books.answered(key)
        if before is not None:
            same = before["arguments"] == arguments
            await self._ledger.append(_entry(tool, arguments, headers, executed=False, status=200 if same else 422))
            if not same:
                return json_reply({"error": "this Idempotency-Key was used with other arguments"}, status=422)
            return json_reply(before["result"], headers={"idempotent-replayed": "true"})
        entry = _entry(tool, arguments, headers, executed=True, status=200)
        entry["result"], entry["executed"] = self._books.outcome(tool, arguments)
        self._books.apply(entry)
        await self._ledger.append(entry)
        return json_reply(entry["result"])

    def _admin(self, request: Request) -> Reply:
        match request.method, request.path:
            case "GET", "/livez":
                return json_reply({"status": "ok"})
            case "GET", "/ledger":
                wanted = {name: request.query[name] for name in ("tool", "key") if name in request.query}
                fit = [e for e in self._ledger.entries if all(e[name] == value for name, value in wanted.items())]
                return json_reply({"data": fit, "noops": self._noops})
            case "POST", "/behave":
                try:
                    self._behaviour.rules.append(read_rule(request.json()))
                except (ValueError, TypeError, AttributeError) as error:
                    return json_reply({"error": str(error)}, status=400)
                return json_reply({"data": list(self._behaviour.to_json())})
            case "GET", "/behave":
                return json_reply({"data": list(self._behaviour.to_json())})
            case "DELETE", "/behave":
                self._behaviour.rules.clear()
                return json_reply({"data": []})
            case "GET", "/held":
                return json_reply({"data": [held.to_json() for held in self._behaviour.held]})
            case "POST", "/release":
                told = request.json() or {}
                return json_reply({"released": self._behaviour.release(told.get("tool"), drop=bool(told.get("drop")))})
            case "POST", "/reset":
                self._behaviour.rules.clear()
                self._behaviour.release(None, drop=True)
                self._ledger.clear()
                self._noops = 0
                self._books = Books(())
                return json_reply({})
        return json_reply({"error": f"no such tool: {request.method} {request.path}"}, status=404)


def _entry(tool: str, arguments: dict[str, Any], headers: Mapping[str, str], *, executed: bool, status: int) -> Entry:
    return {
        "tool": tool,
        "key": headers.get("idempotency-key"),
        "arguments": arguments,
        "executed": executed,
        "status": status,
        "at": wire.instant(),
        "workflow": headers.get("surefoot-workflow"),
        "call": headers.get("surefoot-call"),
        "attempt": headers.get("surefoot-attempt"),
    }


def main() -> None:
    parser = wire.arguments("Surefoot's demo tools: a calendar and a mailbox that keep books.")
    parser.add_argument("--ledger", type=Path, help="file that keeps every request; without it memory only")
    options = parser.parse_args()
    tools = Tools(ledger=Ledger(options.ledger), latency_ms=options.latency_ms)
    wire.run(tools.handle, host=options.host, port=options.port, port_file=options.port_file)


if __name__ == "__main__":
    main()
