"""One chaos run from start to verdict: `run(options) -> Outcome`. The order of things:

    start everything · submit the plan, so many workflows in flight · faults by progress, operator and watcher beside
    it · calm: no more faults, everything has to end within a minute · judge · report · stop

Progress is printed every ten seconds. If nothing moves for `STALLED`, or the end is not reached `CALM` after the last
fault, what there is to look at is written into the folder (`stuck.py`) and the run is judged as it stands.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
from psycopg.rows import dict_row

from tests.chaos import counters, definitions, faults, oracle, stuck, workload
from tests.chaos.client import Client
from tests.chaos.faults import Faults
from tests.chaos.installation import CANARY, Installation
from tests.chaos.operating import Operator
from tests.chaos.oracle import canaries, snapshot
from tests.chaos.oracle.ledgers import Fault, Ledgers, read_tool_ledger
from tests.chaos.oracle.verdicts import Checked, Violation, violations
from tests.chaos.receiver import read_receipts
from tests.chaos.report import Outcome
from tests.chaos.waiting import moment

STALLED: Final = 60.0
"""Seconds without a new event: longer than any pause that a plan or a retry has."""
CALM: Final = 60.0
"""Seconds after the last fault (and the last submission) in which everything has to end."""
DELIVERIES: Final = 40.0
"""Seconds without a webhook on its way being delivered: a failed one is tried again after six, in order."""
SPEAK: Final = 10.0

_PROGRESS: Final = """
SELECT count(*) AS accepted, count(*) FILTER (WHERE ended_at IS NOT NULL) AS ended,
  coalesce(sum(last_seq), 0)::bigint AS events, coalesce(sum(effects_done), 0)::bigint AS effects,
  coalesce(sum(doubts), 0)::bigint AS doubts FROM workflows"""

# What waits for its next try after it has failed is not left behind: it is visible, and its time is known.
_UNDELIVERED: Final = """
SELECT count(*) AS n FROM deliveries d WHERE d.state = 'open' AND NOT EXISTS (
  SELECT FROM dues s WHERE s.kind = 'delivery' AND s.ref = d.stream
    AND s.due_at > clock_timestamp() + interval '20 s')"""


SLOWLY: Final = 0.25
"""Seconds between two submissions while faults are overdue: there has to be somebody at work whom they hit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    seed: int
    workflows: int
    faults: Mapping[str, int]
    needed: frozenset[str]
    workers: int = 2
    window: int = 64
    """Workflows in flight."""
    folder: Path
    command: str = ""


