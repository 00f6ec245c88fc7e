"""The bench of the second process: twice the workers, how much more work, when the calls wait rather than compute?

    python -m bench.two_processes [--quick] [--ms 100] [--concurrency 16]

Chains of calls of `--ms` milliseconds, always more of them open than two processes perform at once, `--concurrency`
calls per process: that is the limit, not the two cores. Windows of one and of two processes alternate (1 2 1 2 …), so
that whatever else the machine does meets both. The number to compare is the ratio of the medians; the ceiling is what
that many slots could do if nothing took time but the calls.

Exits 1 if a target is missed, or anything was lost or done twice.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from bench import crowd, measures, meters, oracle, site, verdicts
from bench.verdicts import Line, say
from bench.waiting_tool import declaration

RATIO: Final = 1.6

TOOL: Final = "bench.wait"
STEPS: Final = 10
DEPTH: Final = 6
"""Open workflows per slot of two processes: each has one call at a time, so no slot waits for work."""
WITHIN: Final = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Seconds, and how many pairs of windows."""

    warm_up: float
    window: float
    pairs: int


FULL: Final = Plan(warm_up=5, window=15, pairs=4)
QUICK: Final = Plan(warm_up=3, window=6, pairs=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    processes: int
    steps: int
    seconds: float
    worker_cpu: float
    postgres_cpu: float

    @property
    def rate(self) -> float:
        return self.steps / self.seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.two_processes", description="One process against two.")
    parser.add_argument("--quick", action="store_true", help="about 50 seconds; for a look, not for a record")
    parser.add_argument("--ms", type=int, default=100, help="how long a call takes, milliseconds (100)")
    parser.add_argument("--concurrency", type=int, default=16, help="calls one process performs at once (16)")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    settings = {"SUREFOOT_CONCURRENCY": str(options.concurrency)}
    windows: list[Window] = []
    with site.opened() as here:
        tools = here.serve("tools", site.WAITING_TOOL)
        place = here.place("surefoot")
        place.register({TOOL: declaration(tools, ms=options.ms)})
        place.start_api()
        place.start_worker("worker.1", settings)
        many = 2 * options.concurrency * DEPTH
        load = crowd.Crowd(url=place.url, key=place.key, definition=crowd.chain(TOOL, STEPS), in_flight=many)
        load.start()
        with place.connect() as connection:
            for pair in range(1, plan.pairs + 1):
                windows.append(_window(place, connection, load, plan, processes=1))
                place.start_worker("worker.2", settings)
                windows.append(_window(place, connection, load, plan, processes=2))
                place.stop("worker.2")
                say(f"pair {pair} of {plan.pairs}: {windows[-2].rate:.0f} and {windows[-1].rate:.0f} steps/s")
            load.stop()
            crowd.drain(connection, seconds=WITHIN)
            arrived = oracle.arrivals(tools)
            faults = oracle.faults(connection, accepted=load.accepted, calls=STEPS, arrived=arrived)
            durability = verdicts.durability(connection)
    context = [
        f"{durability} · calls of {options.ms} ms, {options.concurrency} at once per process, {many} workflows open",
    ]
    ceiling = options.concurrency * 1000 / options.ms if options.ms else 0.0
    return verdicts.report(
        "Surefoot, one worker process and two", _lines(windows, ceiling), faults=faults, context=context
    )


def _window(
    place: site.Place, connection: psycopg.Connection[Any], load: crowd.Crowd, plan: Plan, *, processes: int
) -> Window:
    load.keep(connection, seconds=plan.warm_up)
    began, start = _cpu(place, connection), _now(connection)
    load.keep(connection, seconds=plan.window)
    ended, end = _cpu(place, connection), _now(connection)
    return Window(
        processes=processes,
        steps=sum(measures.steps_between(connection, start, end, slices=1)),
        seconds=(end - start).total_seconds(),
        worker_cpu=ended[0] - began[0],
        postgres_cpu=ended[1] - began[1],
    )


def _cpu(place: site.Place, connection: psycopg.Connection[Any]) -> tuple[float, float]:
    workers = [pid for name, pid in place.pids.items() if name.startswith("worker")]
    return meters.cpu(workers), meters.cpu(meters.sessions(connection, "worker"))


def _now(connection: psycopg.Connection[Any]) -> Any:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    return None if row is None else row[0]


def _lines(windows: list[Window], ceiling: float) -> list[Line]:
    by = {n: [w for w in windows if w.processes == n] for n in (1, 2)}
    rates = {n: statistics.median(w.rate for w in found) for n, found in by.items()}
    lines = [Line("two processes ÷ one, durable steps a second", rates[2] / rates[1], least=RATIO)]
    for n, found in by.items():
        each = " ".join(f"{w.rate:.0f}" for w in found)
        steps = sum(w.steps for w in found)
        lines += [
            Line(f"{n} × : durable steps a second, median", rates[n]),
            Line(f"{n} × : … in each window", each),
            Line(f"{n} × : … of what the slots allow, %", 100 * rates[n] / (n * ceiling) if ceiling else 0.0),
            Line(f"{n} × : CPU per step: workers, ms", 1000 * sum(w.worker_cpu for w in found) / steps),
            Line(
                f"{n} × : CPU per step: their Postgres sessions, ms", 1000 * sum(w.postgres_cpu for w in found) / steps
            ),
        ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
