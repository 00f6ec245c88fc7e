"""Random walks: seeded definitions under seeded faults on real Postgres, with the promises asserted at every step.

Two workflows of a random shape (needs, for_each, agents, approvals, timeouts, business keys) are open at any moment;
each action is something the world, a worker or a person may do, or several of them in a race. A failure names its
seed; `SUREFOOT_WALKS=400` walks further, `SUREFOOT_FIRST_WALK=2002 SUREFOOT_WALKS=1` walks one again.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from structlog.testing import capture_logs

from app.domain import ids
from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome
from app.engine import cancel, decide_approval, record, resolve
from app.errors import StateConflict
from app.ports.world import MaySend, ModelRequest
from app.store.claims import Claimed
from tests.engine.world import Worker, World, not_sent, ok, rate_limited, refused, says, tool, unknown, uses, world

WALKS = int(os.environ.get("SUREFOOT_WALKS", "6"))
FIRST = int(os.environ.get("SUREFOOT_FIRST_WALK", "1"))
ACTIONS = 45
"""Enough for most walks to come to an end before the last, orderly part."""

ROUNDS = 60
CLASSES = ("read_only", "idempotent", "keyed", "at_most_once")

# Each finds rows that break a promise. What a counter says is what the rows say; nothing open is without its due;
# what is final is settled; a step that ended has nothing open behind it; events have no gaps; no key is lost.
LAWS = {
    "counters are the counted rows": """
        SELECT w.id, w.status, w.open_calls, w.held, w.doubts, w.waits, c.* FROM workflows w, LATERAL (SELECT
            count(*) FILTER (WHERE state IN ('due', 'intended', 'probing')) AS open_,
            count(*) FILTER (WHERE state = 'held') AS held_,
            count(*) FILTER (WHERE state = 'in_doubt') AS doubts_ FROM calls WHERE workflow_id = w.id) c, LATERAL
          (SELECT count(*) AS waits_ FROM approvals WHERE workflow_id = w.id AND status = 'open' AND call_id IS NULL) a
        WHERE (w.open_calls, w.held, w.doubts, w.waits) <> (c.open_, c.held_, c.doubts_, a.waits_)""",
    "steps are counted": """
        SELECT w.id, w.status, w.steps_open, s.n FROM workflows w, LATERAL (SELECT count(*) AS n FROM steps
          WHERE workflow_id = w.id AND parent IS NULL AND ended_at IS NULL) s
        WHERE w.status IN ('running', 'waiting', 'succeeded') AND w.steps_open <> s.n""",
    "items are counted": """
        SELECT p.path, p.items_open, i.n FROM steps p, LATERAL (SELECT count(*) AS n FROM steps
          WHERE workflow_id = p.workflow_id AND parent = p.path AND state IN ('running', 'waiting')) i
        WHERE p.items_total IS NOT NULL AND p.state = 'running' AND p.items_open <> i.n""",
    "what is open has its due, and only that": """
        SELECT c.id, c.state, d.kind FROM calls c FULL JOIN (SELECT * FROM dues WHERE kind IN ('call', 'attempt')) d
          ON d.ref = c.id
        WHERE (CASE c.state WHEN 'due' THEN 'call' WHEN 'intended' THEN 'attempt' END) IS DISTINCT FROM d.kind""",
    "every decision was made": "SELECT * FROM dues WHERE kind = 'apply'",
    "waiting means that nothing is to be called": """
        SELECT id, status, open_calls FROM workflows
        WHERE status = 'waiting' AND open_calls > 0 OR status = 'running' AND open_calls = 0""",
    "what is final is settled": """
        SELECT w.id, w.status FROM workflows w WHERE w.ended_at IS NOT NULL AND (
          EXISTS (SELECT FROM calls c WHERE c.workflow_id = w.id AND c.ended_at IS NULL)
          OR EXISTS (SELECT FROM steps s WHERE s.workflow_id = w.id AND s.ended_at IS NULL)
          OR EXISTS (SELECT FROM approvals a WHERE a.workflow_id = w.id AND a.status = 'open')
          OR EXISTS (SELECT FROM dues d WHERE d.workflow_id = w.id))""",
    "a step that ended has nothing open behind it": """
        SELECT s.path, s.state, c.state AS call FROM steps s JOIN calls c ON c.workflow_id = s.workflow_id
          AND (c.step = s.path OR c.step LIKE s.path || '.%')
        WHERE s.ended_at IS NOT NULL AND c.ended_at IS NULL""",
    "events have no gaps": """
        SELECT w.id, w.last_seq, e.* FROM workflows w, LATERAL (SELECT count(*) AS n, max(seq) AS last FROM events
          WHERE workflow_id = w.id) e WHERE (w.last_seq, w.last_seq) <> (e.n, e.last)""",
    "an approval that is open is of a call that is held": """
        SELECT a.id, c.state FROM approvals a JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
        WHERE (a.status = 'open') <> (c.state = 'held' AND c.held_reason = 'repeat')
          AND (a.status = 'open' OR c.state = 'held')""",
    "a business key in use has its call, which may have been sent": """
        SELECT k.key, k.call_id, c.state FROM effect_keys k LEFT JOIN calls c ON c.id = k.call_id
        WHERE k.released_at IS NULL AND (c.id IS NULL OR c.state IN ('failed', 'cancelled'))""",
    "a drain sends nothing that was never sent": """
        SELECT c.id, c.state FROM calls c JOIN workflows w ON w.id = c.workflow_id
        WHERE w.status IN ('failing', 'cancelling') AND c.state = 'due' AND c.attempts = 0""",
}


@dataclass
class Sent:
    """What reached a tool: known to the tool, not to us."""

    key: str | None
    certainty: AttemptOutcome
    executed_nothing: bool


@dataclass
class Chance:
    """Tools and a model that answer as the dice say; `calm` once the walk is to come to its end."""

    dice: random.Random
    calm: bool = False
    ledger: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))

    async def send(self, request: Any, *, seconds: float, may_send: MaySend) -> Outcome:
        if not may_send():
            return not_sent()
        if isinstance(request, ModelRequest):
            return self.answer(request)
        return self.perform(request.headers["Surefoot-Call"], request.key)

    def perform(self, call: str, key: str | None) -> Outcome:
        options = [ok({"n": 1})] * 5 + [unknown()] * 4 + [not_sent(), refused(404), refused(500), rate_limited(0.1)]
        outcome = ok({"n": 1}) if self.calm else self.dice.choice(options)
        if outcome.certainty is not AttemptOutcome.NOT_SENT:
            nothing = outcome.certainty is AttemptOutcome.FAILED
            self.ledger[call].append(Sent(key=key, certainty=outcome.certainty, executed_nothing=nothing))
        return outcome

    def answer(self, request: ModelRequest | None) -> Outcome:
        asks = [("do." + name, {"n": self.dice.randrange(2)}) for name in self.dice.sample(CLASSES, k=2)]
        tools = uses(*((name.replace(".", "_"), given) for name, given in asks))
        options = [says("done")] * 3 + [tools] * 5 + [unknown(), rate_limited(0.1), not_sent()]
        return says("done") if self.calm else self.dice.choice(options)


def definition(dice: random.Random) -> dict[str, Any]:
    """A random graph: each step may need any before it."""
    tools = {f"do_{name}": tool(name, on_repeat=dice.choice(["ask", "allow", "return_recorded"])) for name in CLASSES}
    steps: dict[str, Any] = {}
    for n in range(dice.randint(2, 6)):
        step = _step(dice)
        before = list(steps)
        if before and dice.random() < 0.7:
            step["needs"] = dice.sample(before, k=dice.randint(1, min(2, len(before))))
        if dice.random() < 0.6:
            step["on_error"] = "continue"
        if dice.random() < 0.3 and "set" not in step:
            step["timeout"] = "10m"
        if dice.random() < 0.1:
            step["if"] = dice.choice(["input.n == 1", "input.n == 2"])
        steps[f"s{n}"] = step
    return {"name": "walk", "tools": tools, "steps": steps}


def _step(dice: random.Random) -> dict[str, Any]:
    kind = dice.choice(["tool", "tool", "each", "agent", "agent", "approval", "set"])
    if kind == "set":
        return {"set": {"x": dice.choice(["${{ input.n }}", "${{ input.n }}", "${{ input.list[9] }}"])}}
    if kind == "approval":
        asked = {"title": "Go?", "expires": "1h", "on_reject": dice.choice(["continue", "fail"])}
        return {"approval": asked | ({} if dice.random() < 0.7 else {"on_expire": "fail"})}
    if kind == "agent":
        offered = [f"do_{name}" for name in CLASSES]
        return {"agent": {"model": "fast", "tools": offered, "max_turns": 3}, "prompt": "Go."} | _each(dice, 0.2)
    effect = dice.choice(CLASSES)
    step: dict[str, Any] = {"tool": f"do_{effect}", "with": {"n": 1}} | _each(dice, 1.0 if kind == "each" else 0.0)
    if effect == "keyed" and dice.random() < 0.5:
        step["idempotency_key"] = f"key:{dice.randrange(2)}"
    if effect == "keyed":
        step["retry"] = {"tool_error": {"max_retries": 1}}
    return step


def _each(dice: random.Random, chance: float) -> dict[str, Any]:
    return {"for_each": "${{ input.list }}", "max_parallel": dice.randint(1, 3)} if dice.random() < chance else {}


@dataclass
class Walk:
    world: World
    dice: random.Random
    chance: Chance
    workers: list[Worker] = field(default_factory=list)
    open: list[tuple[Claimed, Outcome]] = field(default_factory=list)
    """Claimed and sent; the answer is still on its way."""
    submitted: int = 0
    denied: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How often a person said of a call that it did not happen."""

    async def worker(self) -> Worker:
        while len(self.workers) < 2:
            made = await self.world.worker(f"worker.{self.dice.random()}")
            made.services.tools = made.services.models = self.chance
            self.workers.append(made)
        return self.dice.choice(self.workers)

    async def submit(self) -> None:
        given = {"n": 1, "list": list(range(self.dice.randint(0, 5)))}
        self.submitted += 1
        await self.world.submit(definition(self.dice), key=f"k{self.submitted}", input=given)

    async def act(self) -> str:
        open_ = await self.world.row("SELECT count(*) AS n FROM workflows WHERE ended_at IS NULL")
        if open_["n"] < 2:
            await self.submit()
            return "submit"
        actions = (
            [self.run] * 8 + [self.claim] * 4 + [self.answer_late] * 4 + [self.lose] * 2 + [self.decide] * 4
            + [self.settle] * 4 + [self.at_once] * 4 + [self.silence, self.sweep, self.time_passes]
            + [self.forget_key, self.stop]
        )  # fmt: skip
        action = self.dice.choice(actions)
        await action()
        return action.__name__

    async def at_once(self) -> None:
        """Several of them in a race. Who comes too late is told so; nothing else may go wrong."""
        racing = self.dice.choices([self.run, self.answer_late, self.settle, self.decide, self.sweep, self.stop], k=3)
        ended = await asyncio.gather(
            self.time_passes(), self.run(), *(action() for action in racing), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, StateConflict):
                raise error

    async def _due(self) -> UUID | None:
        await self.world.hurry()
        calls = await self.world.due_calls()
        return self.dice.choice(calls) if calls else None

    async def run(self) -> None:
        call = await self._due()
        if call is not None:
            await (await self.worker()).run(call)
            await (await self.worker()).run(call)  # the bell rang twice

    async def claim(self) -> None:
        call, worker = await self._due(), await self.worker()
        claimed = None if call is None else await worker.claim(call)
        if claimed is None or claimed.key_expired:
            return
        if claimed.kind == "model":
            self.open.append((claimed, self.chance.answer(None)))
        else:
            self.open.append((claimed, self.chance.perform(ids.encode("call", claimed.call_id), claimed.key)))

    async def answer_late(self) -> None:
        if self.open:
            claimed, outcome = self.open.pop(self.dice.randrange(len(self.open)))
            await record.record((await self.worker()).services, claimed, outcome)

    async def lose(self) -> None:
        worker = await self.worker()
        self.workers.remove(worker)
        await self.world.lose(worker, proof=self.dice.random() < 0.5)
        await self.world.sweep(await self.worker())

    async def silence(self) -> None:
        await self.world.silence()
        await self.world.sweep(await self.worker())

    async def sweep(self) -> None:
        await self.world.sweep(await self.worker())

    async def forget_key(self) -> None:
        await self.world.rows("UPDATE calls SET key_deadline = clock_timestamp() WHERE key_deadline IS NOT NULL")

    async def time_passes(self) -> None:
        kinds = self.dice.choice(["step_timeout"] * 3 + ["expiry"] * 3 + ["step_timeout,expiry,deadline"])
        await self.world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = ANY(%s)", kinds.split(","))
        await self.world.sweep(await self.worker())

    async def stop(self) -> None:
        if self.dice.random() < 0.2:
            await self.cancel_one("status <> 'cancelled'")

    async def cancel_one(self, which: str) -> None:
        for row in (await self.world.rows(f"SELECT id FROM workflows WHERE ended_at IS NULL AND {which}"))[:1]:
            await cancel.cancel(self.world.api, ids.DEFAULT_TENANT, row["id"], reason=None, by="kim")

    async def decide(self) -> None:
        found = await self.world.rows("SELECT id FROM approvals WHERE status = 'open' ORDER BY id")
        if found:
            decision = self.dice.choice(["approve", "reject"])
            await decide_approval.decide(
                self.world.api, ids.DEFAULT_TENANT, self.dice.choice(found)["id"], decision=decision, values=None,
                comment=None, revision=1, by="kim",
            )  # fmt: skip

    async def settle(self) -> None:
        found = await self.world.rows("SELECT id FROM calls WHERE state = 'in_doubt' ORDER BY id")
        if not found:
            return
        call, outcome = self.dice.choice(found)["id"], self.dice.choice(["happened", "did_not_happen", "abandon"])
        await self.world.end_quarantines()
        await resolve.resolve(
            self.world.api, ids.DEFAULT_TENANT, call, outcome=outcome, result=None, note="looked", by="kim"
        )
        self.denied[ids.encode("call", call)] += outcome == "did_not_happen"

    async def come_to_an_end(self) -> None:
        """No more faults: everything ends. What is held as poisoned is what a person must cancel."""
        self.chance.calm = True
        self.open.clear()
        for _ in range(ROUNDS):
            if not await self.world.rows("SELECT 1 FROM workflows WHERE ended_at IS NULL"):
                return
            await self.world.rows("UPDATE calls SET key_deadline = NULL WHERE state = 'due'")
            await self.run()
            await self.silence()
            await self.decide()
            await self.settle()
            await self.cancel_one("open_calls + waits + doubts = 0 AND held > 0")
            await self.keeps_the_laws()
        left = await self.world.rows("SELECT * FROM workflows WHERE ended_at IS NULL")
        raise AssertionError(f"does not come to an end: {left}")

    async def keeps_the_laws(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.world.url, autocommit=True, row_factory=dict_row
        ) as connection:
            for law, breaches in LAWS.items():
                found = await (await connection.execute(breaches)).fetchall()
                assert found == [], law
            effects = await (await connection.execute("SELECT id, effect FROM calls WHERE kind = 'tool'")).fetchall()
        for call in effects:
            name = ids.encode("call", call["id"])
            sent = self.chance.ledger[name]
            if call["effect"] == "at_most_once":
                maybe = [one for one in sent if not one.executed_nothing]
                assert len(maybe) <= 1 + self.denied[name], "an effect that must not be repeated was"
            if call["effect"] == "keyed" and not self.denied[name]:
                given_up = {one.key for one in sent} - {sent[-1].key} if sent else set()
                done = [one for one in sent if one.key in given_up and not one.executed_nothing]
                assert done == [], "a key was given up under which the effect may have happened"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + WALKS))
async def test_engine_keeps_its_promises_on_a_random_walk(database_url: str, seed: int) -> None:
    dice = random.Random(seed)
    path: list[str] = []
    async with world(database_url, lease=600.0) as small:
        walk = Walk(world=small, dice=dice, chance=Chance(dice))
        with capture_logs() as logs:
            try:
                for _ in range(ACTIONS):
                    path.append(await walk.act())
                    await walk.keeps_the_laws()
                await walk.come_to_an_end()
            except Exception as error:
                error.add_note(f"seed {seed}: {' '.join(path)}")
                raise

        wrong = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
        assert wrong == [], f"seed {seed}: {' '.join(path)}"
