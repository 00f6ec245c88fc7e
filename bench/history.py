"""The bench of a long past: a million finished workflows in the tables, how much slower is the next one?

    python -m bench.history [--quick] [--workflows 1000000] [--pairs 4]

Two databases in one cluster, each with its own API and workers: one is empty, the other holds the history
(`bench/ballast.py`: ten million events with their steps, calls, attempts and bytes). The same load runs on one, then
on the other, and again (A B A B …), so that whatever else the machine does meets both; the ratio of the medians is
judged, CPU per step and blocks per step say where a difference comes from.

Afterwards everything a client can GET is asked of both (`bench/lookups.py`), once more with every plan logged, and the
workers run for some seconds with every plan logged: nothing that everybody asks may read more than a few hundred rows,
and nothing on the hot path more than that and a few for each call that is open, whatever the past.

Needs about 12 GB of disk and some minutes to generate; everything is removed at the end. Exits 1 if a target is missed
or anything was lost or done twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final
from uuid import UUID

import psycopg
from rich.console import Console
from rich.table import Table

from app.domain import ids
from app.embedded import parts
from bench import ballast, crowd, lookups, measures, meters, oracle, site, verdicts
from bench.lookups import Examples, Plan
from bench.verdicts import Line, say
from bench.waiting_tool import declaration

RATIO: Final = 0.9
MOST_ROWS: Final = 1_000
"""Rows that a statement of the hot path, or of a GET that everybody asks, may read: a page is 50, a batch 64."""
ROWS_A_CALL: Final = 5
"""Rows that the sweep may read besides of each call that is open for longer than the two seconds of its first ring: its
due where it finds it, due, call and attempt by their keys, the due again where it writes it. They follow from what is
open, however long the past (2,001 for 400 such calls, with no past and beside 50,000 workflows). How many of the open
ones are as old as that depends on how fast the machine is at the moment: none, or all."""

AT_ONCE: Final = "bench.at_once"
BOOK: Final = "bench.book"
STEPS: Final = 10
IN_FLIGHT: Final = 400
WITHIN: Final = 120.0
EXPLAINED: Final = 4.0
"""Seconds of load with every plan logged: some sweeps among them."""

LIBRARIES: Final = {"shared_preload_libraries": "pg_stat_statements,auto_explain"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    workflows: int
    warm_up: float
    window: float
    pairs: int


FULL: Final = Size(workflows=1_000_000, warm_up=5, window=20, pairs=4)
QUICK: Final = Size(workflows=50_000, warm_up=3, window=6, pairs=2)


@dataclass(kw_only=True)
class Side:
    """One of the two databases, and what was measured on it."""

    place: site.Place
    connection: psycopg.Connection[Any]
    load: crowd.Crowd
    rates: list[float] = field(default_factory=list)
    steps: int = 0
    worker_cpu: float = 0.0
    postgres_cpu: float = 0.0
    blocks: float = 0.0
    reads: float = 0.0
    answers: dict[str, list[float]] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.history", description="A million finished workflows.")
    parser.add_argument("--quick", action="store_true", help="50,000 workflows, 2 minutes; for a look")
    parser.add_argument("--workflows", type=int, default=0, help="finished workflows (1,000,000)")
    parser.add_argument("--pairs", type=int, default=0, help="pairs of windows (4)")
    parser.add_argument("--processes", type=int, default=2, help="worker processes of each side (2)")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    count, pairs = options.workflows or size.workflows, options.pairs or size.pairs
    with site.opened(postgres=LIBRARIES) as here:
        tools = here.serve("tools", site.WAITING_TOOL)
        model = here.serve("model", (*parts.MODEL, "--latency-ms", "0"))
        settings = {"ANTHROPIC_BASE_URL": model, "ANTHROPIC_API_KEY": "sk-bench"}
        empty = _side(here, "empty", tools=tools, settings=settings, redis=0, processes=options.processes)
        past = _side(here, "past", tools=tools, settings=settings, redis=1, processes=options.processes)
        say(f"{count:,} finished workflows")
        seconds = ballast.fill(past.connection, count=count, templates=_templates(past.place))
        sizes = ballast.sizes(past.connection)
        given = {side.place.name: _examples(side, model=model) for side in (empty, past)}
        for pair in range(1, pairs + 1):
            for side in (empty, past):
                _window(side, size)
            say(f"pair {pair} of {pairs}: empty {empty.rates[-1]:.0f}, past {past.rates[-1]:.0f} steps/s")
        for side in (empty, past):
            say(f"asking {side.place.name}")
            side.answers = lookups.ask(side.place, given[side.place.name])
        asked, hot = _explained(empty, past, given["past"])
        faults = [f"{side.place.name}: {fault}" for side in (empty, past) for fault in _faults(side, tools)]
        durability = verdicts.durability(past.connection)
        for side in (empty, past):
            side.connection.close()
    lines = _lines(empty, past, hot=hot, asked=asked)
    context = [
        f"{durability} · {options.processes} workers on each side, {IN_FLIGHT} workflows of {STEPS} steps open",
        *_sizes(sizes, count, seconds),
    ]
    code = verdicts.report("Surefoot, a long past", lines, faults=faults, context=context)
    _print_answers(empty, past, asked)
    _print_worst(hot)
    return code


def _side(here: site.Site, name: str, *, tools: str, settings: Mapping[str, str], redis: int, processes: int) -> Side:
    place = here.place(name, redis=redis)
    place.register({AT_ONCE: declaration(tools, ms=0), BOOK: declaration(tools, ms=0, effect="keyed")})
    place.start_api(settings)
    for n in range(1, processes + 1):
        place.start_worker(f"worker.{n}", settings)
    definition = crowd.chain(AT_ONCE, STEPS)
    load = crowd.Crowd(url=place.url, key=place.key, definition=definition, in_flight=IN_FLIGHT)
    load.start()
    return Side(place=place, connection=place.connect(), load=load)


def _templates(place: site.Place) -> list[UUID]:
    """Four really executed workflows, ten events each on average: tool steps, keyed effects, an agent with a tool."""
    kinds = (crowd.chain(AT_ONCE, 3), crowd.chain(BOOK, 2), crowd.chain(AT_ONCE, 3), agent())
    client = crowd.Client(place.url, place.key)
    made = [client.submit(definition, {"n": n}, wait=30) for n, definition in enumerate(kinds)]
    client.close()
    if any(told["status"] != "succeeded" for told in made):
        raise SystemExit(f"bench: a template ended {[told['status'] for told in made]}")
    return [ids.decode("wf", told["id"]) for told in made]


def agent() -> dict[str, Any]:
    turns = (
        '[{"text": "I look it up.", "tools": [{"name": "bench.at_once", "input": {"n": 1}}]}, {"text": "It is one."}]'
    )
    prompt = f"Look up number ${{{{ input.n }}}}. [[scripted: {turns}]]"
    return {
        "name": "bench-clerk",
        "input": {"n": {"type": "integer"}},
        "agents": {"clerk": {"model": "fast", "instructions": "You look things up.", "tools": [AT_ONCE]}},
        "steps": {"ask": {"agent": "clerk", "prompt": prompt}},
    }


def _examples(side: Side, *, model: str) -> Examples:
    """Something to ask about: of the past one from its middle, else one that is made now."""
    if side.place.name == "empty":
        _templates(side.place)
    row = side.connection.execute(
        """SELECT w.id, c.id, w.idempotency_key, c.step, w.name FROM calls c JOIN workflows w ON w.id = c.workflow_id
           WHERE c.effect = 'keyed' AND c.workflow_id >= (
             SELECT id FROM workflows ORDER BY id OFFSET (SELECT reltuples::int / 2 FROM pg_class
               WHERE oid = 'workflows'::regclass AND reltuples > 100 UNION ALL SELECT 0 LIMIT 1) LIMIT 1)
           ORDER BY c.workflow_id LIMIT 1"""
    ).fetchone()
    if row is None:
        raise SystemExit(f"bench: {side.place.name} holds no effect to ask about")
    workflow, call, key, step, name = row
    return Examples(
        workflow=ids.encode("wf", workflow), effect=ids.encode("call", call), key=key, step=step, definition=name
    )


def _window(side: Side, size: Size) -> None:
    """Warm up, measure, let everything end."""
    side.load.keep(side.connection, seconds=size.warm_up)
    measures.forget_statements(side.connection)
    began, start = _spent(side), _now(side.connection)
    side.load.keep(side.connection, seconds=size.window)
    ended, end = _spent(side), _now(side.connection)
    blocks, reads = _blocks(side.connection)
    crowd.drain(side.connection, seconds=WITHIN)
    steps = sum(measures.steps_between(side.connection, start, end, slices=1))
    side.rates.append(steps / (end - start).total_seconds())
    side.steps += steps
    side.worker_cpu += ended[0] - began[0]
    side.postgres_cpu += ended[1] - began[1]
    side.blocks += blocks
    side.reads += reads


def _spent(side: Side) -> tuple[float, float]:
    """Seconds of CPU of the workers and of every session but ours."""
    workers = [pid for name, pid in side.place.pids.items() if name.startswith("worker")]
    own = [pid for role in site.ROLES for pid in meters.sessions(side.connection, role)]
    return meters.cpu(workers), meters.cpu(own)


def _blocks(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Blocks that this database's statements found in shared buffers or not there, since they were forgotten."""
    row = connection.execute(
        """SELECT sum(shared_blks_hit + shared_blks_read)::bigint, sum(shared_blks_read)::bigint
           FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
           WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND r.rolname IN ('api', 'worker')"""
    ).fetchone()
    return (0, 0) if row is None else (int(row[0] or 0), int(row[1] or 0))


