"""The demo's reports: accepted at once (202), finished a little later, then brought to whoever waits for them.

    Reports   what is known: which key asked for which report, and whether it is ready
    Courier   finishes a report and POSTs its result to `Surefoot-Result-Url` with `Surefoot-Result-Token` as the
              bearer token: {"outcome": "succeeded", "result": {…}} or {"outcome": "failed", "message": …}

A result that cannot be delivered is tried again for about a minute. A rule of `/behave` for `reports.result` gets in
its way: delay and hold (before the report is finished, or after it), hang, drop_request (never finished), drop_reply
(finished, never told), status (told as failed), half and garbage (told in a way nobody can read).

After a crash a report that was not finished stays so until its key is used again, as with real tools of this kind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.embedded import wire
from app.embedded.tool_behaviour import Behaviour, Rule
from app.embedded.tool_ledger import Entry, Ledger
from app.embedded.tool_routes import RENDER, RESULT

RENDERING: Final = 0.2
"""Seconds a report takes: long enough that the 202 is there first."""

PAUSES: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between two tries to deliver a result."""

_TIMEOUT: Final = 10.0
"""Seconds one try may take."""


class Reports:
    def __init__(self) -> None:
        self._reports: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str | None] = {}

    def outcome(self) -> dict[str, Any]:
        return {"report_id": f"rep_{len(self._reports) + 1}", "status": "rendering"}

    def apply(self, entry: Entry) -> None:
        report_id = entry["result"]["report_id"]
        if entry["tool"] == RENDER:
            self._keys[report_id] = entry["key"]
        self._reports[report_id] = entry["result"]

    def find(self, key: str) -> dict[str, Any]:
        return {"reports": [one for report_id, one in self._reports.items() if self._keys[report_id] == key]}

    def ready(self, report_id: str) -> bool:
        return bool(self._reports[report_id]["status"] == "ready")

    def finished(self, rendering: Entry) -> dict[str, Any]:
        """What the report of this request comes to."""
        title, report_id = rendering["arguments"]["title"], rendering["result"]["report_id"]
        return {
            "report_id": report_id,
            "status": "ready",
            "title": title,
            "url": f"https://reports.invalid/{report_id}",
        }


class Courier:
    """One task for each result on its way. `apply` puts an entry into the books."""

    def __init__(self, *, ledger: Ledger, behaviour: Behaviour, apply: Callable[[Entry], None]) -> None:
        self._ledger, self._behaviour, self._apply = ledger, behaviour, apply
        self._tasks: set[asyncio.Task[None]] = set()

    def carry(self, rendering: Entry, *, reports: Reports, url: str | None, token: str | None) -> None:
        """Finish this report and bring its result to `url`; nobody waits for it if there is none."""
        task = asyncio.get_running_loop().create_task(self._carry(rendering, reports, url, token))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _carry(self, rendering: Entry, reports: Reports, url: str | None, token: str | None) -> None:
        arguments, key = rendering["arguments"], rendering["key"]
        rule = self._behaviour.take(RESULT, arguments, named=True)
        await asyncio.sleep(RENDERING)
        if not await self._let_pass(rule, "before", arguments, key):
            return
        result = reports.finished(rendering)
        if not reports.ready(result["report_id"]):
            finished = _entry(rendering, result=result, executed=True, status=0)
            self._apply(finished)
            await self._ledger.append(finished)
        if await self._let_pass(rule, "after", arguments, key) and url is not None:
            status = await _deliver(url, token, _told(rule, result))
            self._ledger.note(_entry(rendering, result=None, executed=False, status=status))

    async def _let_pass(self, rule: Rule | None, when: str, arguments: Mapping[str, Any], key: str | None) -> bool:
        """Carry out what a rule says about this moment; False if the result goes no further."""
        if rule is None or rule.when != when:
            return True
        match rule.do:
            case "delay":
                await asyncio.sleep(rule.ms / 1000)
            case "hold":
                return await self._behaviour.hold(tool=RESULT, key=key, arguments=arguments, when=when)
            case "hang" | "drop_request" | "drop_reply":
                return False
        return True


def _told(rule: Rule | None, result: Mapping[str, Any]) -> bytes:
    whole = json.dumps({"outcome": "succeeded", "result": result}).encode()
    match rule.do if rule is not None else None:
        case "status":
            return json.dumps({"outcome": "failed", "message": "The report could not be rendered."}).encode()
        case "half":
            return whole[: len(whole) // 2]
        case "garbage":
            return b"<html>upstream{"
    return whole


async def _deliver(url: str, token: str | None, body: bytes) -> int:
    """The status of the answer that ended it; 0 if there never was one."""
    import httpx  # a tenth of a second that the start of the tools need not wait for

    headers = {"content-type": "application/json", "authorization": f"Bearer {token or ''}"}
    status = 0
    # trust_env: a proxy of the machine's owner is not asked to carry what stays on this machine.
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
        for pause in (*PAUSES, 0.0):
            try:
                status = (await client.post(url, content=body, headers=headers)).status_code
            except httpx.HTTPError:
                status = 0
            if 0 < status < 500:
                return status
            await asyncio.sleep(pause)
    return status


def _entry(rendering: Entry, *, result: Any, executed: bool, status: int) -> Entry:
    """A line about a result. It is no request, so it names no workflow or call as its sender."""
    line: Entry = {
        "tool": RESULT,
        "key": rendering["key"],
        "arguments": rendering["arguments"],
        "executed": executed,
        "status": status,
        "at": wire.instant(),
        "workflow": None,
        "call": None,
        "attempt": None,
        "for_call": rendering["call"],
    }
    return line if result is None else {**line, "result": result}
