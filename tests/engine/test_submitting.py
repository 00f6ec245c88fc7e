"""Submission: one key, one workflow; every fault at once; nothing is stored of what was refused."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from app.domain import canonical, ids
from app.engine import submit
from app.errors import DefinitionInvalid, IdempotencyKeyReused, InputInvalid, OutboundForbidden, RequestInProgress
from tests.engine.world import World, tool

DEFINITION: dict[str, Any] = {
    "name": "one",
    "input": {"n": {"type": "integer", "default": 3}},
    "tools": {"do": tool("idempotent")},
    "steps": {"s": {"tool": "do", "with": {"n": "${{ input.n }}"}}},
}


def asked(definition: Any = DEFINITION, *, key: str = "k", given: Any = None, **more: Any) -> submit.Submission:
    body = {"definition": definition, "input": given or {}}
    return submit.Submission(
        tenant_id=ids.DEFAULT_TENANT,
        key=key,
        fingerprint=canonical.digest(body),
        field_hashes={name: canonical.digest(value) for name, value in body.items()},
        definition=definition,
        definition_text=None,
        source_name=None,
        input=given or {},
        labels={},
        webhook=more.get("webhook"),
        deadline=None,
        traceparent=None,
    )


async def count(world: World, table: str) -> int:
    return int((await world.row(f"SELECT count(*) AS n FROM {table}"))["n"])


async def test_twenty_twins_at_once_make_one_workflow(small_world: World) -> None:
    answers = await asyncio.gather(*(submit.submit(small_world.api, asked()) for _ in range(20)))

    assert len({answer.workflow_id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert await count(small_world, "workflows") == 1


async def test_same_key_with_another_body_names_the_fields_that_differ(small_world: World) -> None:
    await submit.submit(small_world.api, asked())

    with pytest.raises(IdempotencyKeyReused) as refused:
        await submit.submit(small_world.api, asked(given={"n": 4}))

    assert [fault.pointer for fault in refused.value.faults] == ["/input"]


async def test_twin_that_waits_too_long_is_told_to_come_back(small_world: World) -> None:
    async with await psycopg.AsyncConnection.connect(small_world.url) as holder:
        await holder.execute(
            "INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, field_hashes, response_status) "
            "VALUES (%s, 'POST /v1/workflows', 'k', 'x', '{}', 202)",
            (ids.DEFAULT_TENANT,),
        )

        with pytest.raises(RequestInProgress):
            await submit.submit(small_world.api, asked())

        await holder.rollback()
    assert (await submit.submit(small_world.api, asked())).replayed is False


async def test_defaults_of_the_input_are_filled_in_and_pinned(small_world: World) -> None:
    submitted = await submit.submit(small_world.api, asked())

    assert (await small_world.workflow(submitted.workflow_id))["input"] == {"n": 3}


async def test_input_that_does_not_fit_stores_nothing(small_world: World) -> None:
    with pytest.raises(InputInvalid) as refused:
        await submit.submit(small_world.api, asked(given={"n": "three"}))

    assert refused.value.faults[0].pointer.endswith("/n")
    assert await count(small_world, "workflows") == await count(small_world, "idempotency_keys") == 0


async def test_every_fault_of_a_definition_comes_at_once(small_world: World) -> None:
    broken = {"name": "x", "steps": {"a": {"tool": "nope", "needs": ["b"]}, "c": {"depends_on": ["a"], "set": {}}}}

    with pytest.raises(DefinitionInvalid) as refused:
        await submit.submit(small_world.api, asked(broken))

    pointers = {fault.pointer for fault in refused.value.faults}
    assert {"/steps/a/tool", "/steps/a/needs/0", "/steps/c/depends_on"} <= pointers
    assert all(fault.fix for fault in refused.value.faults)


async def test_private_addresses_are_refused_before_anything_is_stored(small_world: World) -> None:
    inside = {
        **DEFINITION,
        "tools": {"do": {**tool("idempotent"), "http": {"method": "POST", "url": "http://169.254.169.254/x"}}},
    }

    with pytest.raises(OutboundForbidden):
        await submit.submit(small_world.api, asked(inside))
    with pytest.raises(OutboundForbidden) as refused:
        await submit.submit(small_world.api, asked(webhook={"url": "http://10.0.0.1/hook", "events": None}))

    assert [fault.pointer for fault in refused.value.faults] == ["/webhook/url"]
    assert await count(small_world, "workflows") == 0