def _now(connection: psycopg.Connection[Any]) -> Any:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    return None if row is None else row[0]


def _explained(empty: Side, past: Side, given: Examples) -> tuple[dict[str, list[Plan]], list[Plan]]:
    """With nothing but the past running: the plans of every question, and of some seconds of load."""
    for name in list(empty.place.pids):
        empty.place.stop(name)
    say("every plan of every question")
    asked = lookups.plans_of(past.place, given)
    say(f"every plan of {EXPLAINED:.0f} s of load")
    with lookups.explaining(past.place) as since:
        past.load.keep(past.connection, seconds=EXPLAINED)
        time.sleep(1.0)
        hot = since()
    crowd.drain(past.connection, seconds=WITHIN)
    ours = [plan for plan in hot if plan.asked_by.startswith("surefoot")]
    return asked, ours


def _faults(side: Side, tools: str) -> list[str]:
    side.load.stop()
    arrived = oracle.arrivals(tools)
    return oracle.faults(side.connection, accepted=side.load.accepted, calls=STEPS, arrived=arrived)


def _lines(empty: Side, past: Side, *, hot: Sequence[Plan], asked: Mapping[str, Sequence[Plan]]) -> list[Line]:
    core = {question.name for question in lookups.questions(_NOBODY) if question.core}
    most_asked = max((plan.rows for name, plans in asked.items() if name in core for plan in plans), default=0)
    ratio = median(past.rates) / median(empty.rates)
    lines = [
        Line("durable steps a second, past ÷ empty (medians)", ratio, least=RATIO),
        Line(
            f"most rows read by one statement under load, {IN_FLIGHT} workflows open",
            max((p.rows for p in hot), default=0),
            most=MOST_ROWS + ROWS_A_CALL * IN_FLIGHT,
        ),
        Line("most rows read by one statement of a GET that everybody asks", most_asked, most=MOST_ROWS),
    ]
    for side in (empty, past):
        name = side.place.name
        lines += [
            Line(f"{name}: durable steps a second, median", median(side.rates)),
            Line(f"{name}: … in each window", " ".join(f"{rate:.0f}" for rate in side.rates)),
            Line(f"{name}: CPU per step: workers, ms", 1000 * side.worker_cpu / side.steps),
            Line(
                f"{name}: CPU per step: Postgres sessions of API and workers, ms", 1000 * side.postgres_cpu / side.steps
            ),
            Line(f"{name}: blocks looked at per step; of which not in shared buffers", _pair(side)),
        ]
    return lines


