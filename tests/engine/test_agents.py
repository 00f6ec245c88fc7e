"""The agent's loop on real Postgres: turns, parallel tools, format reminders, failures, the repeat guard, crashes."""

from __future__ import annotations

import itertools
import json
from typing import Any

from app.domain import conversation, ids
from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, FailureKind
from app.engine import decide_approval
from tests.engine.world import World, ok, rate_limited, refused, says, tool, unknown, uses

SCHEMA = {"title": {"type": "string"}, "minutes": {"type": "integer"}}


def agent(*, tools: dict[str, Any] | None = None, schema: Any = None, **more: Any) -> dict[str, Any]:
    step: dict[str, Any] = {
        "agent": {"model": "fast", "tools": list(tools or {}), **more},
        "prompt": "Do it for ${{ input.who }}.",
    }
    if schema is not None:
        step["output_schema"] = schema
    return {
        "name": "agent",
        "tools": tools or {},
        "steps": {"a": step},
        "output": {"said": "${{ steps.a.output }}"},
    }


def sent_prefix(world: World) -> None:
    """Each request's messages begin with the bytes of the one before it."""
    requests = [list(request.messages) for request in world.model.requests]
    for before, after in itertools.pairwise(requests):
        assert after[: len(before)] == before
    for request in requests:
        assert conversation.check(request) == []


async def test_agent_answers_and_its_tokens_are_billed(small_world: World) -> None:
    small_world.model.answers = [says("hello", cost=120)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"said": "hello"})
    assert (workflow["spent_microusd"], workflow["input_tokens"], workflow["output_tokens"]) == (120, 10, 5)
    assert json.loads(small_world.model.requests[0].messages[0]) == {"role": "user", "content": "Do it for kim."}


async def test_agent_calls_tools_in_parallel_and_gets_all_results_in_one_message(small_world: World) -> None:
    tools = {"look.up": tool("read_only"), "note": tool("idempotent")}
    small_world.model.answers = [
        uses(
            (conversation.wire_name("look.up"), {"q": 1}),
            ("note", {"t": 2}),
            (conversation.wire_name("look.up"), {"q": 3}),
        ),
        "done",
    ]
    small_world.tools.script["look.up"] = [lambda r: {"found": r.arguments["q"]}] * 2
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=tools), input={"who": "kim"})
    await worker.run((await small_world.due_calls())[0])
    at_once = len(await small_world.due_calls())
    await small_world.run(worker)

    assert at_once == 3
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    last = json.loads(small_world.model.requests[1].messages[-1])
    assert [block["type"] for block in last["content"]] == ["tool_result"] * 3
    assert [block["tool_use_id"][:7] for block in last["content"]] == ["toolu_0", "toolu_1", "toolu_2"]
    sent_prefix(small_world)


async def test_malformed_answer_is_asked_for_again_with_the_exact_complaint(small_world: World) -> None:
    small_world.model.answers = [
        says('{"title": "Sync" "minutes": 30}', cost=121),
        says('{"title": "Sync", "minutes": 30}', cost=143),
    ]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(schema=SCHEMA), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert workflow["output"] == {"said": {"title": "Sync", "minutes": 30}}
    assert (workflow["spent_microusd"], workflow["recovery_microusd"], workflow["retries"]) == (264, 121, 1)
    first, second = await small_world.call(workflow_id, "a", 1), await small_world.call(workflow_id, "a", 2)
    assert (first["state"], first["failure"]["kind"]) == ("failed", "malformed_output")
    assert (second["state"], second["retry_of"], second["change"]["change"]) == (
        "succeeded",
        first["id"],
        "format_reminder",
    )
    assert (second["recovery"][0]["kind"], second["recovery"][0]["result"]) == ("malformed_output", "succeeded")
    reminder = json.loads(small_world.model.requests[1].messages[-1])
    assert "Expecting ',' delimiter" in str(reminder["content"])
    sent_prefix(small_world)


async def test_answer_that_stays_malformed_fails_the_step_after_the_allowed_reminders(small_world: World) -> None:
    small_world.model.answers = [says("nope")] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(schema=SCHEMA), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "malformed_output")
    assert len(small_world.model.requests) == 3


