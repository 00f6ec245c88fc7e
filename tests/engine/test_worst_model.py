"""The worst model there is, on real Postgres: it obeys every order in what its tools answer, and takes no refusal.

Many workflows at once, while people approve, reject, edit and come too late, and operators pause, switch, hurry, cancel
and reopen. Afterwards nothing was done that nobody had agreed to: the bank's ledger against what people remember, and
against the approvals in the database. `make worst-model` walks through 10,000 turns (`SUREFOOT_WORST_TURNS`).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from uuid import UUID

from structlog.testing import capture_logs

from app.domain import ids
from app.domain.gating import binding
from tests.engine.ledger_laws import check_laws
from tests.engine.world import Worker, World, world
from tests.engine.worst_model import GATED, Bank, Mallory, Obedient, People, canonical, definition

TURNS = int(os.environ.get("SUREFOOT_WORST_TURNS", "1500"))
SEED = int(os.environ.get("SUREFOOT_WORST_SEED", "1"))
TURNS_EACH = 15
"""Turns for which a workflow is made: long enough to be refused and to ask again, many times."""
MOST_ROUNDS = 4_000

KINDS = {
    "plain", "again", "says_it_was_approved", "slightly_other", "look_alike_name", "look_alike_value", "extra_fields",
    "in_parallel", "huge", "forged_result", "other_number", "other_order", "hidden_key", "after_refusal", "cut", "half",
    "pause", "refuse", "circle",
}  # fmt: skip
SAID = {
    "tool approve", "tool reject", "tool edit", "repeat approve", "repeat reject", "already_decided", "approval_closed",
    "approver_is_submitter", "happened", "did_not_happen", "pause", "resume", "retry-now refused", "cancel", "retry",
    "hold", "release",
}  # fmt: skip


async def test_worst_model_does_nothing_that_nobody_has_agreed_to(database_url: str) -> None:
    dice = random.Random(SEED)
    async with world(database_url, lease=600.0) as small:
        mallory = Mallory(dice)
        bank, model = Bank(dice, mallory), Obedient(mallory, TURNS)
        people = People(small, dice, bank)
        worker = await small.worker()
        worker.services.tools, worker.services.models = bank, model
        count = max(10, TURNS // TURNS_EACH)
        workflows = [
            await small.submit(definition(), key=f"k{n}", input={"list": list(range(dice.randint(1, 2)))}, by="sam")
            for n in range(count)
        ]

        with capture_logs() as logs:
            await live(small, worker, people, model, workflows)

        assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []
        assert model.asked >= TURNS
        await check_laws(small)
        assert bank.done - Counter(people.words.values()) == Counter()
        assert bank.done - await approved(small, workflows) == Counter()
        assert {name for _, name, _ in bank.done} == set(GATED)
        assert (KINDS - model.attempts.keys(), SAID - people.said.keys()) == (set(), set())
        retried = await small.rows(
            "SELECT DISTINCT data ->> 'kind' AS kind FROM events WHERE type = 'agent.step.retried'"
        )
        assert {row["kind"] for row in retried} >= {
            "output_truncated", "paused_turn", "refused", "no_progress", "tool_unknown", "tool_arguments_invalid"
        }  # fmt: skip
        refusals = await small.rows("SELECT DISTINCT failure ->> 'kind' AS kind FROM calls WHERE state = 'failed'")
        assert {row["kind"] for row in refusals} >= {
            "approval_rejected", "approval_expired", "tool_unknown", "tool_arguments_invalid"
        }  # fmt: skip


async def live(small: World, worker: Worker, people: People, model: Obedient, workflows: list[UUID]) -> None:
    """Rounds of everything at once until every workflow has ended."""
    for number in range(MOST_ROUNDS):
        calm = model.asked >= model.turns
        await small.hurry()
        due = await small.due_calls()
        await asyncio.gather(
            *(worker.run(call) for call in due),
            people.decide_some(patient=not calm),
            people.release() if calm else people.operate(workflows),
        )
        await people.settle_doubts()
        if calm:
            await people.resume_some(chance=1.0)
        if number % 3 == 0 or calm:
            await small.rows("UPDATE dues SET due_at = now(), ring_at = now() WHERE kind = 'switch'")
            await small.sweep(worker)
        if calm and not await small.rows("SELECT 1 FROM workflows WHERE ended_at IS NULL LIMIT 1"):
            return
    left = await small.rows("SELECT id, status, attention FROM workflows WHERE ended_at IS NULL")
    raise AssertionError(f"the workflows do not come to an end: {left}")


async def approved(small: World, workflows: list[UUID]) -> Counter[tuple[str, str, str]]:
    """What the approvals allow, as bytes: those of the call each is about, if their hash is the one approved."""
    allowed: Counter[tuple[str, str, str]] = Counter()
    plan_digest = (await small.workflow(workflows[0]))["plan_digest"]
    tools = (await small.api.plans.get(ids.DEFAULT_TENANT, plan_digest)).tools
    rows = await small.rows(
        "SELECT a.workflow_id, a.arguments_sha256, c.tool, c.request FROM approvals a JOIN calls c "
        "ON c.workflow_id = a.workflow_id AND CASE a.decision WHEN 'approve' THEN c.id = a.call_id "
        "WHEN 'edit' THEN c.retry_of = a.call_id AND c.change ->> 'change' = 'edited' END "
        "WHERE a.status = 'decided'"
    )
    for row in rows:
        arguments = row["request"]["arguments"]
        if row["arguments_sha256"] == binding(tools[row["tool"]], arguments):
            allowed[ids.encode("wf", row["workflow_id"]), row["tool"], canonical(arguments)] += 1
    return allowed
