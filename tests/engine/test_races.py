"""Two of them at once, decided once: on real Postgres, over connections of their own, a thousand times each.

Every round is a workflow of its own in the same state, and two actors that begin up to some milliseconds apart, by a
seed. Exactly one of the legal results follows; both got an answer that is true afterwards (a refusal only if they
lost); the counters are right. A run in which one of the orders never occurred proves nothing, and fails.

`make races` runs 1,000 rounds of each (SUREFOOT_RACES); without it there are 150.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import pytest

from app.domain import ids
from app.domain.facts import ApprovalExpired
from app.engine import decide_approval, pause, record, resolve, retry, sweep, switch
from app.errors import AlreadyDecided, ApprovalClosed, NotInDoubt, NotPossible
from tests.engine.clones import KEY, Clone, clones
from tests.engine.ledger_laws import check_laws
from tests.engine.operations import TENANT
from tests.engine.racing import AT_ONCE, ROUNDS, Actor, Arena, expect_every_order, linger, race
from tests.engine.world import ok, one, refused, tool, world


@pytest.fixture
async def arena(database_url: str) -> AsyncIterator[Arena]:
    """Leases that outlive every race: nobody beats here, and a worker that fences itself would race no more."""
    async with world(database_url, lease=600.0) as made:
        yield Arena(world=made, worker=await made.worker("one"), second=await made.worker("two"))


ENDED = """
SELECT w.id AS workflow_id, w.status, w.effects_done, w.effects_abandoned, c.state, c.attempts, s.state AS step
FROM workflows w JOIN calls c ON c.workflow_id = w.id JOIN steps s ON s.workflow_id = w.id AND s.path = c.step"""


async def test_cancel_and_finish_are_decided_once_when_they_meet(arena: Arena) -> None:
    proto = await arena.claimed(one("at_most_once"))
    copies = await clones(arena.world, proto.workflow_id, ROUNDS)

    told = await race(copies, lambda c: (arena.cancels(c), arena.recorded(c.claimed(proto), ok(1))), seed=1)

    rows, orders = await arena.by_workflow(ENDED), Counter[str]()
    for copy, (cancelled, _) in zip(copies, told, strict=True):
        row = rows[copy.workflow_id]
        lost = isinstance(cancelled, NotPossible)
        assert row["status"] == ("succeeded" if lost else "cancelled")
        assert (row["state"], row["step"], row["effects_done"]) == ("succeeded", "succeeded", 1)
        orders["finished first" if lost else "cancelled first"] += 1
    await check_laws(arena.world)
    expect_every_order(orders, "finished first", "cancelled first")


async def test_cancel_and_claim_are_decided_once_when_they_meet(arena: Arena) -> None:
    workflow_id = await arena.world.submit(one("at_most_once"))
    call = (await arena.world.call(workflow_id, "s"))["id"]
    copies = await clones(arena.world, workflow_id, ROUNDS)

    def claims(copy: Clone) -> Actor:
        return lambda: arena.worker.claim(copy.of(call))

    told = await race(copies, lambda c: (arena.cancels(c), claims(c)), seed=2)
    claimed = {copy.n: got for copy, (_, got) in zip(copies, told, strict=True) if got is not None}
    meanwhile = await arena.by_workflow(ENDED)
    for one_claimed in claimed.values():
        await record.record(arena.worker.services, one_claimed, ok(1))

    rows, orders = await arena.by_workflow(ENDED), Counter[str]()
    for copy, (cancelled, _) in zip(copies, told, strict=True):
        row, sent = rows[copy.workflow_id], copy.n in claimed
        assert not isinstance(cancelled, NotPossible)
        assert meanwhile[copy.workflow_id]["status"] == ("cancelling" if sent else "cancelled")
        assert (row["status"], row["state"]) == ("cancelled", "succeeded" if sent else "cancelled")
        assert (row["attempts"], row["effects_done"]) == ((1, 1) if sent else (0, 0))
        orders["claimed first" if sent else "cancelled first"] += 1
    await check_laws(arena.world)
    expect_every_order(orders, "claimed first", "cancelled first")


ASKS: Final = {
    "name": "asks",
    "steps": {"s": {"approval": {"title": "Go?", "expires": "1h"}}},
    "output": {"decision": "${{ steps.s.output.decision }}"},
}
DECIDED: Final = """
SELECT w.id AS workflow_id, w.status, w.output->>'decision' AS output, w.waits, a.status AS approval, a.decision, a.by,
  (SELECT count(*) FROM events e WHERE e.workflow_id = w.id AND e.type LIKE 'approval.%%ed'
     AND e.type <> 'approval.requested') AS told,
  (SELECT count(*) FROM events e WHERE e.workflow_id = w.id AND e.type = 'workflow.succeeded') AS ends