async def test_transient_model_failures_repeat_identical_bytes(small_world: World) -> None:
    def fails(kind: FailureKind, certainty: AttemptOutcome) -> Outcome:
        return Outcome(certainty=certainty, failure=Failure(kind=kind, message=kind))

    small_world.model.answers = [
        rate_limited(2),
        fails(FailureKind.OVERLOADED, AttemptOutcome.FAILED),
        fails(FailureKind.SERVER_ERROR, AttemptOutcome.FAILED),
        fails(FailureKind.TIMEOUT, AttemptOutcome.UNKNOWN),
        fails(FailureKind.NETWORK, AttemptOutcome.UNKNOWN),
        "done",
    ]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert len({tuple(request.messages) for request in small_world.model.requests}) == 1
    call = await small_world.call(workflow_id, "a")
    kinds = [record["kind"] for record in call["recovery"]]
    assert kinds == ["rate_limited", "overloaded", "server_error", "timeout", "network"]
    assert call["attempts"] == 6


async def test_failing_tool_is_told_to_the_model_and_not_the_end(small_world: World) -> None:
    tools = {"book": tool("keyed")}
    small_world.model.answers = [uses(("book", {"n": 1})), "told"]
    small_world.tools.script["book"] = [refused(422)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=tools), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "told"}
    [block] = json.loads(small_world.model.requests[1].messages[-1])["content"]
    assert (block["is_error"], len(small_world.model.requests)) == (True, 2)


async def test_tool_error_that_may_pass_is_retried_as_a_tool_call_and_not_as_a_model_call(small_world: World) -> None:
    tools = {"book": tool("keyed")}
    small_world.model.answers = [uses(("book", {"n": 1})), "done"]
    small_world.tools.script["book"] = [refused(409 + 14), {"id": 1}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=tools), input={"who": "kim"})
    await small_world.run(worker)

    assert (len(small_world.model.requests), len(small_world.tools.ledger)) == (2, 2)
    call = await small_world.call(workflow_id, "a", 2)
    assert (call["generation"], call["recovery"][0]["kind"]) == (2, "tool_error")


async def test_unknown_tool_and_misfit_arguments_are_answered_without_being_sent(small_world: World) -> None:
    tools = {"book": tool("at_most_once", input_schema={"n": {"type": "integer"}})}
    small_world.model.answers = [uses(("book", {"n": "x"}), ("fly", {})), "sorry"]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=tools), input={"who": "kim"})
    await small_world.run(worker)

    assert small_world.tools.ledger == []
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "sorry"}
    blocks = json.loads(small_world.model.requests[1].messages[-1])["content"]
    assert [block["is_error"] for block in blocks] == [True, True]
    kinds = [(await small_world.call(workflow_id, "a", n))["failure"]["kind"] for n in (2, 3)]
    assert kinds == ["tool_arguments_invalid", "tool_unknown"]


async def test_effect_in_doubt_is_waited_for_and_never_shown_to_the_model(small_world: World) -> None:
    tools = {"mail": tool("at_most_once"), "look": tool("read_only")}
    small_world.model.answers = [uses(("mail", {"to": "ana"}), ("look", {})), "done"]
    small_world.tools.script["mail"] = [unknown()]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=tools), input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.model.requests) == 1
    assert (await small_world.workflow(workflow_id))["status"] == "waiting"


# --- the repeat guard ----------------------------------------------------------------------------------------------


async def asks_twice(world: World, **more: Any) -> Any:
    tools = {"mail": tool("at_most_once", **more)}
    world.model.answers = [uses(("mail", {"to": "ana"})), uses(("mail", {"to": "ana"})), "done"]
    world.tools.script["mail"] = [{"sent": 1}, {"sent": 2}]
    worker = await world.worker()
    workflow_id = await world.submit(agent(tools=tools), input={"who": "kim"})
    await world.run(worker)
    return worker, workflow_id


