"""The demo tools: calendar, mailbox, bank and reports over HTTP, which keep books about what they really did.

    GET    /calendar/free_busy?email=          calendar.free_busy     read_only
    GET    /calendar/events                    calendar.events        read_only
    GET    /calendar/find?title=&start=&key=   calendar.find_event    read_only
    POST   /calendar/events                    calendar.create_event  keyed
    DELETE /calendar/events?event_id=          calendar.delete_event  idempotent
    POST   /email/send                         email.send             every request is one more mail: checkable, or
                                                                      at_most_once for who does not ask afterwards
    GET    /email/search?to=&subject=&body=    email.search           read_only (`mine=true`: of the asking workflow)
    POST   /payments/authorizations            payments.authorize     keyed
    GET    /payments/fraud_check               payments.fraud_check   read_only
    POST   /payments/settlements               payments.settle        keyed
    DELETE /payments/authorizations            payments.void          idempotent
    POST   /payments/refunds                   payments.refund        keyed
    GET    /payments/reconcile · /payments/find                       read_only
    POST   /reports/render                     reports.render         keyed, answers 202, brings its result later
    GET    /reports/find?key=                  reports.find           read_only
    POST   /noop                               demo.noop              idempotent, answers {} at once (for the bench)

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
from app.embedded.tool_payments import Refused
from app.embedded.tool_reports import Courier
from app.embedded.tool_routes import KEYED, NEEDED, READS, RENDER, ROUTES, STATUS
from app.embedded.wire import Hangup, Reply, Request, json_reply

__all__ = ["Tools", "declarations", "main", "noop_declaration"]

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
        self._courier = self._new_courier()

    def _new_courier(self) -> Courier:
        return Courier(ledger=self._ledger, behaviour=self._behaviour, apply=self._books.apply)

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        if request.path == "/noop":
            self._noops += 1
            return _NOTHING
        tool = ROUTES.get((request.method, request.path))
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
        missing = [name for name in NEEDED.get(tool, ()) if not arguments.get(name)]
        if missing:
            return self._refuse(tool, arguments, headers, Refused(400, f"missing: {', '.join(missing)}"))
        try:
            if tool in READS:
                result = self._books.read(
                    tool, arguments, workflow=headers.get("surefoot-workflow"), today=wire.instant()
                )
                self._ledger.note(_entry(tool, arguments, headers, executed=True, status=200))
                return json_reply(result)
            before = self._books.answered(tool, headers.get("idempotency-key") if tool in KEYED else None)
            if before is not None:
                return await self._replay(before, arguments, headers)
            entry = _entry(tool, arguments, headers, executed=True, status=STATUS.get(tool, 200))
            entry["result"], entry["executed"] = self._books.outcome(tool, arguments)
        except Refused as refused:
            return self._refuse(tool, arguments, headers, refused)
        self._books.apply(entry)
        await self._ledger.append(entry)
        return self._answer(entry, headers)

    async def _replay(self, before: Entry, arguments: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        """The key has been used: the answer of then, or 422 if something else is asked for now."""
        tool, same = before["tool"], before["arguments"] == arguments
        status = before["status"] if same else 422
        await self._ledger.append(_entry(tool, arguments, headers, executed=False, status=status))
        if not same:
            return json_reply({"error": "this Idempotency-Key was used with other arguments"}, status=422)
        reply = self._answer(before, headers)
        return Reply(status=reply.status, body=reply.body, headers={**reply.headers, "idempotent-replayed": "true"})

    def _answer(self, entry: Entry, headers: Mapping[str, str]) -> Reply:
        if entry["tool"] == RENDER:
            url, token = headers.get("surefoot-result-url"), headers.get("surefoot-result-token")
            self._courier.carry(entry, reports=self._books.reports, url=url, token=token)
        return json_reply(entry["result"], status=entry["status"])

    def _refuse(self, tool: str, arguments: dict[str, Any], headers: Mapping[str, str], refused: Refused) -> Reply:
        self._ledger.note(_entry(tool, arguments, headers, executed=False, status=refused.status))
        return json_reply({"error": refused.error}, status=refused.status)

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
                self._courier.forget()
                self._books = Books(())
                self._courier = self._new_courier()
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
    parser = wire.arguments("Surefoot's demo tools: calendar, mailbox, bank and reports that keep books.")
    parser.add_argument("--ledger", type=Path, help="file that keeps every request; without it memory only")
    options = parser.parse_args()
    tools = Tools(ledger=Ledger(options.ledger), latency_ms=options.latency_ms)
    wire.run(tools.handle, host=options.host, port=options.port, port_file=options.port_file)


if __name__ == "__main__":
    main()
