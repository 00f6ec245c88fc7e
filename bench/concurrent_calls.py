"""The bench of concurrency: 1,000 calls of five seconds each in one worker process. How long, and how much memory?

    python -m bench.concurrent_calls [--quick] [--calls 1000] [--seconds 5]

Three times, each with a fresh database and a fresh worker process (concurrency = the number of calls):

1. tools     1,000 workflows of one HTTP tool call, all accepted before the worker starts. The clock runs from the
             worker's registration (`workers.started_at`, the moment from which it may claim) to the last call's
             `ended_at`, both Postgres's. Imports come before the registration; Celery's start-up after it.
2. one map   one workflow of 1,000 items (`for_each`, `max_parallel: 1000`), worker idle: `workflow.accepted` →
             `workflow.succeeded`. Every outcome goes through one workflow's row.
3. models    as 2, with model calls: the Anthropic SDK (loaded before), streamed, against the scripted model, which
             takes its time on the same cores; what is written so far is told through Redis, as always. Reported;
             aimed at 8 s and 300 MB.

Memory is the worker's peak resident size (VmHWM) from its start to the end of the last call. What every call takes
beyond its five seconds is the product's. The tool's ledger must hold every call exactly once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from app.embedded import parts
from bench import crowd, meters, oracle, site, verdicts
from bench.verdicts import Line, say
from bench.waiting_tool import declaration

SECONDS_TOOLS: Final = 7.5
MB_TOOLS: Final = 160.0

TOOL: Final = "bench.wait"
CLIENTS: Final = 8
WITHIN: Final = 120.0
IDLE: Final = 0.1
"""Seconds of CPU within a second: heartbeat and sweep take a third of that."""
_POLL: Final = 0.1

_CLOCK: Final = """
SELECT extract(epoch FROM max(c.ended_at) - (SELECT max(started_at) FROM workers))::float8,
  extract(epoch FROM max(a.intended_at) - (SELECT max(started_at) FROM workers))::float8,
  extract(epoch FROM min(a.intended_at) - (SELECT max(started_at) FROM workers))::float8,
  max(c.attempts)
FROM calls c JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id"""

_MAP: Final = """
SELECT extract(epoch FROM w.ended_at - w.created_at)::float8,
  (SELECT extract(epoch FROM max(a.intended_at) - w.created_at)::float8 FROM attempts a WHERE a.workflow_id = w.id),
  (SELECT extract(epoch FROM min(a.intended_at) - w.created_at)::float8 FROM attempts a WHERE a.workflow_id = w.id),
  (SELECT max(c.attempts) FROM calls c WHERE c.workflow_id = w.id)
FROM workflows w"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    seconds: float
    claimed: float
    """Seconds on the same clock at which the last call was claimed."""
    first: float
    """… and the first."""
    peak: float
    """MB."""
    idle: float
    """MB before there was anything to do."""
    cpu: float
    """Seconds of the worker, without its imports."""
    postgres: float
    """… and of the sessions it holds."""
    attempts: int
    faults: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.concurrent_calls", description="1,000 calls in a process.")
    parser.add_argument("--quick", action="store_true", help="200 calls of two seconds; for a look, not for a record")
    parser.add_argument("--calls", type=int, default=0, help="how many at once (1000)")
    parser.add_argument("--seconds", type=float, default=0, help="how long each takes (5)")
    parser.add_argument("--only", choices=("tools", "map", "models"), help="one part of the three")
    options = parser.parse_args()
    calls = options.calls or (200 if options.quick else 1000)
    seconds = options.seconds or (2.0 if options.quick else 5.0)
    runs = {"tools": _tools, "map": _map, "models": _models}
    found: dict[str, Measured] = {}
    with site.opened() as here:
        for name, run in runs.items():
            if options.only in (None, name):
                say(f"{name}: {calls} calls of {seconds:g} s")
                found[name] = run(here, calls, seconds)
        with psycopg.connect(here.postgres.url) as connection:
            durability = verdicts.durability(connection)
    lines = [line for name, measured in found.items() for line in _lines(name, measured, seconds)]
    faults = [f"{name}: {fault}" for name, measured in found.items() for fault in measured.faults]
    context = [f"{durability} · 1 worker process, {calls} calls at once, {seconds:g} s each"]
    return verdicts.report("Surefoot, concurrent calls in one worker process", lines, faults=faults, context=context)


def _tools(here: site.Site, calls: int, seconds: float) -> Measured:
    tools = here.serve("tools", site.WAITING_TOOL)
    place = here.place("tools")
    place.register({TOOL: declaration(tools, ms=int(seconds * 1000))})
    definition = crowd.chain(TOOL, 1)
    return _many(place, definition, calls=calls, tools=tools)


def _models(here: site.Site, calls: int, seconds: float) -> Measured:
    model = here.serve("model", (*parts.MODEL, "--latency-ms", str(int(seconds * 1000))))
    settings = {"ANTHROPIC_BASE_URL": model, "ANTHROPIC_API_KEY": "sk-bench"}
    thinker = {"model": "fast", "instructions": "Answer in one sentence."}
    step = {"agent": "thinker", "prompt": "What is ${{ item }} and one?"}
    place = here.place("models", redis=1)
    return _one_map(place, step, {"agents": {"thinker": thinker}}, calls=calls, settings=settings, tools=None)


