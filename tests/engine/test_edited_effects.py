"""A person approves other arguments, or the same a second time; who may say so, and about which revision."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain import conversation, ids
from app.domain.gating import binding
from app.errors import ApproverIsSubmitter, InvalidValue, RevisionChanged
from tests.engine.people import (
    EDITED,
    PAY,
    PAYS,
    agent,
    asked,
    laws,
    paid,
    pay,
    pays,
    rest,
    say,
    say_next,
    told,
    tool_of,
)
from tests.engine.world import World, uses

# --- edited --------------------------------------------------------------------------------------------------------


async def test_edited_call_is_another_call_for_the_bytes_that_were_given(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays("keyed"))

    approval = await say_next(small_world, workflow_id, "edit", values=EDITED)
    await rest(small_world, worker)

    declared = await tool_of(small_world, workflow_id)
    first, second = await small_world.call(workflow_id, "s", 1), await small_world.call(workflow_id, "s", 2)
    assert paid(small_world) == [EDITED]
    assert (first["state"], first["attempts"], second["state"]) == ("cancelled", 0, "succeeded")
    assert (second["retry_of"], second["change"]) == (
        first["id"],
        {"change": "edited", "by": "kim", "diff": ["- /amount: 5", "+ /amount: 3", '- /to: "kim"', '+ /to: "joe"']},
    )
    [event] = await small_world.rows("SELECT data FROM events WHERE type = 'approval.edited'")
    [decided] = await asked(small_world, workflow_id, status="decided")
    [audit] = await small_world.rows("SELECT data FROM audit WHERE action = 'approval.edit'")
    assert event["data"]["sha256"] == decided["arguments_sha256"] == binding(declared, EDITED)
    assert audit["data"]["sha256"] == approval["arguments_sha256"] == binding(declared, PAY)
    await laws(small_world)


async def test_tool_use_gets_one_result_when_its_call_was_edited(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY), (PAYS, EDITED)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)

    await say_next(small_world, workflow_id, "edit", values={**PAY, "amount": 1})
    await rest(small_world, worker)
    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    messages = small_world.model.requests[-1].messages
    assert conversation.check(messages) == []
    assert [block["tool_use_id"][:7] for block in told(small_world)] == ["toolu_0", "toolu_1"]
    assert paid(small_world) == [{**PAY, "amount": 1}, EDITED]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


@pytest.mark.parametrize(
    "values", [None, "kim", [1], {"to": "kim"}, {**PAY, "amount": "5"}, {**PAY, "note": "not in the schema"}]
)
async def test_edit_that_the_tool_would_not_take_is_refused_and_the_question_stays(
    small_world: World, values: Any
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    [approval] = await asked(small_world, workflow_id)

    with pytest.raises(InvalidValue):
        await say(small_world, approval, "edit", values=values)
    await rest(small_world, worker)

    assert (paid(small_world), len(await asked(small_world, workflow_id))) == ([], 1)


async def test_approval_with_other_values_is_refused_as_it_would_not_send_them(small_world: World) -> None:
    workflow_id = await small_world.submit(pays())
    [approval] = await asked(small_world, workflow_id)

    with pytest.raises(InvalidValue):
        await say(small_world, approval, "approve", values=EDITED)

    assert len(await asked(small_world, workflow_id)) == 1


async def test_edited_word_is_used_once_and_its_old_bytes_ask_again(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY)), uses((PAYS, PAY)), uses((PAYS, EDITED)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)

    first = await say_next(small_world, workflow_id, "edit", values=EDITED)
    await rest(small_world, worker)
    second = await say_next(small_world, workflow_id, "reject")
    await rest(small_world, worker)
    third = await say_next(small_world, workflow_id, "reject")
    await rest(small_world, worker)
    await say(small_world, first, "edit", values=EDITED)
    await rest(small_world, worker)

    assert [row["kind"] for row in (first, second, third)] == ["tool", "tool", "repeat"]
    assert paid(small_world) == [EDITED]


async def test_business_key_passes_on_when_its_call_is_edited(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays("keyed", key="order-7"))

    await say_next(small_world, workflow_id, "edit", values=EDITED)
    await rest(small_world, worker)

    edited = await small_world.call(workflow_id, "s", 2)
    key = await small_world.row("SELECT call_id, args_sha256, released_at FROM effect_keys")
    assert key == {"call_id": edited["id"], "args_sha256": edited["args_sha256"], "released_at": None}
    assert [(request.key, request.arguments) for request in small_world.tools.ledger] == [("order-7", EDITED)]
    await laws(small_world)


# --- asked for again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_one_word_covers_the_gate_and_the_repeat_when_both_ask(small_world: World, decision: str) -> None:
    small_world.model.answers = [uses((PAYS, PAY)), uses((PAYS, PAY)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)
    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    [again] = await asked(small_world, workflow_id)
    with pytest.raises(InvalidValue):
        await say(small_world, again, "edit", values=EDITED)
    before = paid(small_world)
    await say(small_world, again, decision)
    await rest(small_world, worker)

    earlier = ids.encode("call", (await small_world.call(workflow_id, "s", 2))["id"])
    assert (again["kind"], again["allow"]) == ("repeat", ["approve", "reject"])
    assert again["show"] == {"tool": "pay", "arguments": PAY, "earlier": earlier, "tainted": True}
    assert again["expires_at"] - again["created_at"] == timedelta(days=1)
    assert (before, len(paid(small_world))) == ([PAY], 2 if decision == "approve" else 1)
    assert [block.get("is_error", False) for block in told(small_world)] == [decision == "reject"]
    await laws(small_world)


async def test_each_of_parallel_copies_needs_its_own_word(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY), (PAYS, PAY), (PAYS, PAY)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)

    questions = await asked(small_world, workflow_id)
    await say(small_world, questions[1], "approve")
    await rest(small_world, worker)
    after_one = paid(small_world)
    await say(small_world, questions[0], "reject")
    await small_world.ripen(worker, "expiry")
    await rest(small_world, worker)

    assert [row["kind"] for row in questions] == ["tool", "repeat", "repeat"]
    assert (after_one, paid(small_world)) == ([PAY], [PAY])
    assert [block.get("is_error", False) for block in told(small_world)] == [True, False, True]


async def test_guard_of_a_tool_that_asks_nobody_still_asks_without_an_end(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY), (PAYS, PAY)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"pay": pay(approve="never")}))

    await rest(small_world, worker)

    [again] = await asked(small_world, workflow_id)
    assert (again["kind"], again["expires_at"], "tainted" in again["show"]) == ("repeat", None, False)
    assert paid(small_world) == [PAY]


# --- who, and which ------------------------------------------------------------------------------------------------


async def test_submitter_is_refused_when_somebody_else_must_agree(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY), (PAYS, PAY)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"pay": pay(approver="other_than_submitter")}), by="sam")
    await rest(small_world, worker)
    questions = await asked(small_world, workflow_id)

    for question, decision in zip(questions, ("edit", "approve"), strict=True):
        with pytest.raises(ApproverIsSubmitter):
            await say(small_world, question, decision, values=EDITED if decision == "edit" else None, by="sam")
    await rest(small_world, worker)
    before = paid(small_world)
    for question in questions:
        await say(small_world, question, "approve", by="kim")
    await rest(small_world, worker)

    assert (len(questions), before, paid(small_world)) == (2, [], [PAY, PAY])


async def test_word_about_another_revision_is_refused(small_world: World) -> None:
    workflow_id = await small_world.submit(pays())
    [approval] = await asked(small_world, workflow_id)

    with pytest.raises(RevisionChanged):
        await say(small_world, approval, "approve", revision=2)

    assert len(await asked(small_world, workflow_id)) == 1
