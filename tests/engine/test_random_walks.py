"""Random walks: seeded definitions under seeded faults on real Postgres, with the promises asserted at every step.

Two workflows of a random shape (needs, for_each, agents, approvals, timeouts, business keys, probes, compensations,
pivots; `walking.py`) are open at any moment; each action is something the world, a worker, a person or an operator may
do, or several of them in a race. A failure names its seed; `SUREFOOT_WALKS=400` walks further,
`SUREFOOT_FIRST_WALK=2002 SUREFOOT_WALKS=1` walks one again.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from app.domain import ids
from app.domain.outcomes import Outcome
from app.engine import cancel, compensate, decide_approval, operate_step, pause, record, resolve, retry, switch
from app.errors import InvalidValue, StateConflict
from app.store.claims import Claimed
from tests.engine.pools import Pool, pool_of
from tests.engine.walking import CLASSES, UNDOING, Chance, NearWorld, definition, keeps_its_laws, out_of_order
from tests.engine.world import Worker

WALKS = int(os.environ.get("SUREFOOT_WALKS", "6"))
FIRST = int(os.environ.get("SUREFOOT_FIRST_WALK", "1"))
ACTIONS = 45
"""Enough for most walks to come to an end before the last, orderly part."""

ROUNDS = 120
TENANT = ids.DEFAULT_TENANT
SCOPES = [
    *(f"tool:do_{name}" for name in CLASSES),
    *(f"tool:undo_{name}" for name in UNDOING),
    "tool:look",
    "model:fast",
    "tenant",
]


@dataclass
class Walk:
    world: NearWorld
    dice: random.Random
    chance: Chance
    workers: list[Worker] = field(default_factory=list)
    pools: dict[UUID, Pool] = field(default_factory=dict)
    """By worker: the calls that were claimed with the record of the one before. Who is lost never sends them."""
    open: list[tuple[Claimed, Outcome]] = field(default_factory=list)
    """Claimed and sent; the answer is still on its way."""
    definitions: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    denied: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How often a person said of a call that it did not happen, or of what may have happened that it is to be done
    again: where that is wrong, it is that person's word that something happens twice."""

    async def worker(self) -> Worker:
        while len(self.workers) < 2:
            made = await self.world.worker(f"worker.{self.dice.random()}")
            self.pools[made.lease.worker_id] = pool_of(made)
            made.services.tools = made.services.models = self.chance
            self.workers.append(made)
        return self.dice.choice(self.workers)

    async def submit(self) -> None:
        given = {"n": 1, "list": list(range(self.dice.randint(0, 5)))}
        shape = definition(self.dice)
        workflow_id = await self.world.submit(shape, key=f"k{len(self.definitions)}", input=given)
        self.definitions[workflow_id] = shape

    async def act(self) -> str:
        open_ = await self.world.row("SELECT count(*) AS n FROM workflows WHERE ended_at IS NULL")
        if open_["n"] < 2:
            await self.submit()
            return "submit"
        action = self.dice.choice(
            [self.run] * 10 + [self.follow] * 8 + [self.claim] * 4 + [self.answer_late] * 4 + [self.lose] * 2
            + [self.decide] * 4 + [self.settle] * 4 + [self.at_once] * 4 + [self.silence, self.sweep, self.time_passes]
            + [self.forget_key] + [self.stop] * 2 + [self.pause, self.resume, self.resume, self.hold, self.release]
            + [self.release, self.retry, self.operate, self.decide_saga, self.decide_saga, self.settle_undo]
            + [self.settle_undo, self.settle_many, self.wait_out]
        )  # fmt: skip
        await action()
        return action.__name__

    async def at_once(self) -> None:
        """Several of them in a race. Who comes too late is told so; nothing else may go wrong."""
        racing = self.dice.choices(
            [
                self.run, self.follow, self.answer_late, self.settle, self.decide, self.sweep, self.stop, self.pause,
                self.settle_undo,
            ],
            k=3,
        )  # fmt: skip
        ended = await asyncio.gather(
            self.time_passes(), self.run(), *(action() for action in racing), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    # --- workers ---------------------------------------------------------------------------------------------------

    async def _due(self) -> UUID | None:
        await self.world.hurry()
        calls = await self.world.due_calls()
        return self.dice.choice(calls) if calls else None

    async def run(self) -> None:
        call = await self._due()
        if call is not None:
            await (await self.worker()).run(call)
            await (await self.worker()).run(call)  # the bell rang twice

    async def follow(self) -> None:
        """Some of what goes on in the process that recorded the call before it, or all of it."""
        for worker in self.workers:
            pool = self.pools[worker.lease.worker_id]
            for _ in range(self.dice.choice([1, 1, 2, len(pool.taken)])):
                if pool.taken:
                    await pool.run_one(worker)

    async def claim(self) -> None:
        call, worker = await self._due(), await self.worker()
        claimed = None if call is None else await worker.claim(call)
        if claimed is None or not claimed.granted:
            return  # a switch, a key too old, a rate limit that an answer of a moment ago has set: nothing was sent
        if claimed.kind == "model":
            self.open.append((claimed, self.chance.answer()))
        else:
            name, call_id = claimed.tool or "", ids.encode("call", claimed.call_id)
            self.open.append((claimed, await self.chance.perform(name, call_id, claimed.key)))

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
        for worker in self.workers:  # what they have claimed and not sent is past its deadline, and stays unsent
            self.pools[worker.lease.worker_id].taken.clear()
            worker.services.ready.clear()
        await self.world.silence()
        await self.world.sweep(await self.worker())

    async def sweep(self) -> None:
        await self.world.sweep(await self.worker())

    async def forget_key(self) -> None:
        await self.world.rows("UPDATE calls SET key_deadline = clock_timestamp() WHERE key_deadline IS NOT NULL")

    async def time_passes(self) -> None:
        kinds = self.dice.choice(["step_timeout"] * 3 + ["expiry"] * 3 + ["step_timeout,expiry,deadline"])
        await self._ripen(*kinds.split(","))

    async def wait_out(self) -> None:
        """Quarantines and probes' deadlines pass; owners of keys and switches are looked at."""
        await self.world.rows(
            "UPDATE calls SET not_before = clock_timestamp() - interval '1 hour' WHERE not_before > now()"
        )
        await self._ripen("attached", "switch")

    async def _ripen(self, *kinds: str) -> None:
        await self.world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = ANY(%s)", list(kinds))
        await self.world.sweep(await self.worker())

    # --- people ----------------------------------------------------------------------------------------------------

    async def _one(self, sql: str) -> dict[str, Any] | None:
        found = await self.world.rows(sql)
        return self.dice.choice(found) if found else None

    async def _asks(self, asked: Awaitable[Any]) -> bool:
        """Ask for something; what is not possible (any more) is refused, and that is all that may go wrong."""
        try:
            await asked
        except (StateConflict, InvalidValue):
            return False
        return True

    async def stop(self) -> None:
        row = await self._one("SELECT id FROM workflows WHERE ended_at IS NULL ORDER BY id")
        if row is not None and self.dice.random() < 0.3:
            await self._cancel(row["id"])

    async def _cancel(self, workflow_id: UUID) -> None:
        await self._asks(cancel.cancel(self.world.api, TENANT, workflow_id, reason=None, by="kim"))

    async def decide(self) -> None:
        approval = await self._one("SELECT id FROM approvals WHERE status = 'open' ORDER BY id")
        if approval is not None:
            decision = self.dice.choice(["approve", "approve", "reject"])
            await self._asks(
                decide_approval.decide(
                    self.world.api, TENANT, approval["id"], decision=decision, values=None, comment=None, revision=1,
                    by="kim",
                )
            )  # fmt: skip

    async def settle(self) -> None:
        row = await self._one("SELECT id FROM calls WHERE state = 'in_doubt' ORDER BY id")
        if row is None:
            return
        outcome = self.dice.choice(["happened", "did_not_happen", "abandon", "probe"])
        await self.world.end_quarantines()
        self.denied[ids.encode("call", row["id"])] += outcome == "did_not_happen"
        await self._asks(
            resolve.resolve(
                self.world.api, TENANT, row["id"], outcome=outcome, result={"n": 1}, note="looked", by="kim"
            )
        )

    async def settle_many(self) -> None:
        await resolve.resolve_many(
            self.world.api, TENANT, filter=resolve.Filter(), outcome=self.dice.choice(["happened", "probe", "abandon"]),
            note="looked", by="kim", limit=10, dry_run=self.dice.random() < 0.3,
        )  # fmt: skip

    # --- operators -------------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        row = await self._one("SELECT id FROM workflows WHERE ended_at IS NULL ORDER BY id")
        if row is not None:
            await self._asks(pause.pause(self.world.api, TENANT, row["id"], reason=None, by="kim"))

    async def resume(self) -> None:
        row = await self._one("SELECT id FROM workflows WHERE status = 'paused' ORDER BY id")
        if row is not None:
            await self._asks(pause.resume(self.world.api, TENANT, row["id"], reason=None, by="kim"))

    async def hold(self) -> None:
        await switch.hold(self.world.api, TENANT, scope=self.dice.choice(SCOPES), reason=None, by="kim")

    async def release(self) -> None:
        row = await self._one("SELECT scope FROM switches ORDER BY scope")
        if row is not None:
            await switch.release(self.world.api, TENANT, scope=row["scope"], by="kim")
            await self.world.sweep(await self.worker())

    async def retry(self) -> None:
        row = await self._one(
            "SELECT id FROM workflows WHERE status IN ('failed', 'cancelled') OR saga = 'held' ORDER BY id"
        )
        if row is not None:
            await self._asks(retry.retry(self.world.api, TENANT, row["id"], note=None, by="kim"))

    async def operate(self) -> None:
        row = await self._one(
            "SELECT s.workflow_id, s.path FROM steps s JOIN workflows w ON w.id = s.workflow_id "
            "WHERE s.ended_at IS NULL AND w.ended_at IS NULL ORDER BY 1, 2"
        )
        if row is not None:
            action = self.dice.choice(["skip", "complete", "fail", "retry-now"])
            await self._asks(
                operate_step.operate(
                    self.world.api, TENANT, row["workflow_id"], row["path"], action=action, output={"n": 1}, note=None,
                    by="kim",
                )
            )  # fmt: skip

    async def decide_saga(self) -> None:
        row = await self._one("SELECT id FROM workflows WHERE saga = 'held' ORDER BY id")
        if row is not None:
            mode = self.dice.choice(["undo", "keep"])
            await self._asks(compensate.decide_saga(self.world.api, TENANT, row["id"], mode=mode, note="", by="kim"))

    async def settle_undo(self) -> None:
        row = await self._one("SELECT id FROM calls WHERE undo = 'failed' ORDER BY id")
        if row is not None:
            action = self.dice.choice(["retry", "done", "skip"])
            await self._asks(
                compensate.settle_undo(self.world.api, TENANT, row["id"], action=action, note="", by="kim")
            )

    # --- the end ---------------------------------------------------------------------------------------------------

    async def come_to_an_end(self) -> None:
        """No more faults: everything ends. What is held as poisoned is what a person must cancel."""
        self.chance.calm = True
        self.open.clear()
        for _ in range(ROUNDS):
            if not await self.world.rows("SELECT 1 FROM workflows WHERE ended_at IS NULL"):
                return
            await self.world.rows("UPDATE calls SET key_deadline = NULL WHERE state = 'due'")
            for action in (
                self.release, self.resume, self.run, self.run, self.follow, self.silence, self.wait_out, self.decide,
            ):  # fmt: skip
                await action()
            for action in (self.settle, self.decide_saga, self.settle_undo):
                await action()
            stuck = await self._one("SELECT id FROM workflows WHERE open_calls + waits + doubts = 0 AND held > 0")
            if stuck is not None and self.dice.random() < 0.2:
                await self._cancel(stuck["id"])
            await self.keeps_the_laws()
        left = await self.world.rows("SELECT * FROM workflows WHERE ended_at IS NULL")
        raise AssertionError(f"does not come to an end: {left}")

    async def keeps_the_laws(self) -> None:
        await keeps_its_laws(self.world)
        effects = await self.world.rows(
            "SELECT id, kind, effect, state = 'succeeded' AND coalesce(resolved->>'by', 'probe') = 'probe' AS believed "
            "FROM calls "
            "WHERE kind IN ('tool', 'compensation') AND effect <> 'read_only' AND attempts > 0"
        )
        self.chance.judge(effects, denied=self.denied)
        undos: dict[UUID, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for row in await self.world.rows("SELECT workflow_id, step, undo FROM calls WHERE undo <> 'none'"):
            undos[row["workflow_id"]][row["step"].partition(".")[0]].add(row["undo"])
        for workflow_id, found in undos.items():
            assert out_of_order(self.definitions[workflow_id], found) == [], "what others depend on was undone first"


@asynccontextmanager
async def near(database_url: str) -> AsyncIterator[NearWorld]:
    made = NearWorld(database_url, lease=600.0, breaker_failures=0, retry_burst=1_000_000)
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + WALKS))
async def test_engine_keeps_its_promises_on_a_random_walk(database_url: str, seed: int) -> None:
    dice = random.Random(seed)
    path: list[str] = []
    async with near(database_url) as small:
        walk = Walk(world=small, dice=dice, chance=Chance(dice, small))
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
