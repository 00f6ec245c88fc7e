"""The bench of a missing doorbell: Redis (Valkey) is stopped for a minute under load. What does a client notice?

    python -m bench.redis_away [--quick] [--away 60] [--rate 12]

Chains of ten calls are submitted at a fixed rate (open loop: the clock of a submission starts when it was due), some
half of what the machine can do. Valkey is ended, stays away for `--away` seconds, and is started again, empty.

    before   submissions' p99, throughput, from acceptance to the first call's claim
    away     the same; the sweep feeds the workers straight from Postgres once a second
    after    until a first call waits no longer than it did before: the time to normal

Exits 1 if submissions' p99 grew by more than allowed, or anything was lost or done twice.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from app.domain import ids
from bench import crowd, measures, meters, oracle, site, verdicts
from bench.measures import percentile
from bench.verdicts import Line, say
from bench.waiting_tool import declaration

P99_MORE_MS: Final = 10.0
"""What submissions' p99 may grow by while Redis is away, milliseconds."""

TOOL: Final = "bench.short"
CALL_MS: Final = 5
STEPS: Final = 10
WITHIN: Final = 180.0

SLOW: Final = 0.5
"""Seconds from acceptance to the first claim: more, and the sweep found the call instead of the bell (it looks after
two); a busy machine's bell takes some hundredths."""

_FIRST: Final = """
SELECT w.id, extract(epoch FROM w.created_at)::float8,
  extract(epoch FROM min(a.intended_at) - w.created_at)::float8, extract(epoch FROM w.ended_at - w.created_at)::float8
FROM workflows w JOIN attempts a ON a.workflow_id = w.id
WHERE w.id = ANY(%s) GROUP BY w.id ORDER BY w.created_at"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    warm_up: float
    before: float
    away: float
    after: float


FULL: Final = Plan(warm_up=8, before=60, away=60, after=30)
QUICK: Final = Plan(warm_up=4, before=10, away=10, after=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stretch of time, by the machine's clock, and what was submitted and done in it."""

    name: str
    began: float
    ended: float
    submissions: list[float]
    """Milliseconds each."""
    steps: int
    waits: list[float]
    """Milliseconds from acceptance to the first claim, of what was accepted in it."""
    whole: list[float]
    """Milliseconds from acceptance to the end, of the same."""
    cpu: dict[str, float]
    """Seconds of API and workers."""
    slowest: float
    """Seconds after its begin at which the slowest submission was due."""

    @property
    def rate(self) -> float:
        return self.steps / (self.ended - self.began)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.redis_away", description="Redis is gone for a minute.")
    parser.add_argument("--quick", action="store_true", help="about 50 seconds; for a look, not for a record")
    parser.add_argument("--away", type=float, default=0, help="seconds without Redis (60)")
    parser.add_argument("--rate", type=float, default=12, help="submissions of ten steps a second (12)")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (2)")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    away = options.away or plan.away
    with site.opened() as here:
        tools = here.serve("tools", site.WAITING_TOOL)
        place = here.place("surefoot")
        place.register({TOOL: declaration(tools, ms=CALL_MS)})
        place.start_api()
        for n in range(1, options.processes + 1):
            place.start_worker(f"worker.{n}")
        definition = crowd.chain(TOOL, STEPS)
        load = crowd.Stream(url=place.url, key=place.key, definition=definition, rate=options.rate)
        load.start()
        bounds = _phases(place, load, plan, away)
        load.stop()
        with place.connect() as connection:
            drained = crowd.drain(connection, seconds=WITHIN)
            phases, normal = _measured(connection, load, bounds)
            faults = oracle.faults(connection, accepted=load.accepted, calls=STEPS, arrived=oracle.arrivals(tools))
            durability = verdicts.durability(connection)
    load_is = f"{options.rate:g} submissions/s of {STEPS} calls of {CALL_MS} ms"
    context = [f"{durability} · {options.processes} worker processes, {load_is}, Redis away for {away:g} s"]
    lines = _lines(phases, normal=normal, drained=drained)
    return verdicts.report("Surefoot, Redis away", lines, faults=faults, context=context)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    name: str
    began: float
    ended: float
    """By `time.time()`."""
    cpu: dict[str, float]


