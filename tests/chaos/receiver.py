"""A webhook receiver with a fsynced ledger of every byte it was sent, that misbehaves by plan. A process of its own.

What it does with a delivery follows from the seed and the delivery's id, and only at its first arrival: 503, a reset
after it was taken, an answer later than anybody waits for, or a slow one. The second arrival is always taken: the
pause after two failures is longer than a run.

`python -m tests.chaos.receiver --port-file P --ledger FILE --seed N [--hang SECONDS]`
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from app.embedded import wire
from app.embedded.tool_ledger import Ledger
from app.embedded.wire import Hangup, Reply, Request
from tests.chaos.oracle.ledgers import Receipt
from tests.chaos.waiting import moment

_SHARES: Final = (("503", 15), ("reset", 15), ("hang", 4), ("slow", 40))
"""Per mille of the deliveries: a stream waits six seconds after each that failed, and has some thirty events."""


class Receiver:
    def __init__(self, ledger: Ledger, *, seed: int, hang: float) -> None:
        self._ledger, self._seed, self._hang = ledger, seed, hang
        self._seen = {entry["id"] for entry in ledger.entries}

    async def handle(self, request: Request) -> Reply:
        name = request.headers.get("webhook-id", "")
        first = name not in self._seen
        self._seen.add(name)
        how = self._behaviour(name) if first else "take"
        if how == "slow":
            await moment(0.8)
        # `reset`: taken, and nobody is told so.
        status = {"503": 503, "reset": 0, "hang": 0}.get(how, 204)
        await self._ledger.append(_entry(name, request, status=status))
        match how:
            case "503":
                return Reply(status=503)
            case "reset":
                raise Hangup(reset=True)
            case "hang":
                await moment(self._hang)
        return Reply(status=204)

    def _behaviour(self, name: str) -> str:
        draw = int.from_bytes(sha256(f"{self._seed}/{name}".encode()).digest()[:4], "big") % 1000
        for how, share in _SHARES:
            if draw < share:
                return how
            draw -= share
        return "take"


def _entry(name: str, request: Request, *, status: int) -> dict[str, Any]:
    return {
        "id": name,
        "status": status,
        "at": datetime.now(UTC).isoformat(),
        "headers": {
            name: value for name, value in request.headers.items() if name.startswith(("webhook-", "surefoot"))
        },
        "body": base64.b64encode(request.body).decode(),
    }


def read_receipts(path: Path) -> Sequence[Receipt]:
    """The receiver's ledger, in the order of arrival."""
    return list(_receipts(path))


def _receipts(path: Path) -> Iterator[Receipt]:
    whole = path.read_bytes()
    for line in whole[: whole.rfind(b"\n") + 1].splitlines():
        entry = json.loads(line)
        yield Receipt(
            id=entry["id"],
            body=base64.b64decode(entry["body"]),
            headers=entry["headers"],
            status=entry["status"],
            at=datetime.fromisoformat(entry["at"]),
        )


def main() -> None:
    parser = wire.arguments("A webhook receiver that misbehaves by plan.")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--hang", type=float, default=8.0)
    options = parser.parse_args()
    receiver = Receiver(Ledger(options.ledger), seed=options.seed, hang=options.hang)
    wire.run(receiver.handle, host=options.host, port=options.port, port_file=options.port_file)


if __name__ == "__main__":
    main()