FROM workflows w JOIN approvals a ON a.workflow_id = w.id""".replace("%%", "%")


def decides(arena: Arena, copy: Clone, approval: UUID, decision: str, by: str) -> Actor:
    return lambda: decide_approval.decide(
        arena.world.api, TENANT, copy.of(approval), decision=decision, values=None, comment=None, revision=1, by=by
    )


async def test_approval_and_its_expiry_are_decided_once_when_they_meet(arena: Arena) -> None:
    workflow_id = await arena.world.submit(ASKS)
    approval = (await arena.world.row("SELECT id FROM approvals"))["id"]
    copies = await clones(arena.world, workflow_id, ROUNDS)

    def expires(copy: Clone) -> Actor:
        async def act() -> None:
            # Its time is now; the sweep that finds it skips a workflow that somebody holds, and comes again.
            async with arena.second.services.database.hot("expiring", size=AT_ONCE) as connection:
                await connection.execute(
                    "UPDATE approvals SET expires_at = clock_timestamp() WHERE workflow_id = %s AND status = 'open'",
                    (copy.workflow_id,),
                )
            fact = ApprovalExpired(approval_id=copy.of(approval), step="s", call_id=None)
            await sweep.bring(arena.second.services, {copy.workflow_id: [fact]})
            await sweep.bring(arena.second.services, {copy.workflow_id: [fact]})

        return act

    told = await race(copies, lambda c: (decides(arena, c, approval, "approve", "kim"), expires(c)), seed=3)

    rows, orders = await arena.by_workflow(DECIDED), Counter[str]()
    for copy, (answer, _) in zip(copies, told, strict=True):
        row = rows[copy.workflow_id]
        late = isinstance(answer, ApprovalClosed)
        assert (row["approval"], row["output"]) == (("expired", "reject") if late else ("decided", "approve"))
        assert (row["status"], row["waits"], row["told"], row["ends"]) == ("succeeded", 0, 1, 1)
        orders["expired first" if late else "approved first"] += 1
    await check_laws(arena.world)
    expect_every_order(orders, "expired first", "approved first")


async def test_two_people_decide_once_when_they_answer_together(arena: Arena) -> None:
    workflow_id = await arena.world.submit(ASKS)
    approval = (await arena.world.row("SELECT id FROM approvals"))["id"]
    copies = await clones(arena.world, workflow_id, ROUNDS)
    second = {copy.n: "approve" if copy.n % 3 == 0 else "reject" for copy in copies}

    told = await race(
        copies,
        lambda c: (decides(arena, c, approval, "approve", "kim"), decides(arena, c, approval, second[c.n], "lee")),
        seed=4,
    )

    rows, orders = await arena.by_workflow(DECIDED), Counter[str]()
    for copy, answers in zip(copies, told, strict=True):
        row = rows[copy.workflow_id]
        said = {"kim": "approve", "lee": second[copy.n]}
        assert (row["decision"], row["output"]) == (said[row["by"]], said[row["by"]])
        for who, answer in zip(said, answers, strict=True):
            assert isinstance(answer, AlreadyDecided) == (said[who] != row["decision"])
        assert (row["status"], row["told"], row["ends"]) == ("succeeded", 1, 1)
        orders[f"{row['by']} first, both say {second[copy.n]}" if second[copy.n] == "approve" else row["by"]] += 1
    await check_laws(arena.world)
    both = "first, both say approve"
    expect_every_order(orders, "kim", "lee", f"kim {both}", f"lee {both}")


async def test_verdict_and_late_evidence_are_decided_once_when_they_meet(arena: Arena) -> None:
    proto = await arena.claimed(one("at_most_once"))
    await arena.world.lose(arena.worker)
    await arena.world.silence()
    await arena.world.sweep(arena.second)
    await arena.world.end_quarantines()
    copies = await clones(arena.world, proto.workflow_id, ROUNDS)
    verdicts = ("happened", "did_not_happen", "abandon")

    def says(copy: Clone) -> Actor:
        return lambda: resolve.resolve(
            arena.world.api, TENANT, copy.of(proto.call_id), outcome=verdicts[copy.n % 3], result=2, note="?", by="kim"
        )

    told = await race(copies, lambda c: (says(c), arena.recorded(c.claimed(proto), ok(1), by=arena.second)), seed=5)

    rows = await arena.by_workflow(ENDED)
    contradicted = await arena.by_workflow(
        "SELECT workflow_id, count(*) AS n FROM events WHERE type = 'effect.contradicted' GROUP BY workflow_id"
    )
    orders = Counter[str]()
    for copy, (answer, _) in zip(copies, told, strict=True):
        row, verdict = rows[copy.workflow_id], verdicts[copy.n % 3]
        late = isinstance(answer, NotInDoubt)
        given_up = verdict == "abandon" and not late
        assert (row["status"], row["state"]) == (("failed", "abandoned") if given_up else ("succeeded", "succeeded"))
        assert (row["effects_done"], row["effects_abandoned"]) == ((0, 1) if given_up else (1, 0))
        against = contradicted.get(copy.workflow_id, {"n": 0})["n"]
        assert against == (0 if late or verdict == "happened" else 1)
        orders["evidence" if late else verdict] += 1
    await check_laws(arena.world)
    expect_every_order(orders, "evidence", *verdicts)


CHAIN: Final = {
    "name": "chain",
    "tools": {"do": tool("at_most_once")},
    "steps": {"s": {"tool": "do", "with": {}}, "b": {"tool": "do", "with": {}, "needs": ["s"]}},
}


@pytest.mark.parametrize("last", [True, False])
async def test_pause_and_record_are_decided_once_when_they_meet(arena: Arena, last: bool) -> None:
    """Whether the call in flight is the workflow's last, or another follows."""
    proto = await arena.claimed(one("at_most_once") if last else CHAIN)
    copies = await clones(arena.world, proto.workflow_id, (ROUNDS + 1) // 2)

    def pauses(copy: Clone) -> Actor:
        return lambda: pause.pause(arena.world.api, TENANT, copy.workflow_id, reason=None, by="kim")

    told = await race(copies, lambda c: (pauses(c), arena.recorded(c.claimed(proto), ok(1))), seed=6)

    rows = await arena.by_workflow(
        """SELECT w.id AS workflow_id, w.status, w.held, w.open_calls, (SELECT held_reason FROM calls c
             WHERE c.workflow_id = w.id AND c.step = 'b') AS held_by,
             (SELECT seq FROM events e WHERE e.workflow_id = w.id AND type = 'workflow.paused') AS paused,
             (SELECT seq FROM events e WHERE e.workflow_id = w.id AND type = 'agent.step.succeeded') AS recorded
           FROM workflows w"""
    )
    orders = Counter[str]()
    for copy, (answer, _) in zip(copies, told, strict=True):
        row = rows[copy.workflow_id]
        paused_first = row["paused"] is not None and row["paused"] < row["recorded"]
        if last:
            assert (row["status"], isinstance(answer, NotPossible)) == ("succeeded", not paused_first)
        else:
            assert answer is None
            assert (row["status"], row["held_by"], row["held"], row["open_calls"]) == ("paused", "pause", 1, 0)
        orders["paused first" if paused_first else "recorded first"] += 1
    await check_laws(arena.world)
    expect_every_order(orders, "paused first", "recorded first")


async def test_two_retries_reopen_once_when_they_come_together(arena: Arena) -> None:
    proto = await arena.claimed(one("keyed"))
    await record.record(arena.worker.services, proto, refused(422))
    copies = await clones(arena.world, proto.workflow_id, ROUNDS)

    def retries(copy: Clone, by: str) -> Actor:
        return lambda: retry.retry(arena.world.api, TENANT, copy.workflow_id, note=None, by=by)

    told = await race(copies, lambda c: (retries(c, "kim"), retries(c, "lee")), seed=7)

    rows = await arena.by_workflow(
        """SELECT w.id AS workflow_id, w.status, w.steps_open, (SELECT count(*) FROM calls c WHERE c.workflow_id = w.id)
             AS calls, (SELECT count(*) FROM events e WHERE e.workflow_id = w.id AND type = 'workflow.reopened') AS told
           FROM workflows w"""
    )
    audits = await arena.world.rows("SELECT object, actor FROM audit WHERE action = 'workflow.retry'")
    actors = {row["object"]: row["actor"] for row in audits}
    orders = Counter[str]()
    for copy, answers in zip(copies, told, strict=True):
        row = rows[copy.workflow_id]
        assert answers == (None, None)
        assert (row["status"], row["steps_open"], row["calls"], row["told"]) == ("running", 1, 2, 1)
        orders[actors[ids.encode("wf", copy.workflow_id)]] += 1
    assert len(audits) == ROUNDS
    await check_laws(arena.world)
    expect_every_order(orders, "kim", "lee")


async def test_hold_release_and_claim_are_decided_once_when_they_meet(arena: Arena) -> None:
    """Each round has a tenant of its own; in every second the switch is released again at once."""
    workflow_id = await arena.world.submit(one("at_most_once"))
    call = (await arena.world.call(workflow_id, "s"))["id"]
    copies = await clones(arena.world, workflow_id, ROUNDS, tenants=True)
    dice = random.Random(80)
    waits = {copy.n: dice.uniform(0, 0.01) for copy in copies}

    def holds(copy: Clone) -> Actor:
        async def act() -> None:
            assert copy.tenant_id is not None
            await switch.hold(arena.world.api, copy.tenant_id, scope="tool:do", reason=None, by="kim")
            if copy.n % 2:
                await linger(waits[copy.n])
                await switch.release(arena.world.api, copy.tenant_id, scope="tool:do", by="kim")

        return act

    def performs(copy: Clone) -> Actor:
        return lambda: arena.worker.run(copy.of(call))

    await race(copies, lambda c: (holds(c), performs(c)), seed=8)

    states = """SELECT c.workflow_id, c.state, c.attempts, d.due_at <= clock_timestamp() AS ripe
        FROM calls c LEFT JOIN dues d ON d.ref = c.id"""
    rows, orders = await arena.by_workflow(states), Counter[str]()
    for copy in copies:
        row, released = rows[copy.workflow_id], bool(copy.n % 2)
        sent = row["state"] == "succeeded"
        assert (row["state"], row["attempts"]) in (("succeeded", 1), ("held", 0), *([("due", 0)] if released else []))
        assert sent or row["ripe"] == released, "what a released switch holds must not wait for the next look"
        orders[f"{'released, ' if released else ''}{'sent' if sent else 'held'}"] += 1
    await check_laws(arena.world)
    names = ("sent", "held", "released, sent", "released, held")
    expect_every_order(orders, *names)


async def test_owners_end_and_the_one_that_attaches_meet_and_nobody_waits_for_ever(arena: Arena) -> None:
    """In every second round the owner is refused, and the key is free for the one that waited."""
    keyed = {"tool": "do", "with": {"n": 1}, "idempotency_key": "${{ input.k }}"}
    tools = {"do": tool("keyed"), "look": tool("read_only")}
    owner = await arena.claimed({"name": "owner", "tools": tools, "steps": {"s": keyed}}, input={"k": KEY}, key="o")
    steps = {"a": {"tool": "look", "with": {}}, "s": {**keyed, "needs": ["a"]}}
    waiter = await arena.claimed({"name": "waiter", "tools": tools, "steps": steps}, input={"k": KEY}, key="w")
    owners = await clones(arena.world, owner.workflow_id, ROUNDS)
    waiters = await clones(arena.world, waiter.workflow_id, ROUNDS)

    def both(copy: Clone) -> tuple[Actor, Actor]:
        ends = refused(422) if copy.n % 2 else ok({"id": copy.n})
        mine = waiters[copy.n - 1].claimed(waiter)
        return arena.recorded(copy.claimed(owner), ends), arena.recorded(mine, ok(1), by=arena.second)

    await race(owners, both, seed=9)

    attached = await arena.by_workflow("SELECT DISTINCT workflow_id FROM events WHERE type = 'effect.attached'")
    late = await arena.world.rows(
        """SELECT c.id FROM calls c JOIN dues d ON d.ref = c.id AND d.kind = 'attached' JOIN calls o ON o.id = c.target
           WHERE c.held_reason = 'attached' AND o.ended_at IS NOT NULL AND d.due_at > clock_timestamp()"""
    )
    assert late == [], "the owner has ended, and nobody told the one that waits"
    for _ in range(2 + ROUNDS // 100):
        await arena.world.sweep(arena.second)
    await arena.world.run(arena.second)
    rows = await arena.by_workflow(
        """SELECT w.id AS workflow_id, w.status, s.output, c.attempts, c.key FROM workflows w
             JOIN steps s ON s.workflow_id = w.id AND s.path = 's'
             JOIN calls c ON c.workflow_id = w.id AND c.step = s.path"""
    )
    orders = Counter[str]()
    for first, second in zip(owners, waiters, strict=True):
        done, freed, row = rows[first.workflow_id], bool(first.n % 2), rows[second.workflow_id]
        assert (done["status"], row["status"]) == ("failed" if freed else "succeeded", "succeeded")
        assert row["attempts"] == (1 if freed else 0)
        assert row["output"] == ({"ok": True} if freed else {"id": first.n})
        assert not freed or row["key"] == f"{KEY}/{first.n}#2"
        waited = second.workflow_id in attached
        orders[f"{'refused' if freed else 'done'}, {'waited' if waited else 'came later'}"] += 1
    await check_laws(arena.world)
    # Who comes after a success attaches, too, and has its result at once: only the refused ones tell the order.
    names = ("done, waited", "refused, waited", "refused, came later")
    expect_every_order(orders, *names)