def _pair(side: Side) -> str:
    return f"{side.blocks / side.steps:.1f}; {side.reads / side.steps:.2f}"


_NOBODY: Final = Examples(workflow="", effect="", step="", key="", definition="")


def _sizes(sizes: Mapping[str, tuple[int, int, int]], count: int, seconds: float) -> list[str]:
    whole = sum(table + indexes for _, table, indexes in sizes.values())
    each = ", ".join(
        f"{name} {rows / 1e6:.2f} M rows {table / 1e9:.2f} + {indexes / 1e9:.2f} GB"
        for name, (rows, table, indexes) in sizes.items()
    )
    return [
        f"{count:,} finished workflows: {whole / 1e9:.2f} GB, {whole / count:,.0f} bytes each, made in {seconds:.0f} s",
        f"(table + indexes) {each}",
    ]


def _print_answers(empty: Side, past: Side, asked: Mapping[str, Sequence[Plan]]) -> None:
    table = Table(title="What a client asks, p50 ms (rows read by the worst statement)", title_justify="left")
    for column in ("question", "empty", "past", "÷", "rows", "tables read from end to end"):
        table.add_column(column, justify="left" if column.startswith(("question", "tables")) else "right")
    for question in lookups.questions(_NOBODY):
        before, now = median(empty.answers[question.name]), median(past.answers[question.name])
        plans = asked[question.name]
        rows = max((plan.rows for plan in plans), default=0)
        big = sorted({name for plan in plans for name in plan.sequential if name in {t.name for t in ballast.HISTORY}})
        colour = "red" if rows > MOST_ROWS else "default"
        name = question.name if question.core else f"  {question.name}"
        table.add_row(
            name, f"{before:.1f}", f"{now:.1f}", f"{now / before:.1f}", f"[{colour}]{rows:,}[/]", " ".join(big)
        )
    Console(width=verdicts.WIDTH).print(table)


def _print_worst(hot: Sequence[Plan], *, most: int = 8) -> None:
    """The statements under load that read most, one line each."""
    worst: dict[str, Plan] = {}
    for plan in hot:
        if plan.text not in worst or worst[plan.text].rows < plan.rows:
            worst[plan.text] = plan
    table = Table(title=f"Under load: what reads most ({len(hot):,} plans)", title_justify="left")
    for column in ("rows", "asked by", "end to end", "statement"):
        table.add_column(column, justify="right" if column == "rows" else "left", no_wrap=True)
    for plan in sorted(worst.values(), key=lambda plan: -plan.rows)[:most]:
        table.add_row(f"{plan.rows:,}", plan.asked_by, " ".join(sorted(set(plan.sequential))), plan.text[:60])
    Console(width=verdicts.WIDTH).print(table)


if __name__ == "__main__":
    sys.exit(main())