def _many(place: site.Place, definition: crowd.Definition, *, calls: int, tools: str) -> Measured:
    """Submit, start the worker, wait for the end."""
    place.start_api()
    accepted = _submit(place, definition, calls)
    with place.connect() as connection:
        pid = place.start_worker("worker.1", {"SUREFOOT_CONCURRENCY": str(calls)})
        idle, before = meters.resident(pid), meters.whole(pid)
        row, sessions = _end(connection, _CLOCK)
        measured = _measured(place, row=row, idle=idle, before=before, sessions=sessions)
        arrived = oracle.arrivals(tools)
        measured.faults.extend(oracle.faults(connection, accepted=accepted, calls=1, arrived=arrived))
    place.stop("worker.1")
    place.stop("api")
    return measured


def _map(here: site.Site, calls: int, seconds: float) -> Measured:
    tools = here.serve("tools.map", site.WAITING_TOOL)
    place = here.place("map", redis=2)
    place.register({TOOL: declaration(tools, ms=int(seconds * 1000))})
    step = {"tool": TOOL, "with": {"n": "${{ item }}"}}
    return _one_map(place, step, {}, calls=calls, settings={}, tools=tools)


def _one_map(
    place: site.Place,
    step: Mapping[str, Any],
    beside: Mapping[str, Any],
    *,
    calls: int,
    settings: Mapping[str, str],
    tools: str | None,
) -> Measured:
    """One workflow of so many items, once the worker is idle."""
    each = {**step, "for_each": "${{ input.items }}", "max_parallel": calls}
    definition = {"name": "bench-map", "input": {"items": {"type": "array"}}, "steps": {"each": each}, **beside}
    place.start_api(settings)
    with place.connect() as connection:
        pid = place.start_worker("worker.1", {"SUREFOOT_CONCURRENCY": str(calls), **settings})
        _await_idle(pid)
        idle, before = meters.resident(pid), meters.whole(pid)
        told = crowd.Client(place.url, place.key).submit(definition, {"items": list(range(calls))})
        row, sessions = _end(connection, _MAP)
        measured = _measured(place, row=row, idle=idle, before=before, sessions=sessions)
        arrived = None if tools is None else oracle.arrivals(tools)
        wanted = 0 if tools is None else calls
        measured.faults.extend(oracle.faults(connection, accepted=[told["id"]], calls=wanted, arrived=arrived))
    place.stop("worker.1")
    place.stop("api")
    return measured


def _await_idle(pid: int) -> None:
    """Until the worker has done next to nothing for a second: what it loads beside its work is loaded."""
    until, spent = time.monotonic() + WITHIN, -IDLE
    while meters.whole(pid) - spent >= IDLE and time.monotonic() < until:
        spent = meters.whole(pid)
        time.sleep(1.0)


def _submit(place: site.Place, definition: crowd.Definition, count: int) -> list[str]:
    def some(first: int) -> list[str]:
        client = crowd.Client(place.url, place.key)
        made = [str(client.submit(definition, {"n": n})["id"]) for n in range(first, count, CLIENTS)]
        client.close()
        return made

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [workflow for made in pool.map(some, range(CLIENTS)) for workflow in made]


def _end(connection: psycopg.Connection[Any], clock: str) -> tuple[tuple[Any, ...], float]:
    """The row of the clocks once all has ended, and the seconds of CPU of the worker's sessions until then."""
    until, spent = time.monotonic() + WITHIN, 0.0
    while crowd.still_open(connection) > 0:
        if time.monotonic() > until:
            raise SystemExit(f"bench: not everything has ended within {WITHIN:.0f} s")
        spent = max(spent, meters.cpu(meters.sessions(connection, "worker")))
        time.sleep(_POLL)
    spent = max(spent, meters.cpu(meters.sessions(connection, "worker")))
    row = connection.execute(clock).fetchone()  # type: ignore[call-overload]
    return row or (0.0, 0.0, 0.0, 0), spent


def _measured(
    place: site.Place,
    *,
    row: tuple[Any, ...],
    idle: float,
    before: float,
    sessions: float,
) -> Measured:
    pid = place.pid("worker.1")
    return Measured(
        seconds=row[0],
        claimed=row[1],
        first=row[2],
        attempts=row[3],
        peak=meters.peak(pid),
        idle=idle,
        cpu=meters.whole(pid) - before,
        postgres=sessions,
        faults=[] if row[3] == 1 else [f"a call took {row[3]} attempts"],
    )


def _lines(name: str, measured: Measured, seconds: float) -> list[Line]:
    own = {"tools": (SECONDS_TOOLS, MB_TOOLS), "map": (None, MB_TOOLS), "models": (None, None)}[name]
    since = "the worker is there" if name == "tools" else "accepted"
    return [
        Line(f"{name}: {since} → the last is recorded, s", measured.seconds, most=own[0]),
        Line(f"{name}: peak resident memory of the worker, MB", measured.peak, most=own[1]),
        Line(f"{name}: … of which before any work, MB", measured.idle),
        Line(f"{name}: first call claimed after, s", measured.first),
        Line(f"{name}: last call claimed after, s", measured.claimed),
        Line(f"{name}: recorded after the last could have answered, s", measured.seconds - measured.claimed - seconds),
        Line(f"{name}: CPU of the worker, s", measured.cpu),
        Line(f"{name}: CPU of its Postgres sessions, s", measured.postgres),
    ]


if __name__ == "__main__":
    sys.exit(main())