def _phases(place: site.Place, load: crowd.Stream, plan: Plan, away: float) -> list[Bounds]:
    """What was done when; the warm-up is left out."""
    bounds: list[Bounds] = []
    valkey = place.site.valkey

    def stretch(name: str, seconds: float, change: Callable[[], None] | None = None) -> None:
        began, before = time.time(), _cpu(place)
        if change is not None:
            change()
        say(f"{name}: {seconds:g} s")
        time.sleep(seconds)
        load.check()
        spent = {name: seconds - before[name] for name, seconds in _cpu(place).items()}
        bounds.append(Bounds(name=name, began=began, ended=time.time(), cpu=spent))

    stretch("warm-up", plan.warm_up)
    stretch("before", plan.before)
    stretch("away", away, valkey.stop)
    stretch("after", plan.after, valkey.start)
    return bounds[1:]


def _cpu(place: site.Place) -> dict[str, float]:
    found = {"api": 0.0, "workers": 0.0}
    for name, pid in place.pids.items():
        found["api" if name == "api" else "workers"] += meters.cpu([pid])
    return found


def _measured(
    connection: psycopg.Connection[Any], load: crowd.Stream, bounds: Sequence[Bounds]
) -> tuple[list[Phase], float]:
    """The phases, and seconds from Redis's return until the last first call that still waited for a sweep."""
    rows = connection.execute(_FIRST, [[ids.decode("wf", one) for one in load.accepted]]).fetchall()
    phases = []
    for bound in bounds:
        inside = [row for row in rows if bound.began <= row[1] < bound.ended]
        sent = [promise for promise in load.promises if bound.began <= promise.due_at < bound.ended]
        phases.append(
            Phase(
                name=bound.name,
                began=bound.began,
                ended=bound.ended,
                submissions=[promise.seconds * 1000 for promise in sent],
                steps=_steps(connection, bound.began, bound.ended),
                waits=[row[2] * 1000 for row in inside],
                whole=[row[3] * 1000 for row in inside],
                cpu=bound.cpu,
                slowest=max(sent, key=lambda promise: promise.seconds).due_at - bound.began,
            )
        )
    back = phases[-1].began
    late = [row[1] for row in rows if row[1] >= back and row[2] > SLOW]
    return phases, max(late) - back if late else 0.0


def _steps(connection: psycopg.Connection[Any], began: float, ended: float) -> int:
    row = connection.execute(
        "SELECT count(*) FROM events WHERE type = %s AND at >= to_timestamp(%s) AND at < to_timestamp(%s)",
        [measures.STEP_DONE, began, ended],
    ).fetchone()
    return 0 if row is None else int(row[0])


def _lines(phases: Sequence[Phase], *, normal: float, drained: float) -> list[Line]:
    before, away, _ = phases
    more = percentile(away.submissions, 0.99) - percentile(before.submissions, 0.99)
    lines = [Line("submissions' p99: away − before, ms", more, most=P99_MORE_MS)]
    for phase in phases:
        lines += [
            Line(f"{phase.name}: submission p50, p99, worst ms", _spread(phase.submissions)),
            Line(f"{phase.name}: … the slowest was due so long after its begin, s", phase.slowest),
            Line(f"{phase.name}: durable steps a second", phase.rate),
            Line(f"{phase.name}: accepted → first call claimed, p50, p99, worst ms", _spread(phase.waits)),
            Line(f"{phase.name}: accepted → succeeded, p50 ms", statistics.median(phase.whole)),
            *(
                Line(f"{phase.name}: CPU of the {who} per step, ms", 1000 * spent / phase.steps)
                for who, spent in phase.cpu.items()
            ),
        ]
    lines += [
        Line(
            "time to normal: accepted after Redis's return and found by a sweep still, the last, s",
            normal,
        ),
        Line("everything had ended so long after the last submission, s", drained),
    ]
    return lines


def _spread(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in (percentile(values, 0.5), percentile(values, 0.99), max(values)))


if __name__ == "__main__":
    sys.exit(main())