async def decide(world: World, decision: str) -> None:
    [approval] = await world.rows("SELECT * FROM approvals WHERE status = 'open'")
    await decide_approval.decide(
        world.api,
        ids.DEFAULT_TENANT,
        approval["id"],
        decision=decision,
        values=None,
        comment=None,
        revision=approval["revision"],
        by="kim",
    )


async def test_same_effect_asked_for_again_is_held_until_a_person_approves(small_world: World) -> None:
    worker, workflow_id = await asks_twice(small_world)

    held = await small_world.call(workflow_id, "a", 4)
    before = len(small_world.tools.ledger)
    await decide(small_world, "approve")
    await small_world.run(worker)

    assert (held["state"], held["held_reason"], before) == ("held", "repeat", 1)
    assert len(small_world.tools.ledger) == 2
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_rejected_repeat_is_never_sent_and_the_model_is_told(small_world: World) -> None:
    worker, workflow_id = await asks_twice(small_world)

    await decide(small_world, "reject")
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 1
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["duplicates_prevented"], workflow["attention"]) == ("succeeded", 1, [])
    [block] = json.loads(small_world.model.requests[2].messages[-1])["content"]
    assert block["is_error"]


async def test_repeat_may_be_answered_from_the_record(small_world: World) -> None:
    _, workflow_id = await asks_twice(small_world, on_repeat="return_recorded")

    assert len(small_world.tools.ledger) == 1
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    [block] = json.loads(small_world.model.requests[2].messages[-1])["content"]
    assert block["content"] == '{"sent":1}'


async def test_repeat_within_one_message_is_held_as_well(small_world: World) -> None:
    small_world.model.answers = [uses(("mail", {"to": "ana"}), ("mail", {"to": "ana"})), "done"]
    worker = await small_world.worker()

    await small_world.submit(agent(tools={"mail": tool("at_most_once")}), input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 1


# --- crashes -------------------------------------------------------------------------------------------------------


async def test_agent_goes_on_at_every_boundary_where_its_worker_dies(small_world: World) -> None:
    tools = {"look": tool("read_only"), "mail": tool("keyed")}
    small_world.model.answers = [uses(("look", {}), ("mail", {"to": "ana"})), "done"]
    survivor = await small_world.worker("survivor")
    workflow_id = await small_world.submit(agent(tools=tools), input={"who": "kim"})

    for n in range(30):
        due = await small_world.due_calls()
        if not due:
            break
        doomed = await small_world.worker(f"doomed.{n}")
        await doomed.claim(due[0])
        await small_world.lose(doomed)
        await small_world.sweep(survivor)
        await survivor.run(due[0])

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert len(small_world.tools.sent("mail")) == 1
    sent_prefix(small_world)


async def test_late_model_answer_is_used_and_its_unsent_repeat_is_not_paid(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    [call_id] = await small_world.due_calls()

    async def lost_meanwhile() -> Any:
        await small_world.lose(first)
        await small_world.sweep(second)
        return says("late")

    class Slow:
        async def send(self, request: Any, *, seconds: float, may_send: Any) -> Outcome:
            may_send()
            return await lost_meanwhile()

    first.services.models = Slow()
    await first.run(call_id)
    await small_world.run(second)

    assert small_world.model.requests == []
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "late"}


async def test_turns_are_limited(small_world: World) -> None:
    small_world.model.answers = [uses(("look", {"n": n})) for n in range(9)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools={"look": tool("read_only")}, max_turns=3), input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.model.requests) == 3
    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "budget_exceeded"


async def test_tool_reply_that_postgres_cannot_store_is_a_success_with_an_opaque_output(small_world: World) -> None:
    small_world.model.answers = [uses(("look", {})), "done"]
    nasty = ok({})
    evidence = type(nasty.evidence)(body=b'{"x": "\\u0000", "y": "\\ud800", "z": NaN}', media_type="application/json")  # type: ignore[misc]
    small_world.tools.script["look"] = [
        Outcome(
            certainty=AttemptOutcome.SUCCEEDED, evidence=evidence, status_code=200, sent_after=0.1, received_after=0.2
        )
    ]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools={"look": tool("read_only")}), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (await small_world.call(workflow_id, "a", 2))["result"]["opaque"] is True