@dataclass(slots=True)
class Run:
    options: Options
    installation: Installation
    client: Client
    operator: Operator
    faults: Faults = field(init=False)
    seen: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(("accepted", "ended", "events", "effects"), 0)
    )
    began: float = field(default_factory=time.monotonic)
    submitted_at: float | None = None
    stuck_in: Path | None = None
    violations: list[Violation] = field(default_factory=list)
    """Found while it ran."""

    def __post_init__(self) -> None:
        self.faults = Faults(
            installation=self.installation,
            dues=faults.schedule(self.options.seed, self.options.faults),
            progress=lambda: self.seen["ended"] / self.options.workflows,
        )

    async def perform(self) -> None:
        """Submit and give faults until all is over, or nothing moves any more."""
        stopping = asyncio.Event()
        beside = [
            asyncio.create_task(work)
            for work in (
                self.operator.work(stopping),
                self._watch(stopping),
                self._look(stopping),
                self._speak(stopping),
            )
        ]
        doing = asyncio.gather(self._submit_all(), self.faults.work())
        moving = asyncio.create_task(self._until_stalled())
        every: list[asyncio.Future[Any]] = [doing, moving, *beside]
        try:
            await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
            for each in beside:
                if each.done():
                    each.result()  # none of them ends by itself: what broke it is raised
            if doing.done():
                doing.result()
                await self._calm_down()
            if self.stuck_in is None and self.seen["ended"] < self.options.workflows:
                self.stuck_in = await stuck.dump(self.installation)
        finally:
            stopping.set()
            for work in every:
                work.cancel()
            await asyncio.gather(*every, return_exceptions=True)

    async def _submit_all(self) -> None:
        """In the plan's order, so many in flight at a time, and no faster than the faults are given."""
        async with asyncio.TaskGroup() as under_way:
            for number, planned in enumerate(workload.plan(self.options.seed, self.options.workflows)):
                while number - self.seen["ended"] >= self.options.window:
                    await moment(0.05)
                if self.faults.overdue:
                    await moment(SLOWLY)
                under_way.create_task(self._one(planned))
        self.submitted_at = time.monotonic()

    async def _one(self, planned: workload.Planned) -> None:
        workflow = await self.client.submit(planned)
        await self.client.meddle(workflow, planned)

    async def _until_stalled(self) -> None:
        last, since = -1, time.monotonic()
        while time.monotonic() - since < STALLED:
            if self.seen["events"] != last:
                last, since = self.seen["events"], time.monotonic()
            await moment(1.0)
        self._say(f"nothing has moved for {STALLED:.0f} s")

    async def _calm_down(self) -> None:
        self._say(f"all submitted, all faults given; everything has to end within {CALM:.0f} s")
        over = time.monotonic() + CALM
        while self.seen["ended"] < self.options.workflows and time.monotonic() < over:
            await moment(0.2)
        left, since = self._undelivered(), time.monotonic()
        while left and time.monotonic() - since < DELIVERIES:
            await moment(0.5)
            if (now := self._undelivered()) < left:
                left, since = now, time.monotonic()

    # --- beside it ---

    async def _watch(self, stopping: asyncio.Event) -> None:
        """How far it is, from the rows; a database that is away says nothing."""
        while not await moment(0.25, unless=stopping):
            assert self.installation.alive, f"`surefoot up` has ended: see {self.installation.log}"
            try:
                (self.seen,) = await asyncio.to_thread(self._rows, _PROGRESS)
            except psycopg.Error:
                continue

    async def _look(self, stopping: asyncio.Event) -> None:
        """Read the status of some workflow, now and then, as clients do; every minute ask the laws of every instant."""
        draw, judged = random.Random(f"{self.options.seed}/look"), time.monotonic()
        while not await moment(0.2, unless=stopping):
            if self.client.workflows:
                await self.client.look(draw.choice(list(self.client.workflows)))
            if time.monotonic() - judged > 60.0:
                judged = time.monotonic()
                self.violations += await asyncio.to_thread(self._judge_now)

    def _judge_now(self) -> list[Violation]:
        try:
            with snapshot.at_one_instant(self.installation.database_url) as rows:
                tools = read_tool_ledger(self.installation.tool_ledger)
                return [each for check in oracle.judge_now(Ledgers(tools=tools), rows) for each in check.violations]
        except psycopg.OperationalError:
            return []  # the database was stopped meanwhile; the next minute asks again

    async def _speak(self, stopping: asyncio.Event) -> None:
        while not await moment(SPEAK, unless=stopping):
            took, ended = time.monotonic() - self.began, self.seen["ended"]
            left = (
                f"about {took / ended * (self.options.workflows - ended):.0f} s to go" if ended else "no idea how long"
            )
            given = sum(self.faults.counts.values())
            self._say(
                f"{ended} of {self.options.workflows} ended ({self.seen['accepted']} accepted), "
                f"{self.seen['effects']} effects, {given} of {len(self.faults.dues)} faults, "
                f"{self.seen.get('doubts', 0)} doubts open; {left}"
            )

    def _say(self, words: str) -> None:
        sys.stderr.write(f"chaos {time.monotonic() - self.began:6.0f} s  {words}\n")
        sys.stderr.flush()

    def _undelivered(self) -> int:
        return int(self._rows(_UNDELIVERED)[0]["n"])

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        with psycopg.connect(
            self.installation.database_url,
            autocommit=True,
            row_factory=dict_row,
            application_name="chaos",
            connect_timeout=5,
        ) as connection:
            return connection.execute(sql).fetchall()

    # --- judging ---

    async def judge(self) -> Outcome:
        await asyncio.gather(*(self.client.look(each) for each in list(self.client.workflows)[-400:]))
        ready = self.installation.ready
        with snapshot.at_one_instant(self.installation.database_url) as rows:
            rows.count("SELECT count(*) FROM workflows")  # the instant; what the ledgers have more happened after it
            ledgers = await asyncio.to_thread(self._ledgers)
            checks = oracle.judge(ledgers, rows, secret=ready["webhook_secret"], turns=12)
            counted = counters.count(
                ledgers,
                rows,
                rung_again=self.faults.rung_again,
                api_replays=self.client.replayed,
                needed=self.options.needed,
            )
            statuses = {
                row["status"]: row["n"] for row in rows("SELECT status, count(*) AS n FROM workflows GROUP BY 1")
            }
            checks.append(oracle.effects.nothing_left_done(ledgers.tools, rows, undoable=definitions.UNDOABLE))
            checks += [self._as_it_must(rows), self._no_problems(), self._throughout()]
        checks.append(await asyncio.to_thread(self._secrets, ledgers))
        if broken := violations(checks):
            rarest = Counter(each.law for each in broken)
            broken.sort(key=lambda each: rarest[each.law])
            named = list(dict.fromkeys(each.workflow for each in broken if each.workflow))
            await asyncio.to_thread(stuck.tell, self.installation, named)
        return Outcome(
            seed=self.options.seed,
            workflows=self.options.workflows,
            seconds=time.monotonic() - self.began,
            command=self.options.command,
            folder=str(self.stuck_in or self.installation.folder),
            faults=self.faults.counts,
            ended=statuses,
            counters=counted,
            checks=checks,
        )

    def _ledgers(self) -> Ledgers:
        given: Sequence[Fault] = self.faults.given
        planned = self.client.workflows.values()
        marks = frozenset(mark for each in planned for mark in each.marks)
        if given:
            told = Fault(kind="misbehaving tools", at=given[0].at, until=given[-1].until, marks=marks)
            given = [*given, told]
        return Ledgers(
            tools=read_tool_ledger(self.installation.tool_ledger),
            submissions=list(self.client.submissions.values()),
            sightings=self.client.sightings,
            resolutions=self.operator.resolutions,
            receipts=read_receipts(self.installation.receipts) if self.installation.receipts.exists() else (),
            faults=given,
        )

    def _as_it_must(self, rows: snapshot.Snapshot) -> Checked:
        """What has to succeed does, unless a doubt of it was abandoned; what is refused fails, and is undone."""
        found = []
        by_id = {
            snapshot.wf(row["id"]): row for row in rows("SELECT id, status, failure, compensation FROM workflows w")
        }
        for name, planned in self.client.workflows.items():
            row = by_id.get(name)
            if row is None or planned.must is None or name in self.operator.abandoned or row["status"] == planned.must:
                continue
            words = f"{planned.kind} had to be {planned.must} and is {row['status']}: {row['failure']}"
            found.append(Violation(law="E1", workflow=name, words=words))
        return Checked(
            law="E1",
            says="what has to succeed does",
            count=len(self.client.workflows),
            of="workflows",
            violations=found,
        )

    def _no_problems(self) -> Checked:
        found = [Violation(law="H1", words=words) for words in self.client.problems]
        return Checked(law="H1", says="no answer that no client should get", count=0, of="", violations=found)

    def _throughout(self) -> Checked:
        words = {str(each): each for each in self.violations}
        return Checked(
            law="ALL", says="laws of every instant, asked every minute", count=0, of="", violations=[*words.values()]
        )

    def _secrets(self, ledgers: Ledgers) -> Checked:
        with redis.Redis.from_url(self.installation.redis_url) as client:
            queued = [each for lane in ("calls", "deliveries") for each in client.lrange(lane, 0, -1)]
        return canaries.nowhere(
            [CANARY],
            places={
                "the database": canaries.dump(self.installation.database_url),
                "the logs": canaries.log(self.installation.log),
                "webhooks": canaries.webhooks(ledgers.receipts),
                "Redis": queued,
            },
        )


async def run(options: Options) -> Outcome:
    installation = Installation(options.folder, seed=options.seed, workers=options.workers)
    try:
        await installation.start()
        ready = installation.ready
        client = Client(
            url=ready["url"],
            key=ready["key"],
            tools_url=ready["tools_url"],
            hooks=installation.hooks,
            ledger=options.folder / "client.jsonl",
            seed=options.seed,
        )
        operator = Operator(client, installation, seed=options.seed)
        one = Run(options=options, installation=installation, client=client, operator=operator)
        try:
            await one.perform()
            return await one.judge()
        finally:
            await client.close()
    finally:
        await installation.stop()
