"""Definitions that were checked before: the same answer as a check, whatever was registered or submitted meanwhile."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from app.domain import ids
from app.engine import definitions, submit
from app.engine.definitions import Definitions, Known, Written
from app.engine.register_tools import register_tools
from app.errors import DefinitionInvalid
from app.store import tenants
from tests.engine.submitting import DEFINITION, submission
from tests.engine.world import World, tool

NAMED: dict[str, Any] = {"name": "named", "steps": {"s": {"tool": "shared", "with": {}}}}
"""Uses a registered tool."""


async def plan_of(world: World, workflow_id: UUID) -> dict[str, Any]:
    row = await world.row(
        "SELECT p.body FROM plans p JOIN workflows w ON w.tenant_id = p.tenant_id AND w.plan_digest = p.digest "
        "WHERE w.id = %s",
        workflow_id,
    )
    return dict(row["body"])


async def register(world: World, *, tenant: UUID = ids.DEFAULT_TENANT, **changed: Any) -> None:
    await register_tools(world.api.database, {"shared": tool("idempotent", **changed)}, tenant_id=tenant)


async def test_workflow_pins_the_new_tool_when_it_was_registered_again_between_two_submissions(
    small_world: World,
) -> None:
    await register(small_world, timeout="5s")
    first = await submit.submit(small_world.api, submission(NAMED, key="a"))
    await register(small_world, timeout="7s")

    second = await submit.submit(small_world.api, submission(NAMED, key="b"))

    timeouts = [
        (await plan_of(small_world, one.workflow_id))["tools"]["shared"]["timeout_ms"] for one in (first, second)
    ]
    assert timeouts == [5000, 7000]


async def test_workflow_pins_the_new_tool_when_another_process_registered_it(small_world: World) -> None:
    await register(small_world, timeout="5s")
    elsewhere = small_world.services()
    await submit.submit(small_world.api, submission(NAMED, key="a"))
    await submit.submit(elsewhere, submission(NAMED, key="b"))
    await register(small_world, timeout="7s")

    third = await submit.submit(elsewhere, submission(NAMED, key="c"))

    assert (await plan_of(small_world, third.workflow_id))["tools"]["shared"]["timeout_ms"] == 7000


async def test_submission_is_refused_when_its_tool_is_gone_since_the_last_one(small_world: World) -> None:
    await register(small_world)
    await submit.submit(small_world.api, submission(NAMED, key="a"))
    await small_world.rows("DELETE FROM tools")

    with pytest.raises(DefinitionInvalid) as refused:
        await submit.submit(small_world.api, submission(NAMED, key="b"))

    assert [fault.pointer for fault in refused.value.faults] == ["/steps/s/tool"]
    assert await small_world.row("SELECT count(*) AS n FROM idempotency_keys") == {"n": 1}


async def test_tenant_gets_its_own_tool_when_another_tenant_sent_the_same_definition(small_world: World) -> None:
    other = uuid7()
    async with small_world.api.database.hot("test") as connection:
        await tenants.ensure(connection, tenant_id=other, name="other", signing_secret="whsec_" + "QUJD" * 8)
    await register(small_world, timeout="5s")
    await submit.submit(small_world.api, submission(NAMED, key="a"))

    with pytest.raises(DefinitionInvalid):
        await submit.submit(small_world.api, submission(NAMED, key="a", tenant=other))
    await register(small_world, tenant=other, timeout="9s")
    second = await submit.submit(small_world.api, submission(NAMED, key="a", tenant=other))

    assert (await plan_of(small_world, second.workflow_id))["tools"]["shared"]["timeout_ms"] == 9000


async def test_definition_is_stored_again_when_its_rows_are_gone(small_world: World) -> None:
    await submit.submit(small_world.api, submission(key="a"))
    await small_world.rows("DELETE FROM definitions")
    await small_world.rows("DELETE FROM plans")

    submitted = await submit.submit(small_world.api, submission(key="b"))

    assert (await plan_of(small_world, submitted.workflow_id))["name"] == "one"
    assert await small_world.row("SELECT count(*) AS n FROM definitions") == {"n": 1}


@pytest.mark.parametrize(
    "other",
    [
        submission({**DEFINITION, "steps": {"t": {"set": {}}, "s": {"set": {}}}}),
        submission(text="name: one\nsteps: {s: {set: {}}, t: {set: {}}}\n"),
        submission(text="name: one\n\nsteps: {s: {set: {}}, t: {set: {}}}\n"),
        submission({**DEFINITION, "steps": {"s": {"set": {}}, "t": {"set": {}}}}, source_name="a.yaml"),
        submission({**DEFINITION, "steps": {"s": {"set": {}}, "t": {"set": {}}}}, tenant=uuid7()),
    ],
    ids=["order of steps", "text", "lines of text", "file's name", "tenant"],
)
def test_definition_is_another_one_when_anything_its_plan_depends_on_differs(other: Any) -> None:
    first = submission({**DEFINITION, "steps": {"s": {"set": {}}, "t": {"set": {}}}})
    texts = submission(text="name: one\nsteps: {t: {set: {}}, s: {set: {}}}\n")

    names = {definitions.written_by(one)[0] for one in (first, texts, other)}

    assert len(names) == 3


async def test_definition_is_checked_once_when_it_is_submitted_often(small_world: World) -> None:
    await submit.submit(small_world.api, submission(key="a"))
    before = small_world.api.definitions.find(definitions.written_by(submission())[0])

    await submit.submit(small_world.api, submission(key="b", given={"n": 8}))

    assert before is not None
    assert small_world.api.definitions.find(definitions.written_by(submission())[0]) is before
    assert len(small_world.api.definitions) == 1


async def test_refused_definition_is_not_kept_when_it_comes_again(small_world: World) -> None:
    for key in ("a", "b"):
        with pytest.raises(DefinitionInvalid):
            await submit.submit(small_world.api, submission({"name": "x", "steps": {"a": {"tool": "nope"}}}, key=key))

    assert len(small_world.api.definitions) == 0


async def test_definitions_are_bounded_when_many_different_ones_come(small_world: World) -> None:
    await submit.submit(small_world.api, submission())
    known: Known | None = small_world.api.definitions.find(definitions.written_by(submission())[0])
    assert known is not None
    kept = Definitions()

    for n in range(definitions.KEPT + 5):
        kept.keep(Written(ids.DEFAULT_TENANT, False, str(n), None), known, size=10)
    many = len(kept)
    kept.keep(Written(ids.DEFAULT_TENANT, False, "large", None), known, size=definitions.KEPT_BYTES - 15)
    few = len(kept)
    kept.keep(Written(ids.DEFAULT_TENANT, False, "too large", None), known, size=definitions.KEPT_BYTES + 1)

    assert (many, few, len(kept)) == (definitions.KEPT, 2, 2)
    assert kept.find(Written(ids.DEFAULT_TENANT, False, "large", None)) is known
    assert kept.find(Written(ids.DEFAULT_TENANT, False, "too large", None)) is None
