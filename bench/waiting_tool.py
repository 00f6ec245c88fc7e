"""A tool that waits: `POST /wait/<ms>` answers {} after so many milliseconds, and every arrival is written down.

    POST /wait/<ms>   {} after <ms> milliseconds; 0: at once
    GET  /ledger      {"arrivals": {"call_…": [seconds since 1970, …]}}: each request by the call it names
    DELETE /ledger    forget them

The benches' witness: what arrived, when and how often is known here and nowhere else. In memory: it is never killed.
`python -m bench.waiting_tool --port 0 --port-file P`.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable
from typing import Any, Final

from app.embedded import wire
from app.embedded.wire import Reply, Request, json_reply

WORK: Final = "/wait/"

_NOTHING: Final = Reply(body=b"{}", headers={"content-type": "application/json"})


def declaration(base_url: str, *, ms: int, effect: str = "idempotent", timeout: str = "60s") -> dict[str, Any]:
    """This tool as a definition declares it."""
    declared: dict[str, Any] = {
        "description": f"Do nothing for {ms} ms.",
        "http": {"method": "POST", "url": f"{base_url}{WORK}{ms}"},
        "effect": effect,
        "timeout": timeout,
    }
    if effect == "keyed":
        declared |= {"key_header": "Idempotency-Key", "key_ttl": "24h"}
    return declared


class WaitingTool:
    def __init__(self) -> None:
        self._arrivals: defaultdict[str, list[float]] = defaultdict(list)

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        if request.path.startswith(WORK):
            self._arrivals[request.headers.get("surefoot-call", "")].append(time.time())
            ms = int(request.path.removeprefix(WORK))
            return self._wait(ms / 1000) if ms else _NOTHING
        match request.method, request.path:
            case "GET", "/ledger":
                return json_reply({"arrivals": self._arrivals})
            case "DELETE", "/ledger":
                self._arrivals.clear()
                return json_reply({})
        return json_reply({"error": "no such path"}, status=404)

    async def _wait(self, seconds: float) -> Reply:
        await asyncio.sleep(seconds)
        return _NOTHING


def main() -> None:
    options = wire.arguments("A tool that waits, for the benches.").parse_args()
    wire.run(WaitingTool().handle, host=options.host, port=options.port, port_file=options.port_file)


if __name__ == "__main__":
    main()
