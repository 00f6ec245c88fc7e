"""The bench of recovery: how soon the calls of a killed worker run again, and whether clean restarts leave doubts.

    python -m bench.recovery [--kills 20] [--restarts 20]

1. Kills: `surefoot up` with its default settings and two workers; reads (safe to repeat) are kept in flight, a worker
   gets SIGKILL, and for each call it had on the wire: from the kill to the next attempt's intent, by the database's
   clock. Nothing is measured that the supervisor would not do in production.
2. Restarts: bookings (keyed) and mails (never repeated) are kept in flight while the workers are restarted one after
   the other with SIGTERM. Afterwards every workflow must have succeeded, nothing may be in doubt, no worker lost, and
   the tools' own ledger shows every mail and booking once.

Exits 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import psycopg

from app.domain import ids

P50_SECONDS: Final = 2.0
P99_SECONDS: Final = 5.0

READ_MS: Final = 4000
"""A read takes so long that a kill always finds some on the wire."""
MAIL_MS: Final = 400
IN_FLIGHT: Final = 12
BETWEEN: Final = 8.0
"""Seconds between two ends of the same worker: a supervisor gives up a child that dies five times in 30 s."""
WITHIN: Final = 60.0
_POLL: Final = 0.05


class Up:
    """One `surefoot up`, as anybody starts it."""

    def __init__(self, ready_file: Path) -> None:
        self._file = ready_file
        self.http = httpx.Client(
            base_url=self.ready["url"],
            headers={"Authorization": f"Bearer {self.ready['key']}"},
            trust_env=False,
            timeout=30,
        )
        self.tools = httpx.Client(base_url=self.ready["tools_url"], trust_env=False, timeout=30)

    @property
    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_text())
        return found

    def submit(self, tools: list[str]) -> UUID:
        """A workflow that calls these tools one after the other."""
        tag = uuid4().hex[:12]
        steps: dict[str, Any] = {}
        for n, name in enumerate(tools):
            steps[f"s{n}"] = {"tool": name, "with": ARGUMENTS[name], "needs": [f"s{n - 1}"] if n else []}
        body = {"definition": {"name": "bench-recovery", "input": {"tag": {"type": "string"}}, "steps": steps}}
        body["definition"]["tools"] = {"mail": self._mail()}
        answer = self.http.post(
            "/v1/workflows", json={**body, "input": {"tag": tag}}, headers={"Idempotency-Key": uuid4().hex}
        )
        if answer.status_code != 202:
            raise SystemExit(f"bench: the API refused a workflow: {answer.text}")
        return ids.decode("wf", answer.json()["id"])

    def _mail(self) -> dict[str, Any]:
        url = self.ready["tools_url"] + "/email/send"
        return {"description": "Send a mail.", "http": {"method": "POST", "url": url}, "effect": "at_most_once"}

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.ready["database_url"], autocommit=True) as connection:
            return connection.execute(sql, parameters).fetchall()

    def end(self, name: str, number: signal.Signals) -> None:
        """Send it, and wait until another process of that name is at work."""
        pid = self.ready["pids"][name]
        os.kill(pid, number)
        _await(f"{name} is back", lambda: self.ready["pids"].get(name) not in (None, pid))


ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "calendar.free_busy": {"email": "${{ input.tag }}@x.io"},
    "calendar.create_event": {
        "title": "${{ input.tag }}",
        "start": "2026-12-01T10:00:00Z",
        "attendees": ["ana@x.io"],
    },
    "mail": {"to": "ana@x.io", "subject": "${{ input.tag }}"},
}

_AT_WORK: Final = """
SELECT count(*) FROM attempts a JOIN workers w ON w.id = a.worker
WHERE w.name = %(worker)s AND a.outcome IS NULL AND a.lost_at IS NULL AND w.lost_at IS NULL"""

_OPEN: Final = "SELECT count(*) FROM workflows WHERE ended_at IS NULL"

_AGAIN: Final = """
SELECT extract(epoch FROM min(b.intended_at) - %(at)s)::float8
FROM attempts a JOIN workers w ON w.id = a.worker
LEFT JOIN attempts b ON b.workflow_id = a.workflow_id AND b.call_id = a.call_id AND b.n > a.n
WHERE w.name = %(worker)s AND a.lost_at > %(at)s AND a.intended_at < %(at)s
GROUP BY a.workflow_id, a.call_id"""


def _await(what: str, condition: Any, *, seconds: float = WITHIN) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"bench: waited {seconds:.0f} s in vain: {what}")
        time.sleep(_POLL)


@contextmanager
def running() -> Iterator[Up]:
    with tempfile.TemporaryDirectory() as folder:
        ready, log = Path(folder) / "ready.json", Path(folder) / "up.log"
        own = {n: v for n, v in os.environ.items() if not n.startswith(("SUREFOOT_", "ANTHROPIC_"))}
        argv = (sys.executable, "-m", "app.cli.main", "up", "--ephemeral", "--port", "0", "--ready-file", str(ready))
        with log.open("wb") as written:
            child = subprocess.Popen(argv, env=own, stdout=written, stderr=subprocess.STDOUT)
        try:
            _await("everything is up", ready.exists)
            yield Up(ready)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(WITHIN)


def kills(up: Up, count: int) -> list[float]:
    """Seconds from each kill to the next attempt of each call that the worker had on the wire."""
    up.tools.post("/behave", json={"tool": "calendar.free_busy", "do": "delay", "ms": READ_MS, "times": None})
    names = sorted(name for name in up.ready["pids"] if name.startswith("worker."))
    found: list[float] = []
    for n in range(count):
        worker = names[n % len(names)]
        began = time.monotonic()
        _put_on_the_wire(up, worker)
        ((at,),) = up.rows("SELECT clock_timestamp()")
        up.end(worker, signal.SIGKILL)
        _await(
            "its calls run again",
            lambda w=worker, at=at: (got := up.rows(_AGAIN, worker=w, at=at)) and all(s is not None for (s,) in got),
        )
        found += [seconds for (seconds,) in up.rows(_AGAIN, worker=worker, at=at)]
        # Or a call that loses five workers in a row is held as poisoned, as it should be.
        _await("every read has ended", lambda: up.rows(_OPEN)[0][0] == 0)
        time.sleep(max(0.0, BETWEEN / len(names) - (time.monotonic() - began)))
    up.tools.delete("/behave")
    return found


def _put_on_the_wire(up: Up, worker: str) -> None:
    """Reads in flight, some of them in that worker: who hears a bell first has the call, so it may take a few."""

    def there() -> bool:
        return bool(up.rows(_AT_WORK, worker=worker)[0][0] >= 2)

    until, again = time.monotonic() + WITHIN, 0.0
    while not there():
        if time.monotonic() > until:
            raise SystemExit(f"bench: waited {WITHIN:.0f} s in vain: {worker} has calls on the wire")
        if time.monotonic() > again:
            for _ in range(IN_FLIGHT):
                up.submit(["calendar.free_busy"])
            again = time.monotonic() + READ_MS / 1000
        time.sleep(_POLL)


def restarts(up: Up, count: int) -> dict[str, int]:
    """What clean restarts under load left behind."""
    up.tools.post("/behave", json={"tool": "email.send", "do": "delay", "ms": MAIL_MS, "times": None})
    names = sorted(name for name in up.ready["pids"] if name.startswith("worker."))
    mine: list[UUID] = []
    for n in range(count):
        began = time.monotonic()
        mine += [up.submit(["calendar.create_event", "mail", "calendar.create_event"]) for _ in range(IN_FLIGHT)]
        up.end(names[n % len(names)], signal.SIGTERM)
        time.sleep(max(0.0, BETWEEN / len(names) - (time.monotonic() - began)))
    unfinished = "SELECT count(*) FROM workflows WHERE id = ANY(%(mine)s) AND ended_at IS NULL"
    _await("every workflow has ended", lambda: up.rows(unfinished, mine=mine)[0][0] == 0)
    events = "SELECT count(*) FROM events WHERE workflow_id = ANY(%(mine)s) AND type = %(type)s"
    sent = Counter(
        (entry["workflow"], entry["tool"]) for entry in up.tools.get("/ledger").json()["data"] if entry["executed"]
    )
    wanted = {ids.encode("wf", workflow) for workflow in mine}
    twice = [key for key, times in sent.items() if key[0] in wanted and times > 1 and key[1] == "email.send"]
    return {
        "workflows": len(mine),
        "succeeded": up.rows(
            "SELECT count(*) FROM workflows WHERE id = ANY(%(mine)s) AND status = 'succeeded'", mine=mine
        )[0][0],
        "doubts": up.rows(events, mine=mine, type="effect.in_doubt")[0][0],
        "workers_lost": up.rows(events, mine=mine, type="agent.worker.lost")[0][0],
        "mails_twice": len(twice),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.recovery", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=20)
    options = parser.parse_args()
    with running() as up:
        print(f"killing workers with SIGKILL, {options.kills} times")
        seconds = sorted(kills(up, options.kills))
        p50, p99 = median(seconds), seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
        print(
            f"  {len(seconds)} safe calls ran again after p50 {p50:.2f} s, p99 {p99:.2f} s, worst {seconds[-1]:.2f} s"
        )
        print(f"restarting workers with SIGTERM, {options.restarts} times, under load")
        left = restarts(up, options.restarts)
        print("  " + ", ".join(f"{name} {value}" for name, value in left.items()))
    good = p50 <= P50_SECONDS and p99 <= P99_SECONDS and left["succeeded"] == left["workflows"]
    good = good and not (left["doubts"] or left["workers_lost"] or left["mails_twice"])
    print("every target met" if good else f"MISSED: p50 ≤ {P50_SECONDS} s, p99 ≤ {P99_SECONDS} s, nothing in doubt")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
