"""The machine's engine twice: the product's verbs on real Postgres over two connections, and the memory beside it.

Each verb is done there first; then here, at the instant at which it was done there; then every row is compared. Both
must also agree on what is refused. `cross` lets two verbs meet: the first holds the workflow's lock, decided and
written, while the second is on its way; then it commits, or is rolled back.

Time passes by moving every instant back (`Beside.age`): the product asks nobody but Postgres for the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Sender
from app.domain.facts import OwnerLooked
from app.domain.outcomes import Outcome
from app.domain.states import DueKind
from app.engine import (
    accept_result,
    cancel,
    compensate,
    decide_approval,
    operate_step,
    pause,
    perform,
    record,
    resolve,
    result_tokens,
    retry,
    sweep,
    switch,
    transactions,
)
from app.store import dues, effect_keys
from app.store.claims import Claimed
from tests.domain import replaying
from tests.domain.machine_memory import LEASE, Flight, Memory, settled
from tests.domain.machine_plans import Document, planned
from tests.domain.machine_verbs import NOTE, WHO, Asked, Refused
from tests.engine.machine_crossing import Arena, Crossing, Deed, awaited, done, refusable
from tests.engine.world import StillLease, Worker

Result = TypeVar("Result")

TENANT: Final = ids.DEFAULT_TENANT
LIMIT: Final = 200


@dataclass(kw_only=True)
class Both:
    arena: Arena
    memory: Memory = field(default_factory=Memory)
    leases: dict[UUID, tuple[Worker, StillLease]] = field(default_factory=dict)
    claimed: dict[UUID, Claimed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arena.run(self.arena.beside.clear())
        self._look()

    def close(self) -> None:
        """What is left says what its events say; the next example clears it."""
        found = replaying.of_database(self.arena.run(self.arena.beside.told()))
        assert not found, "\n".join(each for sentences in found.values() for each in sentences)

    # --- beside each other ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.memory.now = self.arena.run(self.arena.beside.now())

    def _do(self, deed: Deed) -> bool:
        self._look()
        took = self.arena.run(awaited(deed.real))
        self._follow(deed, took)
        return took

    def _follow(self, deed: Deed, took: bool) -> None:
        """The same in memory, at the same instant; then every row is compared."""
        store = self.memory.store
        sql = "SELECT revision, updated_at FROM workflows WHERE id = %s"
        [row] = self.arena.run(self.arena.beside.rows(sql, deed.workflow_id))
        if row["revision"] != store.workflows[deed.workflow_id].revision:
            self.memory.now = row["updated_at"]
        try:
            deed.model()
            allowed = True
        except Refused:
            allowed = False
        assert took == allowed, f"Postgres {'did' if took else 'refused'} what memory {'did' if allowed else 'refused'}"
        self.compare()

    def compare(self) -> None:
        found = self.arena.run(self.arena.beside.differences(self.memory.store))
        assert not found, "\n".join(found)

    # --- clients, workers, tools ---------------------------------------------------------------------------------

    def submit(self, document: Document, given: Any, *, key: str) -> UUID:
        workflow_id = self.arena.run(self.arena.world.submit(document, key=key, input=given))
        [row] = self.arena.run(self.arena.beside.rows("SELECT created_at FROM workflows WHERE id = %s", workflow_id))
        self.memory.now = row["created_at"]
        plan, digest = planned(document, models=self.arena.models)
        self.memory.submit(workflow_id, plan, given, definition_digest=digest, key=key)
        self.compare()
        return workflow_id

    def worker(self) -> UUID:
        worker = self.arena.workers[len(self.leases) % len(self.arena.workers)]
        settings = self.arena.world.settings
        lease = StillLease(
            self.arena.url, name=f"machine.{len(self.leases)}", slots=10, lease=settings.lease,
            heartbeat=settings.heartbeat, margin=settings.fence_margin,
        )  # fmt: skip
        self.arena.run(lease.start())
        self.leases[lease.worker_id] = (worker, lease)
        self.memory.store.workers[lease.worker_id] = Sender(
            lease_until=self.memory.now + LEASE, reaped_at=None, lost_at=None
        )
        return lease.worker_id

    def _as(self, worker_id: UUID) -> Worker:
        worker, lease = self.leases[worker_id]
        worker.services.lease = lease
        return worker

    def claim(self, call_id: UUID, *, worker: UUID) -> Flight | None:
        self._look()
        services, call = self._as(worker), self.memory.store.call(call_id)
        got: Claimed | None = self.arena.run(services.claim(call_id))
        flown = got is not None and got.granted
        if got is not None and flown:
            self.memory.now = got.intended_at
        made = self.memory.claim(call_id, worker=worker, attempt_id=got.attempt_id if got else call_id)
        assert isinstance(made, Flight) == flown, f"Postgres claims {got}, memory {made}"
        if isinstance(made, Flight) and got is not None:
            self.claimed[made.attempt_id] = got
            self.compare()
            return made
        if made is not None:
            fact = made
            self._do(
                Deed(
                    workflow_id=call.workflow_id,
                    real=lambda: done(perform.perform(services.services, call_id)),
                    model=lambda: self.memory.advance(call.workflow_id, [fact]),
                )
            )
        return None

    def settle(self, flight: Flight, outcome: Outcome) -> None:
        self._do(self.settling(flight, outcome))

    def settling(self, flight: Flight, outcome: Outcome) -> Deed:
        services, claimed = self._as(flight.worker).services, self.claimed[flight.attempt_id]
        return Deed(
            workflow_id=flight.workflow_id,
            real=lambda: done(record.record(services, claimed, outcome)),
            model=lambda: self.memory.settle(flight, outcome),
        )

    def keep(self, flight: Flight, outcome: Outcome) -> None:
        services, fact = self._as(flight.worker).services, settled(flight, outcome)
        self._do(
            Deed(
                workflow_id=flight.workflow_id,
                real=lambda: done(record.keep_evidence(services, flight.workflow_id, [fact])),
                model=lambda: self.memory.keep(flight, outcome),
            )
        )

    def report(self, flight: Flight, *, succeeded: bool) -> bool:
        return self._do(
            Deed(
                workflow_id=flight.workflow_id,
                real=lambda: refusable(self._report(flight, succeeded=succeeded)),
                model=lambda: self.memory.report(flight, succeeded=succeeded, result={"n": 1}),
            )
        )

    async def _report(self, flight: Flight, *, succeeded: bool) -> None:
        api = self.arena.world.api
        token = await result_tokens.make(api, call_id=flight.call_id, attempt_id=flight.attempt_id)
        await accept_result.accept(api, flight.call_id, token=token, succeeded=succeeded, result={"n": 1}, message=None)

    # --- time and misfortune -------------------------------------------------------------------------------------

    def in_flight(self, call_id: UUID) -> None:
        """The sweep takes whatever is ripe; what it took, it must have been allowed to."""
        services, limit = self.arena.workers[0].services, LIMIT

        async def work(connection: transactions.Connection) -> None:
            await dues.in_flight(connection, limit=limit, lease=LEASE.total_seconds())

        ripe = "UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'call' AND ref = %s"
        self.arena.run(self.arena.beside.rows(ripe, call_id))
        self.arena.run(transactions.run(services.database, "sweep", work, one_statement=True))
        taken = self.arena.run(self.arena.beside.rows("SELECT ref FROM dues WHERE kind = 'attempt'"))
        for ref in (row["ref"] for row in taken):
            if (DueKind.CALL, ref) in self.memory.store.dues:
                self.memory.in_flight(ref)
        self.compare()

    def fire(self, kind: str, ref: UUID) -> None:
        self._do(self.firing(kind, ref))

    def firing(self, kind: str, ref: UUID, *, crossed: bool = False) -> Deed:
        """`crossed`: somebody may hold the due's own row, then the sweep does not find it."""
        workflow_id, _ = self.memory.store.dues[(kind, ref)]

        async def ripen() -> None:
            ripe = "UPDATE dues SET ring_at = clock_timestamp(), rung = 0 WHERE kind = %s AND ref = %s"
            await self.arena.beside.rows(ripe, kind, ref)

        async def real() -> bool:
            if not crossed:
                await ripen()
            await self._fire(kind, ref, workflow_id, crossed=crossed)
            return True

        return Deed(
            workflow_id=workflow_id, real=real, model=lambda: self.memory.fire(kind, ref), skips=True, prepare=ripen
        )

    async def _fire(self, kind: str, ref: UUID, workflow_id: UUID, *, crossed: bool) -> None:
        """As the sweep does: its rows are taken in one transaction, the facts brought to the door in another."""
        services = self.arena.workers[0].services
        query = dues.lost_attempts if kind == DueKind.ATTEMPT else dues.timers
        found = await transactions.run(services.database, "sweep", lambda c: query(c, limit=LIMIT))
        mine = next((each for each in found if (each.kind, each.ref) == (kind, ref)), None)
        if mine is None:
            assert crossed, f"the sweep does not find {kind} {ref}"
            return
        assert mine.workflow_id == workflow_id
        facts = self.memory.facts_of(kind, ref)
        for fact in facts:
            assert getattr(fact, "step", mine.step) == mine.step, f"the sweep finds {mine}, memory {fact}"
            if isinstance(fact, OwnerLooked):
                await self._check_owner(fact, workflow_id)
        await sweep.bring(services, {workflow_id: facts})

    async def _check_owner(self, fact: OwnerLooked, workflow_id: UUID) -> None:
        async def look(connection: transactions.Connection) -> tuple[Any, ...]:
            owner = await effect_keys.attached_to(connection, workflow_id=workflow_id, call_id=fact.call_id)
            found = None if owner is None else await effect_keys.owner(connection, call_id=owner)
            return (owner, None, "none", None) if found is None else (owner, found.state, found.undo, found.result)

        seen = await transactions.run(self.arena.workers[0].services.database, "sweep", look)
        assert seen == (fact.owner, fact.state, fact.undo, fact.result), f"Postgres sees {seen}, memory {fact}"

    def pass_time(self, by: timedelta) -> None:
        self.arena.run(self.arena.beside.age(by))
        self.memory.store.age(by)
        self._look()

    def lose(self, worker: UUID, *, proof: bool) -> None:
        self._look()
        self.memory.lose(worker, proof=proof)
        row = self.memory.store.workers[worker]
        sql = "UPDATE workers SET lost_at = %s, reaped_at = %s, lease_until = %s WHERE id = %s"
        self.arena.run(self.arena.beside.rows(sql, row.lost_at, row.reaped_at, row.lease_until, worker))

    def shut(self, scope: str) -> None:
        """Over memory alone: here breakers are opened by what happens (`tests/engine/test_breaking.py`)."""

    def hold(self, scope: str) -> None:
        self.arena.run(switch.hold(self.arena.world.api, TENANT, scope=scope, reason=None, by=WHO))
        self.memory.hold(scope)

    def release(self, scope: str) -> None:
        self.arena.run(switch.release(self.arena.world.api, TENANT, scope=scope, by=WHO))
        self._look()
        self.memory.release(scope)
        self.compare()

    # --- people --------------------------------------------------------------------------------------------------

    def ask(self, asked: Asked) -> bool:
        return self._do(self.asking(asked))

    def asking(self, asked: Asked) -> Deed:
        return Deed(
            workflow_id=asked.workflow_id,
            real=lambda: refusable(self._ask(asked)),
            model=lambda: self.memory.ask(asked),
        )

    async def _ask(self, asked: Asked) -> None:
        api, at, ref, word = self.arena.world.api, asked.workflow_id, asked.ref or asked.workflow_id, asked.word
        match asked.verb:
            case "cancel":
                await cancel.cancel(api, TENANT, at, reason=None, by=WHO)
            case "pause":
                await pause.pause(api, TENANT, at, reason=None, by=WHO)
            case "resume":
                await pause.resume(api, TENANT, at, reason=None, by=WHO)
            case "retry":
                await retry.retry(api, TENANT, at, note=None, by=WHO)
            case "saga":
                await compensate.decide_saga(api, TENANT, at, mode=word, note=NOTE, by=WHO)
            case "undo":
                await compensate.settle_undo(api, TENANT, ref, action=word, note=NOTE, by=WHO)
            case "resolve":
                await resolve.resolve(api, TENANT, ref, outcome=word, result=asked.values, note=NOTE, by=WHO)
            case "operate":
                await operate_step.operate(
                    api, TENANT, at, asked.path, action=word, output=asked.values, note=None, by=WHO
                )
            case _:
                await decide_approval.decide(
                    api, TENANT, ref, decision=word, values=asked.values, comment=None, revision=1, by=WHO
                )

    # --- two at once ---------------------------------------------------------------------------------------------

    def cross(self, first: Asked, second: Deed, *, commits: bool) -> bool:
        """`first` has decided and written, and holds the lock; `second` is on its way; then `first` commits, or is
        rolled back. Whether the second was not refused."""
        if second.prepare is not None:
            self.arena.run(second.prepare())
        self._look()
        judge, reads_for = self.memory.judged(first)
        crossing = Crossing(arena=self.arena, first=first, judge=judge, reads_for=reads_for, second=second)
        took, before = self.arena.run(crossing.run(commits=commits))
        if before is not None and commits:
            self.memory.now = before
            self.memory.ask(first)
        if not (second.skips and crossing.locked):
            self._follow(second, took)
        self.compare()
        return took
