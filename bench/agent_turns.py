"""The bench of long agents: what does turn 200 cost, compared with turn 10?

    python -m bench.agent_turns [--quick] [--agents 3] [--turns 206]

One agent after another on an idle system. The scripted model runs inside this process and always asks for one no-op
tool, with new arguments each time. The counters are read at the arrival of every model request, when the worker waits
and nothing else runs: from one arrival to the next is one whole turn (the record of the model's answer, the tool call,
its record, and the next request with the whole conversation).

    CPU         nanoseconds of the worker's threads and of its Postgres sessions
    WAL         bytes and records of the worker's statements (pg_stat_statements), and bytes of the whole server
                (pg_current_wal_lsn): what the turn has written, commits and index pages included
    rows        added to the workflow's events, calls, attempts, messages, payloads
    sent        bytes of the request, which is the conversation: they must grow, and are shown for comparison

A turn's cost is the median over nine turns around it and over the agents. Neither what is written nor the CPU may grow
with the turn, although the request does (ADR 16). On a machine that does much else turn 10 and turn 200 may meet
unequal neighbours: more agents, or more runs, then. Exits 1 if a target is missed, or an agent did not end well, or a
tool call was lost or made twice.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from statistics import median
from typing import Any, Final

import psycopg

from app.domain import ids
from app.domain.conversation import wire_name
from app.embedded import model_reply, model_rules, wire
from app.embedded.model_scenarios import Script
from app.embedded.wire import Reply, Request
from bench import crowd, meters, oracle, site, verdicts
from bench.verdicts import Line, say
from bench.waiting_tool import declaration

RATIO: Final = 1.2
EARLY: Final = 10
AROUND: Final = 4
"""Turns on each side of the one that is meant: a heartbeat or a sweep falls into one of them, not into all."""

WARM_UP: Final = 20
"""Turns of an agent that is not counted."""

TOOL: Final = "bench.look_up"
WITHIN: Final = 300

_TABLES: Final = ("events", "calls", "attempts", "messages", "payloads", "steps")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one turn; as a sample, of everything until then."""

    worker: float
    """Milliseconds of CPU."""
    postgres: float
    wal: float
    """Bytes."""
    records: float
    written: float
    """Bytes of WAL of the whole server."""
    statements: float
    rows: float
    sent: float
    """Bytes of the request (not a sum)."""

    @property
    def cpu(self) -> float:
        return self.worker + self.postgres


@dataclass(kw_only=True)
class Turns:
    """The model, and what was read at each of its requests."""

    last: int
    samples: defaultdict[str, list[Cost]] = field(default_factory=lambda: defaultdict(list))
    """By workflow, in the order of its turns."""
    _place: site.Place | None = None
    _connection: psycopg.Connection[Any] | None = None

    def watch(self, place: site.Place) -> None:
        """From now on every request is a sample."""
        self._place, self._connection = place, place.connect()

    def handle(self, request: Request) -> Reply:
        workflow = request.headers.get("surefoot-workflow", "")
        asked = model_rules.read_request(request.headers, request.body)
        turn = sum(message["role"] == "assistant" for message in asked.messages)
        self.samples[workflow].append(self._sample(workflow, len(request.body)))
        message = model_reply.message_of(asked, _answer(turn, last=self.last), number=turn)
        headers = {"request-id": f"req_{turn}", "content-type": "text/event-stream"}
        return Reply(headers=headers, stream=model_reply.stream(message, seconds=0, failure={}))

    def _sample(self, workflow: str, sent: int) -> Cost:
        if self._place is None or self._connection is None:
            raise RuntimeError("nobody told the model what to watch")
        connection = self._connection
        worker = meters.cpu([self._place.pid("worker.1")])
        postgres = meters.cpu(meters.sessions(connection, "worker"))
        calls, wal, records, written = connection.execute(_STATEMENTS).fetchone() or (0, 0, 0, 0)
        counted = connection.execute(_ROWS, {"workflow": ids.decode("wf", workflow)}).fetchone()
        return Cost(
            worker=worker * 1000,
            postgres=postgres * 1000,
            wal=float(wal),
            records=float(records),
            written=float(written),
            statements=float(calls),
            rows=float(counted[0]) if counted is not None else 0.0,
            sent=float(sent),
        )


_STATEMENTS: Final = """
SELECT sum(calls)::bigint, sum(wal_bytes)::bigint, sum(wal_records)::bigint,
  pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint
FROM pg_stat_statements WHERE userid = 'worker'::regrole AND query NOT IN ('BEGIN', 'COMMIT')"""

_ROWS: Final = "SELECT " + " + ".join(
    f"(SELECT count(*) FROM {table} WHERE workflow_id = %(workflow)s)" for table in _TABLES
)


