"""A tool that is not what it was when it was listed: held, a person asked about the difference, and what follows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.domain.drifting import CHANGE
from app.domain.servers import sha256_of
from app.engine import cancel
from tests.engine import listing
from tests.engine.listing import CHANGED, ScriptedLister, drifted
from tests.engine.people import asked, rest, say_next, told
from tests.engine.world import Worker, World, unknown, uses

WISH = uses(("git-commit", {"message": "first"}))


async def held(world: World, definition: dict[str, Any], *answers: Any) -> tuple[Worker, UUID]:
    """A workflow whose call of `commit` met a changed tool."""
    worker = await listing.worker(world, ScriptedLister())
    world.tools.script["git.commit"] = [lambda request: drifted(request.tool), *answers]
    world.model.answers = [WISH, "done"]
    workflow_id = await world.submit(definition)
    await world.run(worker)
    return worker, workflow_id


async def test_call_is_held_and_a_person_is_shown_what_changed(small_world: World) -> None:
    _, workflow_id = await held(small_world, listing.agent())

    [call] = await small_world.rows("SELECT * FROM calls WHERE kind = 'tool'")
    assert (call["state"], call["held_reason"]) == ("held", "drift")
    assert [record["rule"] for record in call["recovery"]] == ["drift"]
    [approval] = await asked(small_world, workflow_id)
    assert approval["kind"] == "drift"
    assert approval["show"]["diff"] == [
        '- /description: "Make a commit."', '+ /description: "Make a commit, and push it."',
    ]  # fmt: skip
    assert approval["show"]["arguments"] == {"message": "first"}
    assert (await small_world.workflow(workflow_id))["status"] == "waiting"


@pytest.mark.parametrize("definition", [listing.agent(), listing.calls(listing.step())])
async def test_call_is_made_under_the_new_definition_once_a_person_agreed(
    small_world: World, definition: dict[str, Any]
) -> None:
    worker, workflow_id = await held(small_world, definition)

    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    first, second = small_world.tools.sent("git.commit")
    assert (first.definition, second.definition) == (None, sha256_of(CHANGED))
    assert first.arguments == second.arguments
    old, new = await small_world.rows("SELECT * FROM calls WHERE kind = 'tool' ORDER BY n")
    assert (old["state"], new["state"], new["retry_of"]) == ("cancelled", "succeeded", old["id"])
    assert new["change"]["change"] == CHANGE


async def test_model_is_told_when_a_person_did_not_agree(small_world: World) -> None:
    worker, workflow_id = await held(small_world, listing.agent())

    await say_next(small_world, workflow_id, "reject", comment="Not that one.")
    await rest(small_world, worker)

    [result] = told(small_world)
    assert result["is_error"] is True
    assert "has changed since it was listed" in result["content"]
    assert "Not that one." in result["content"]
    assert len(small_world.tools.sent("git.commit")) == 1  # the attempt that sent nothing


async def test_step_fails_when_a_person_did_not_agree(small_world: World) -> None:
    worker, workflow_id = await held(small_world, listing.calls(listing.step()))

    await say_next(small_world, workflow_id, "reject")
    await rest(small_world, worker)

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "approval_rejected"


async def test_person_is_asked_again_when_it_changed_again(small_world: World) -> None:
    again = {**CHANGED, "description": "Make a commit, push it, and tell everybody."}
    worker, workflow_id = await held(small_world, listing.agent(), lambda request: drifted(request.tool, again))

    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)
    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    assert [request.definition for request in small_world.tools.sent("git.commit")] == [
        None, sha256_of(CHANGED), sha256_of(again),
    ]  # fmt: skip
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_gate_is_satisfied_by_the_word_about_the_change(small_world: World) -> None:
    gated = {"tools": {"commit": {"approve": "always"}}}
    worker, workflow_id = await held(small_world, listing.calls(listing.step(), **gated))

    await say_next(small_world, workflow_id, "approve")  # the call
    await rest(small_world, worker)
    await say_next(small_world, workflow_id, "approve")  # the change
    await rest(small_world, worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert len(small_world.tools.sent("git.commit")) == 2


async def test_call_that_may_have_happened_is_in_doubt_and_never_repeated_on_another_tool(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())
    idempotent = {"effect": "idempotent"}
    small_world.tools.script["git.commit"] = [unknown(), lambda request: drifted(request.tool)]

    workflow_id = await small_world.submit(listing.calls(listing.step(), **idempotent))
    await rest(small_world, worker)

    [call] = await small_world.rows("SELECT state FROM calls WHERE kind = 'tool'")
    assert call["state"] == "in_doubt"
    assert await asked(small_world, workflow_id) == []


async def test_tool_that_is_gone_fails_its_call(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())
    small_world.tools.script["git.commit"] = [lambda request: drifted(request.tool, {})]

    workflow_id = await small_world.submit(listing.calls(listing.step()))
    await rest(small_world, worker)

    failure = (await small_world.workflow(workflow_id))["failure"]
    assert "does not list git.commit any more" in failure["message"]


async def test_held_call_goes_with_its_workflow_when_that_is_cancelled(small_world: World) -> None:
    worker, workflow_id = await held(small_world, listing.agent())

    await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason="no", by="ana")
    await rest(small_world, worker)

    assert (await small_world.workflow(workflow_id))["status"] == "cancelled"
    assert await asked(small_world, workflow_id) == []
