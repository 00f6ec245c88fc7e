"""What an HTTP tool's `output` makes of an answer, and that one that does not fit takes nothing away."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.outcomes import Evidence, Outcome
from app.domain.states import AttemptOutcome
from tests.engine.world import World, ok


def definition(output: Any) -> dict[str, Any]:
    http = {"method": "POST", "url": "http://127.0.0.1:9/do", "output": output}
    tools = {"do": {"http": http, "effect": "at_most_once"}}
    return {"name": "x", "tools": tools, "steps": {"s": {"tool": "do"}}, "output": {"got": "${{ steps.s.output }}"}}


async def made(world: World, answer: Any, output: Any) -> Any:
    world.tools.script["do"] = [answer]
    worker = await world.worker()
    workflow_id = await world.submit(definition(output))
    await world.run(worker)
    workflow = await world.workflow(workflow_id)
    assert workflow["status"] == "succeeded"
    assert len(world.tools.ledger) == 1
    return workflow["output"]["got"]


@pytest.mark.parametrize(
    ("output", "made_of_it"),
    [
        ("${{ body.data }}", [1, 2]),
        ({"first": "${{ body.data[0] }}", "status": "${{ status }}"}, {"first": 1, "status": 200}),
    ],
)
async def test_output_is_made_of_status_and_body(small_world: World, output: Any, made_of_it: Any) -> None:
    assert await made(small_world, {"data": [1, 2], "more": "x" * 100}, output) == made_of_it


async def test_output_that_does_not_fit_the_answer_is_opaque_and_the_effect_is_done(small_world: World) -> None:
    found = await made(small_world, {"other": 1}, "${{ body.data[0].id }}")

    assert found["opaque"] is True
    assert "`output` does not fit" in found["reason"]
    assert (await small_world.rows("SELECT effects_done FROM workflows"))[0]["effects_done"] == 1


async def test_answer_that_cannot_be_read_stays_what_it_is(small_world: World) -> None:
    odd = Outcome(
        certainty=AttemptOutcome.SUCCEEDED,
        evidence=Evidence(body=b"\xff\xfe", media_type="application/json"),
        status_code=200,
        sent_after=0.001,
        received_after=0.002,
    )

    assert (await made(small_world, odd, "${{ body.data }}"))["reason"].startswith("not UTF-8")


async def test_output_is_the_body_when_nothing_is_said(small_world: World) -> None:
    assert await made(small_world, ok({"data": 1}), None) == {"data": 1}