def _answer(turn: int, *, last: int) -> Script:
    if turn >= last:
        return Script(content=[{"type": "text", "text": "That is all."}], stop_reason="end_turn")
    use = {"type": "tool_use", "id": f"toolu_{turn:08d}", "name": wire_name(TOOL), "input": {"n": turn}}
    words = {"type": "text", "text": "I look the next one up."}
    return Script(content=[words, use], stop_reason="tool_use")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.agent_turns", description="Turn 200 against turn 10.")
    parser.add_argument("--quick", action="store_true", help="one agent of 106 turns, judged at 100; for a look")
    parser.add_argument("--agents", type=int, default=0, help="agents, one after another (3)")
    parser.add_argument("--turns", type=int, default=0, help="turns of each (206)")
    options = parser.parse_args()
    turns = options.turns or (106 if options.quick else 206)
    agents = options.agents or (1 if options.quick else 3)
    late = turns - AROUND - 2
    model = Turns(last=turns)
    with site.opened() as here, _serving(model) as url:
        tools = here.serve("tools", site.WAITING_TOOL)
        place = here.place("surefoot")
        place.register({TOOL: declaration(tools, ms=0)})
        settings = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "sk-bench",
            "SUREFOOT_MAX_TURNS": str(turns + 10),
        }
        place.start_api(settings)
        place.start_worker("worker.1", settings)
        model.watch(place)
        _warm_up(place, model)
        accepted = [_agent(place, n, agents) for n in range(1, agents + 1)]
        with place.connect() as connection:
            arrived = oracle.arrivals(tools)
            faults = oracle.faults(connection, accepted=accepted, calls=turns, arrived=arrived)
            durability = verdicts.durability(connection)
    found = [_turns(samples) for samples in model.samples.values()]
    context = [f"{durability} · 1 worker process, {agents} agents of {turns} turns, one after another"]
    return verdicts.report("Surefoot, agent turns", _lines(found, late), faults=faults, context=context)


@contextmanager
def _serving(model: Turns) -> Iterator[str]:
    """The model on a loop of its own thread; its URL."""
    ready, port, stop = threading.Event(), 0, asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        nonlocal port
        async with wire.listening(model.handle) as taken:
            port = taken
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def _warm_up(place: site.Place, model: Turns) -> None:
    """A short agent that is not counted: connections are opened and statements prepared by it, not by turn 10."""
    turns, model.last = model.last, WARM_UP
    _agent(place, 0, 0)
    model.samples.clear()
    model.last = turns


def _agent(place: site.Place, number: int, of: int) -> str:
    """Run one; its workflow."""
    definition = {
        "name": "bench-agent",
        "input": {"n": {"type": "integer"}},
        "agents": {"clerk": {"model": "fast", "instructions": "You look things up.", "tools": [TOOL]}},
        "steps": {"ask": {"agent": "clerk", "prompt": "Look everything up, ${{ input.n }}."}},
    }
    client = crowd.Client(place.url, place.key)
    told = client.submit(definition, {"n": number})
    say(f"agent {number} of {of}: {told['id']}" if of else f"warm-up: {told['id']}")
    with place.connect() as connection:
        seconds = crowd.drain(connection, seconds=WITHIN)
    say(f"  ended after {seconds:.0f} s")
    client.close()
    return str(told["id"])


def _turns(samples: Sequence[Cost]) -> list[Cost]:
    """What each turn cost: `[n]` is turn n + 1, from its request to the next one."""
    found = []
    for before, after in itertools.pairwise(samples):
        spent = [b - a for a, b in zip(astuple(before), astuple(after), strict=True)]
        found.append(Cost(*spent[:-1], sent=after.sent))
    return found


def _cost(found: Sequence[Sequence[Cost]], turn: int) -> Cost:
    """Of this turn: the median, field by field, over its neighbours and all agents."""
    near = [cost for turns in found for cost in turns[turn - 1 - AROUND : turn + AROUND]]
    return Cost(*(median(values) for values in zip(*(astuple(cost) for cost in near), strict=True)))


def _lines(found: Sequence[Sequence[Cost]], late: int) -> list[Line]:
    marks = sorted({EARLY, late, *(turn for turn in (25, 50, 100, 150) if turn < late)})
    costs = {turn: _cost(found, turn) for turn in marks}
    first, last = costs[EARLY], costs[late]
    lines = [
        Line(f"turn {late} ÷ turn {EARLY}: CPU of worker and Postgres", last.cpu / first.cpu, most=RATIO),
        Line(f"turn {late} ÷ turn {EARLY}: WAL bytes", last.wal / first.wal, most=RATIO),
        Line(f"turn {late} ÷ turn {EARLY}: WAL bytes of the server", last.written / first.written, most=RATIO),
        Line(f"turn {late} ÷ turn {EARLY}: statements", last.statements / first.statements, most=RATIO),
        Line(f"turn {late} ÷ turn {EARLY}: rows added", last.rows / first.rows, most=RATIO),
    ]
    lines += _each("CPU of the worker, ms", marks, (costs[turn].worker for turn in marks))
    lines += _each("CPU of its Postgres sessions, ms", marks, (costs[turn].postgres for turn in marks))
    lines += _each("WAL bytes", marks, (costs[turn].wal for turn in marks))
    lines += _each("WAL bytes of the server", marks, (costs[turn].written for turn in marks))
    lines += _each("WAL records", marks, (costs[turn].records for turn in marks))
    lines += _each("statements", marks, (costs[turn].statements for turn in marks))
    lines += _each("rows added", marks, (costs[turn].rows for turn in marks))
    lines += _each("bytes of the request", marks, (costs[turn].sent for turn in marks))
    return lines


def _each(name: str, marks: Sequence[int], values: Iterable[float]) -> list[Line]:
    listed = "  ".join(f"{turn}: {verdicts.number(value)}" for turn, value in zip(marks, values, strict=True))
    return [Line(f"{name}, by turn", listed)]


if __name__ == "__main__":
    sys.exit(main())
