"""The bench of the first call: how long after its submission is committed does a workflow's first call leave?

    python -m bench.first_call [--quick] [--processes 2]

Single workflows of one call, one after another on an idle system, then under a steady light load. The commit's own
timestamp is Postgres's (`track_commit_timestamp`, on for this bench only; it is taken before the commit is flushed, so
the flush is in the number). The call's start is judged by its arrival at the tool, by the same machine's clock, which
is later than the first byte by what the tool's own loop takes; `sent_at` of the attempt is shown beside it.

    commit → claimed (the claim's statement) → sent → at the tool

Exits 1 if a target is missed or a call was lost or made twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from app.domain import ids
from bench import crowd, oracle, site, verdicts
from bench.measures import percentile
from bench.verdicts import Line, say
from bench.waiting_tool import declaration

P50_MS: Final = 10.0

TOOL: Final = "bench.at_once"
RATE: Final = 20.0
"""Submissions a second of the light load: some 5 % of what two workers can do."""

WARM_UP: Final = 10
"""Single workflows that are not counted: connections are opened and statements prepared by them."""

PAUSE: Final = 0.03
"""Seconds between two single workflows: the workers are idle again, whatever the phase of their loops."""

WITHIN: Final = 60.0

_TIMES: Final = """
SELECT c.id,
  extract(epoch FROM pg_xact_commit_timestamp(e.xmin))::float8 AS committed,
  extract(epoch FROM e.at)::float8 AS accepted,
  extract(epoch FROM a.intended_at)::float8 AS intended,
  extract(epoch FROM a.sent_at)::float8 AS sent
FROM events e
JOIN calls c ON c.workflow_id = e.workflow_id
JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.n = 1
WHERE e.type = 'workflow.accepted' AND e.workflow_id = ANY(%s) ORDER BY e.at"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    singles: int
    loaded_seconds: float


FULL: Final = Plan(singles=400, loaded_seconds=30)
QUICK: Final = Plan(singles=60, loaded_seconds=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Legs:
    """Milliseconds from the commit of each submission."""

    deciding: list[float]
    """From the accepted event's clock to the commit: before our clock starts, for comparison."""
    intended: list[float]
    sent: list[float]
    arrived: list[float]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.first_call", description="From the commit to the call.")
    parser.add_argument("--quick", action="store_true", help="about 20 seconds; for a look, not for a record")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (2)")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    with site.opened(postgres={"track_commit_timestamp": "on"}) as here:
        place = here.place("surefoot")
        tools = here.serve("tools", site.WAITING_TOOL)
        place.register({TOOL: declaration(tools, ms=0)})
        place.start_api()
        for n in range(1, options.processes + 1):
            place.start_worker(f"worker.{n}")
        with place.connect() as connection:
            say(f"{plan.singles} single workflows")
            alone = _singles(place, plan.singles)
            say(f"{plan.loaded_seconds:.0f} s of {RATE:.0f} submissions a second")
            loaded = _loaded(place, connection, plan.loaded_seconds)
            arrived = oracle.arrivals(tools)
            faults = oracle.faults(connection, accepted=alone + loaded, calls=1, arrived=arrived)
            idle, busy = (_legs(connection, found, arrived) for found in (alone[WARM_UP:], loaded))
            durability = verdicts.durability(connection)
    context = [f"{durability}, track_commit_timestamp on · {options.processes} worker processes"]
    return verdicts.report("Surefoot, the first call", _lines(idle, busy), faults=faults, context=context)


def _singles(place: site.Place, count: int) -> list[str]:
    client, accepted = crowd.Client(place.url, place.key), []
    for n in range(count + WARM_UP):
        told = client.submit(crowd.chain(TOOL, 1), {"n": n}, wait=30)
        if told["status"] != "succeeded":
            raise SystemExit(f"bench: a single workflow ended {told['status']}")
        accepted.append(str(told["id"]))
        time.sleep(PAUSE)
    client.close()
    return accepted


def _loaded(place: site.Place, connection: psycopg.Connection[Any], seconds: float) -> list[str]:
    stream = crowd.Stream(url=place.url, key=place.key, definition=crowd.chain(TOOL, 1), rate=RATE)
    stream.start()
    time.sleep(seconds)
    stream.stop()
    crowd.drain(connection, seconds=WITHIN)
    return stream.accepted


def _legs(connection: psycopg.Connection[Any], accepted: Sequence[str], arrived: oracle.Arrivals) -> Legs:
    rows = connection.execute(_TIMES, [[ids.decode("wf", one) for one in accepted]]).fetchall()
    legs = Legs(deciding=[], intended=[], sent=[], arrived=[])
    for call, committed, decided, intended, sent in rows:
        legs.deciding.append((committed - decided) * 1000)
        legs.intended.append((intended - committed) * 1000)
        legs.sent.append((sent - committed) * 1000)
        legs.arrived.append((arrived[ids.encode("call", call)][0] - committed) * 1000)
    return legs


def _lines(idle: Legs, busy: Legs) -> list[Line]:
    first = percentile(idle.arrived, 0.5)
    lines = [Line("commit of the submission → the first call is at the tool, idle, p50 ms", first, most=P50_MS)]
    for name, legs in (("idle", idle), (f"{RATE:.0f} submissions/s", busy)):
        for share in (0.5, 0.9, 0.99):
            value = percentile(legs.arrived, share)
            lines.append(Line(f"{name}: commit → the call is at the tool, p{share * 100:.0f} ms", value))
        lines += [
            Line(f"{name}: commit → claimed, p50 ms", percentile(legs.intended, 0.5)),
            Line(f"{name}: commit → sent_at of the attempt, p50 ms", percentile(legs.sent, 0.5)),
            Line(f"{name}: decided → commit (before the clock starts), p50 ms", percentile(legs.deciding, 0.5)),
        ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
