"""Conversations that grow too long, on real Postgres: a summary takes their place, nothing that was done is lost."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from app.domain import conversation, ids, summaries
from app.domain.outcomes import Failure, Outcome, Usage
from app.domain.states import AttemptOutcome, FailureKind
from app.engine import cancel, retry
from app.ports.world import MaySend, ModelRequest
from tests.engine.world import World, says, tool, uses, world

WINDOW = 1_000_000
"""Of the model behind `fast`."""
FULL = 720_000
"""Tokens: more than seven tenths of it."""
TASK = "Do it for kim. " + "A long task. " * 20
SUMMARY = "1. Goal: help kim. 2. Facts: order 4711."


def counted(outcome: Outcome, tokens: int) -> Outcome:
    """As if the provider had counted that many tokens of the prompt."""
    assert outcome.usage is not None
    usage: Usage = replace(outcome.usage, input_tokens=tokens // 2, cache_read_tokens=tokens - tokens // 2)
    return replace(outcome, usage=usage)


def too_long(status: int = 400, words: str = "prompt is too long: 1200000 tokens > 1000000 maximum") -> Outcome:
    failure = Failure(kind=FailureKind.CONTEXT_TOO_LONG, message=f"The provider refused: {words}", status_code=status)
    return Outcome(certainty=AttemptOutcome.FAILED, failure=failure, status_code=status, sent_after=0.001)


def agent(**step: Any) -> dict[str, Any]:
    tools = {"look": tool("read_only"), "pay": tool("at_most_once", on_repeat="return_recorded")}
    asked = {"agent": {"model": "fast", "tools": list(tools)}, "prompt": "${{ input.task }}", **step}
    return {"name": "agent", "tools": tools, "steps": {"a": asked}, "output": {"said": "${{ steps.a.output }}"}}


async def converse(world: World, answers: list[Any], **step: Any) -> UUID:
    world.model.answers = answers
    workflow_id = await world.submit(agent(**step), input={"task": TASK})
    await world.run(await world.worker())
    return workflow_id


@dataclass
class Slow:
    """A model that answers when it is told to."""

    answer: Callable[[], Awaitable[Outcome]]

    async def send(self, request: ModelRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        assert may_send()
        return await self.answer()


def is_summary(request: ModelRequest) -> bool:
    return str(json.loads(request.messages[-1])["content"]).endswith(summaries.INSTRUCTION)


def first_text(request: ModelRequest) -> str:
    text = json.loads(request.messages[0])["content"]
    assert isinstance(text, str)
    return text


async def calls(world: World, workflow_id: UUID) -> list[dict[str, Any]]:
    return await world.rows("SELECT * FROM calls WHERE workflow_id = %s AND kind = 'model' ORDER BY n", workflow_id)


async def test_agent_whose_window_is_nearly_full_is_summarised_once_and_goes_on(small_world: World) -> None:
    small_world.tools.script = {"pay": [{"payment": "pm_77", "amount": 5}], "look": [{"rows": ["x" * 60_000]}]}

    workflow_id = await converse(
        small_world,
        [uses(("pay", {"amount": 5})), counted(uses(("look", {"q": 1})), FULL), says(SUMMARY), says("paid")],
    )

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"said": "paid"})
    first, second, summary, last = small_world.model.requests
    assert list(summary.messages[:3]) == list(second.messages)
    assert len(summary.messages) == 6
    assert (is_summary(summary), summary.tools_forbidden, summary.free_form) == (True, True, True)
    assert (summary.tools, summary.system) == (first.tools, first.system)
    assert len(last.messages) == 1
    text = first_text(last)
    assert text.startswith(TASK)
    assert SUMMARY in text
    assert '- pay {"amount":5}: done (call_' in text
    assert 'result {"payment":"pm_77","amount":5}' in text
    assert "xxxx" in text
    assert len(text) < 20_000
    assert not (last.tools_forbidden)
    assert not (last.free_form)
    for request in small_world.model.requests:
        assert conversation.check(request.messages) == []


async def test_compaction_leaves_a_record_and_an_event_and_the_old_conversation_as_it_was(small_world: World) -> None:
    workflow_id = await converse(
        small_world, [counted(uses(("look", {"q": 1})), FULL), says(SUMMARY, cost=70), says("done")]
    )

    answer, summary, last = await calls(small_world, workflow_id)
    assert (summary["request"]["purpose"], summary["retry_of"], summary["turn"]) == ("summary", None, 2)
    [record] = summary["recovery"]
    assert (record["kind"], record["change"], record["result"]) == ("context_too_long", "summarise", "succeeded")
    assert (record["used"], record["allowed"], record["source"]) == (1, 2, "default")
    assert "of the 1,000,000 tokens" in record["message"]
    assert summary["change"]["diff"] == record["diff"]
    assert last["change"]["change"] == "summarise"
    assert [line[0] for line in last["change"]["diff"]] == ["-", "+"]
    assert (last["request"]["conversation"], last["request"]["messages"]) == (2, 1)
    [event] = await small_world.rows(
        "SELECT data FROM events WHERE workflow_id = %s AND type = 'agent.context.compacted'", workflow_id
    )
    assert (event["data"]["from"], event["data"]["to"]) == (1, 2)
    assert event["data"]["tokens_before"] > FULL > event["data"]["tokens_after"] * 10
    stored = await small_world.rows(
        "SELECT conversation, role FROM messages WHERE workflow_id = %s ORDER BY conversation, ordinal", workflow_id
    )
    assert [(row["conversation"], row["role"]) for row in stored] == [
        (1, "user"), (1, "assistant"), (1, "user"), (2, "user"), (2, "assistant"),
    ]  # fmt: skip
    assert (await small_world.workflow(workflow_id))["spent_microusd"] == 270
    assert answer["recovery"] == []


@pytest.mark.parametrize("status", [400, 413])
async def test_agent_recovers_when_the_provider_refuses_its_conversation(small_world: World, status: int) -> None:
    small_world.tools.script = {"pay": [{"payment": "pm_1"}], "look": [{"text": "y" * 30_000}]}

    workflow_id = await converse(
        small_world, [uses(("look", {"q": 1}), ("pay", {"amount": 1})), too_long(status), says(SUMMARY), says("done")]
    )

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    _, refused, summary, last = small_world.model.requests
    [said] = [json.loads(body)["content"] for body in summary.messages]
    assert said.startswith(summaries.TRANSCRIPT_HEAD)
    assert said.endswith(summaries.INSTRUCTION)
    assert TASK in said
    assert "assistant calls pay" in said
    assert len(said) < sum(map(len, refused.messages))
    assert (summary.tools, summary.output_schema) == ([], None)
    assert "pm_1" in first_text(last)
    _, failed, asked, answered = await calls(small_world, workflow_id)
    assert (failed["state"], asked["retry_of"], answered["retry_of"]) == ("failed", failed["id"], asked["id"])
    assert "prompt is too long" in asked["recovery"][0]["message"]


async def test_agent_recovers_when_its_answer_does_not_fit_the_window(small_world: World) -> None:
    workflow_id = await converse(
        small_world,
        [
            uses(("look", {"q": 1})),
            counted(says("half", stop_reason="model_context_window_exceeded"), FULL),
            says(SUMMARY),
            says("done"),
        ],
    )

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"said": "done"})
    assert "half" not in first_text(small_world.model.requests[-1])


async def test_first_message_that_is_too_long_alone_fails_the_step_with_the_fix(small_world: World) -> None:
    workflow_id = await converse(small_world, [too_long()] * 3)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "context_too_long")
    assert len(small_world.model.requests) == 1


async def test_transcript_that_is_refused_too_is_not_asked_over_again(small_world: World) -> None:
    workflow_id = await converse(small_world, [uses(("look", {"q": 1})), too_long(), too_long(), says("never asked")])

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "context_too_long"
    assert len(small_world.model.requests) == 3


async def test_two_compactions_in_a_row_that_do_not_shrink_fail_the_step(small_world: World) -> None:
    long = "S" * int(0.6 * FULL * summaries.BYTES_PER_TOKEN)
    look = itertools.count()

    def fuller(request: ModelRequest) -> Outcome:
        return counted(uses(("look", {"q": next(look)})), FULL)

    workflow_id = await converse(
        small_world, [fuller, says(long), fuller, says(long), fuller, too_long(), says("never asked")]
    )

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "context_too_long")
    assert [is_summary(request) for request in small_world.model.requests] == [False, True, False, True, False, False]
    assert (await small_world.events(workflow_id)).count("agent.context.compacted") == 2


async def test_compactions_that_shrink_are_not_counted(small_world: World) -> None:
    look = itertools.count()

    def fuller(request: ModelRequest) -> Outcome:
        return counted(uses(("look", {"q": next(look)})), FULL)

    workflow_id = await converse(small_world, [fuller, says(SUMMARY)] * 4 + [says("done")])

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (await small_world.events(workflow_id)).count("agent.context.compacted") == 4
    assert (await small_world.step(workflow_id, "a"))["conversation"] == 5


async def test_definition_that_allows_no_compaction_gets_none(small_world: World) -> None:
    workflow_id = await converse(
        small_world,
        [counted(uses(("look", {"q": 1})), FULL), too_long(), says("never")],
        retry={"context_too_long": {"max_retries": 0}},
    )

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "context_too_long"
    assert not any(is_summary(request) for request in small_world.model.requests)


async def test_summary_that_is_longer_than_the_conversation_is_not_used(small_world: World) -> None:
    longer = "L" * (2 * FULL * summaries.BYTES_PER_TOKEN)

    workflow_id = await converse(
        small_world, [counted(uses(("look", {"q": 1})), FULL), says(longer), says("done anyway")]
    )

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (await small_world.step(workflow_id, "a"))["conversation"] == 1
    assert (await calls(small_world, workflow_id))[1]["recovery"][0]["result"] == "not shorter"
    assert len(small_world.model.requests[-1].messages) == 3


async def test_model_that_asks_for_tools_instead_of_a_summary_is_asked_over_a_transcript(small_world: World) -> None:
    workflow_id = await converse(
        small_world,
        [counted(uses(("look", {"q": 1})), FULL), uses(("pay", {"amount": 9})), says(SUMMARY), says("done")],
    )

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert small_world.tools.sent("pay") == []
    assert [len(request.messages) for request in small_world.model.requests] == [1, 4, 1, 1]
    assert SUMMARY in first_text(small_world.model.requests[-1])


async def test_summary_that_was_cut_is_used_and_says_so(small_world: World) -> None:
    workflow_id = await converse(
        small_world,
        [counted(uses(("look", {"q": 1})), FULL), says("1. Goal: hel", stop_reason="max_tokens"), says("done")],
    )

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    text = first_text(small_world.model.requests[-1])
    assert "1. Goal: hel\n[The summary was cut off here" in text


async def test_model_that_refuses_to_summarise_fails_the_step_with_its_category(small_world: World) -> None:
    workflow_id = await converse(
        small_world, [counted(uses(("look", {"q": 1})), FULL), says("no", stop_reason="refusal"), says("never")]
    )

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "refused"
    assert len(small_world.model.requests) == 2


async def test_worker_that_dies_while_a_summary_is_written_loses_nothing(small_world: World) -> None:
    small_world.model.answers = [counted(uses(("look", {"q": 1})), FULL), says(SUMMARY), says("done")]
    first, second = await small_world.worker(), await small_world.worker("worker.2")
    workflow_id = await small_world.submit(agent(), input={"task": TASK})
    await small_world.once(first)
    await small_world.once(first)
    [asked] = await small_world.due_calls()

    await first.claim(asked)
    await small_world.lose(first, proof=True)
    await small_world.silence()
    await small_world.sweep(second)
    await small_world.run(second)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert [(call["n"], call["attempts"]) for call in await calls(small_world, workflow_id)] == [(1, 1), (3, 2), (4, 1)]
    assert (await small_world.events(workflow_id)).count("agent.context.compacted") == 1


async def test_summary_that_comes_after_a_cancel_begins_no_conversation(small_world: World) -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def slow() -> Outcome:
        started.set()
        await released.wait()
        return says(SUMMARY)

    small_world.model.answers = [counted(uses(("look", {"q": 1})), FULL)]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(), input={"task": TASK})
    await small_world.once(worker)
    await small_world.once(worker)
    worker.services.models = Slow(slow)
    [asked] = await small_world.due_calls()
    running = asyncio.create_task(worker.run(asked))
    await started.wait()

    await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="op")
    released.set()
    await running

    assert (await small_world.workflow(workflow_id))["status"] == "cancelled"
    assert (await small_world.step(workflow_id, "a"))["conversation"] == 1
    assert (await small_world.events(workflow_id)).count("agent.context.compacted") == 0


async def test_effect_done_before_a_compaction_is_not_done_again_after_it(small_world: World) -> None:
    small_world.tools.script = {"pay": [{"payment": "pm_1"}]}

    workflow_id = await converse(
        small_world,
        [
            counted(uses(("pay", {"amount": 5})), FULL),
            says("(forgot everything)"),
            uses(("pay", {"amount": 5})),
            "done",
        ],
    )

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert len(small_world.tools.sent("pay")) == 1
    assert '- pay {"amount":5}: done' in first_text(small_world.model.requests[2])


async def test_reopened_workflow_goes_on_in_a_well_formed_conversation(small_world: World) -> None:
    workflow_id = await converse(
        small_world, [counted(uses(("look", {"q": 1})), FULL), says("no", stop_reason="refusal")]
    )
    assert (await small_world.workflow(workflow_id))["status"] == "failed"
    small_world.model.answers = [too_long(), says(SUMMARY), says("done")]

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await small_world.run(await small_world.worker("worker.2"))

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    for request in small_world.model.requests:
        assert conversation.check(request.messages) == []


async def test_window_of_a_model_of_ones_own_is_a_setting(database_url: str) -> None:
    async with world(database_url, model_windows={"claude-haiku-5-5": 10_000}) as own:
        workflow_id = await converse(own, [counted(uses(("look", {"q": 1})), 7_100), says(SUMMARY), says("done")])

        assert (await own.workflow(workflow_id))["status"] == "succeeded"
        assert is_summary(own.model.requests[1])
        assert own.model.requests[1].max_tokens == 2_500
