"""The five branches of `AgentRetryPolicy`, the sketch of a retry policy that this product began with, one by one: each
failure type has a recovery of its own, and most of them change the input instead of repeating the call.

    RateLimitError            delay = error.retry_after or 2 ** attempt
    ContextOverflowError      retry with summarized context
    ToolExecutionError        retry the tool call, not the model call; then disable the tool and ask for an alternative
    MalformedResponseError    retry with explicit format instructions, while attempt < 3
    anything else             no retry
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, FailureKind
from tests.engine.conversing import agent, asks, calls, fails, retried, roles, said_to, use, well_formed
from tests.engine.world import World, rate_limited, refused, says, tool

SCHEMA = {"title": {"type": "string"}, "minutes": {"type": "integer"}}
TOOLS = {"look": tool("read_only"), "find": tool("read_only")}


def slow_down() -> Outcome:
    """429, without a word about how long."""
    return Outcome(
        certainty=AttemptOutcome.FAILED, failure=Failure(kind=FailureKind.RATE_LIMITED, message="429"), status_code=429
    )


async def waits(world: World) -> timedelta:
    [row] = await world.rows("SELECT d.due_at - clock_timestamp() AS left FROM dues d WHERE kind = 'call'")
    left: timedelta = row["left"]
    return left


# --- RateLimitError ------------------------------------------------------------------------------------------------


async def test_rate_limit_error_waits_for_retry_after_without_a_worker(small_world: World) -> None:
    small_world.model.answers = [rate_limited(40), says("done")]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(), input={"who": "kim"})

    await small_world.run(worker, hurry=False)
    left, status = await waits(small_world), (await small_world.workflow(workflow_id))["status"]
    await small_world.run(worker)

    assert timedelta(seconds=35) < left < timedelta(seconds=41)  # jitter adds less than a second
    assert status == "running"
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    assert len({tuple(request.messages) for request in small_world.model.requests}) == 1


async def test_rate_limit_error_without_retry_after_backs_off_by_powers_of_two(small_world: World) -> None:
    small_world.model.answers = [*[slow_down() for _ in range(8)], says("done")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    [call] = await calls(small_world, workflow_id)
    waited = [record["waited_ms"] for record in call["recovery"]]
    ceilings = [1000 * min(2**attempt, 60) for attempt in range(8)]
    assert len(waited) == 8
    assert all(0 <= one <= ceiling for one, ceiling in zip(waited, ceilings, strict=True))
    assert max(waited) > 1000  # it grows: full jitter below a ceiling that doubles
    assert [record["change"] for record in call["recovery"]] == [None] * 8


# --- ContextOverflowError ------------------------------------------------------------------------------------------


async def test_context_overflow_error_is_retried_with_a_summarised_context(small_world: World) -> None:
    small_world.model.answers = [
        asks(use("look")),
        fails(FailureKind.CONTEXT_TOO_LONG, status=400),
        says("I looked."),
        says("done"),
    ]
    small_world.tools.script["look"] = [{"text": "word " * 9_000}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    assert roles(small_world, 3) == ["user"]
    first = said_to(small_world, 3)
    assert first.startswith("Do it for kim.")
    assert "I looked." in first
    assert ("context_too_long", "summarise") in await retried(small_world, workflow_id)
    assert len(small_world.tools.ledger) == 1


async def test_context_overflow_error_that_a_summary_does_not_mend_fails(small_world: World) -> None:
    overflow = fails(FailureKind.CONTEXT_TOO_LONG, status=400)
    small_world.model.answers = [asks(use("look")), *[overflow] * 9]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "context_too_long"
    assert len(small_world.model.requests) <= 4  # the call, a summary, a summary of the transcript


# --- ToolExecutionError --------------------------------------------------------------------------------------------


async def test_tool_execution_error_retries_the_tool_call_and_not_the_model_call(small_world: World) -> None:
    small_world.model.answers = [asks(use("look")), says("done")]
    small_world.tools.script["look"] = [refused(423), refused(423), {"found": 1}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (len(small_world.tools.ledger), len(small_world.model.requests)) == (3, 2)
    [call] = await calls(small_world, workflow_id, kind="tool")
    told = [(record["kind"], record["used"], record["allowed"], record["result"]) for record in call["recovery"]]
    assert told == [("tool_error", 1, 2, "succeeded"), ("tool_error", 2, 2, "succeeded")]


async def test_tool_execution_error_that_stays_is_told_to_the_model(small_world: World) -> None:
    small_world.model.answers = [asks(use("look")), says("I do without")]
    small_world.tools.script["look"] = [refused(423)] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 3
    [block] = said_to(small_world, 1)
    assert (block["type"], block["is_error"], block["content"]) == ("tool_result", True, "The tool answered 423.")
    [call] = await calls(small_world, workflow_id, kind="tool")
    told = [(record["change"], record["used"], record["result"]) for record in call["recovery"]]
    assert told == [(None, 1, "failed"), (None, 2, "failed"), ("tell_model", 2, "told")]
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "I do without"}


async def test_tool_execution_error_again_and_again_disables_the_tool_and_asks_for_an_alternative(
    small_world: World,
) -> None:
    small_world.model.answers = [*[asks(use("look", {"n": n})) for n in range(3)], asks(use("find")), says("found")]
    small_world.tools.script["look"] = [refused(422)] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "found"}
    assert "look is disabled for this workflow after 3 failures" in said_to(small_world, 3)
    assert "use find" in said_to(small_world, 3)
    assert "agent.tool.disabled" in await small_world.events(workflow_id)


# --- MalformedResponseError ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [2, 3])
async def test_malformed_response_error_is_retried_with_format_instructions(small_world: World, attempts: int) -> None:
    good = says('{"title": "Sync", "minutes": 30}')
    small_world.model.answers = [says('{"title": "Sync" "minutes": 30}')] * (attempts - 1) + [good]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(schema=SCHEMA), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": {"title": "Sync", "minutes": 30}}
    reminder = said_to(small_world, attempts - 1)
    assert "Expecting ',' delimiter" in reminder
    assert "JSON Schema" in reminder
    assert await retried(small_world, workflow_id) == [("malformed_output", "format_reminder")] * (attempts - 1)
    well_formed(small_world.model.requests)


async def test_malformed_response_error_fails_after_three_attempts(small_world: World) -> None:
    small_world.model.answers = [says("nope")] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(schema=SCHEMA), input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.model.requests) == 3
    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "malformed_output"


# --- anything else -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (fails(FailureKind.INVALID_REQUEST, status=400), "invalid_request"),
        (fails(FailureKind.MODEL_NOT_FOUND, status=404), "model_not_found"),
        (fails(FailureKind.PAYLOAD_TOO_LARGE), "payload_too_large"),
        (fails(FailureKind.INTERNAL), "internal"),
    ],
)
async def test_anything_else_is_not_retried_and_fails_with_the_fix(small_world: World, answer: Any, kind: str) -> None:
    small_world.model.answers = [answer] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"], workflow["failure"]["fix"]) == ("failed", kind, "Mend it.")
    assert (len(small_world.model.requests), workflow["retries"]) == (1, 0)
