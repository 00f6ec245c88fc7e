"""Python tools in workflows, on real Postgres: what the engine makes of what a function did, class by class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from app.domain import why
from app.engine import cancel
from app.engine.register_tools import register_tools
from app.ports.python_tools import PythonTools
from app.store import snapshots, why_views
from tests import packages
from tests.engine.ledger_laws import check_laws
from tests.engine.world import World, settle, uses

SOURCE = """
import asyncio
from surefoot import NotExecuted, ToolFailed

calls, keys, raising = [], [], []
entered = asyncio.Event()

async def do(n, context):
    calls.append(n)
    keys.append(context.key)
    entered.set()
    if raising:
        raise raising.pop(0)
    return {"n": n, "attempt": context.attempt}

def look(n): return {"found": n in calls, "n": n}
def undo(n): calls.append(f"undone {n}")
async def waits(): entered.set(); await asyncio.Event().wait()
async def rubbish(): return {1, 2}
"""
NAMES = ("do", "look", "undo", "waits", "rubbish")


@pytest.fixture
async def called(small_world: World, tmp_path: Path) -> AsyncIterator[ModuleType]:
    """The module of the functions; the world's tools are real."""
    tools: Any = PythonTools(secrets={}, response_limit=100_000, threads=4, where="worker.1")
    small_world.tools = tools
    name = packages.module_name()
    with packages.on_path(packages.write(tmp_path, SOURCE, NAMES, module=name)):
        yield __import__(name)
    await check_laws(small_world)


def python(name: str, effect: str, **more: Any) -> dict[str, Any]:
    timed = {"timeout": "60s", "settle_time": "10s"}
    return {"description": "A function.", "python": f"Acme_Tools:{name}", "effect": effect, **timed, **more}


def one(effect: str, name: str = "do", *, step: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    tools = {"do": python(name, effect, **({"key_ttl": "24h"} if effect == "keyed" else {}), **more)}
    if effect == "checkable":
        tools["do"]["probe"] = {"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.found"}
        tools["look"] = python("look", "read_only")
    given = {"n": 1} if name == "do" else {}
    return {"name": "one", "tools": tools, "steps": {"s": {"tool": "do", "with": given, **(step or {})}}}


def raised(module: ModuleType, *errors: str) -> None:
    module.raising += [eval(error, vars(module)) for error in errors]


async def reasons(world: World, workflow_id: UUID) -> list[str]:
    async with snapshots.one_instant(world.api.database) as connection:
        row = await why_views.owner(
            connection, tenant_id=(await world.workflow(workflow_id))["tenant_id"], workflow_id=workflow_id
        )
        assert row is not None
        return [one.headline for one in why.explain(await why_views.situation(connection, row, probes={}))]


async def test_workflow_gets_what_the_function_returned(small_world: World, called: ModuleType) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("idempotent") | {"output": {"n": "${{ steps.s.output.n }}"}})

    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"], called.calls) == ("succeeded", {"n": 1}, [1])


async def test_registered_function_is_called_by_its_name_alone(small_world: World, called: ModuleType) -> None:
    worker = await small_world.worker()
    await register_tools(small_world.api.database, {"notes.do": python("do", "idempotent")})
    step = {"tool": "notes.do", "with": {"n": 5}}
    workflow_id = await small_world.submit({"name": "x", "steps": {"s": step}})

    await small_world.run(worker)

    assert ((await small_world.workflow(workflow_id))["status"], called.calls) == ("succeeded", [5])


async def test_workflow_succeeds_with_an_opaque_output_when_the_result_is_no_json(
    small_world: World, called: ModuleType
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once", "rubbish"))

    await small_world.run(worker)

    output = (await small_world.step(workflow_id, "s"))["output"]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert output["opaque"]
    assert output["reason"] == "not JSON: Object of type set is not JSON serializable"


@pytest.mark.parametrize(
    ("effect", "state", "calls"),
    [
        ("read_only", "succeeded", [1, 1]),
        ("idempotent", "succeeded", [1, 1]),
        ("keyed", "succeeded", [1, 1]),
        ("checkable", "succeeded", [1]),
        ("at_most_once", "in_doubt", [1]),
    ],
)
async def test_class_decides_when_the_function_raised_after_it_may_have_acted(
    small_world: World, called: ModuleType, effect: str, state: str, calls: list[int]
) -> None:
    worker = await small_world.worker()
    raised(called, "ConnectionError('reset')")
    workflow_id = await small_world.submit(one(effect))

    await small_world.run(worker)

    call = await small_world.call(workflow_id, "s")
    assert (call["state"], called.calls) == (state, calls)
    assert len(set(called.keys)) == 1  # a repeat has the key of the first
    if state == "in_doubt":
        assert any(
            "raised ConnectionError" in one or "Nobody knows" in one for one in await reasons(small_world, workflow_id)
        )
        await settle(small_world, workflow_id, "happened", result={"n": 2})
        assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


@pytest.mark.parametrize("effect", ["read_only", "idempotent", "keyed", "checkable", "at_most_once"])
async def test_call_is_made_again_whatever_its_class_when_the_function_says_it_did_not_act(
    small_world: World, called: ModuleType, effect: str
) -> None:
    worker = await small_world.worker()
    raised(called, "NotExecuted('locked')", "NotExecuted('busy', retry_after=5)")
    workflow_id = await small_world.submit(one(effect))

    await small_world.run(worker)

    assert (await small_world.call(workflow_id, "s"))["state"] == "succeeded"
    assert called.calls == [1, 1, 1]
    assert len(set(called.keys)) == 1


@pytest.mark.parametrize("effect", ["read_only", "idempotent", "keyed", "checkable", "at_most_once"])
async def test_step_fails_at_once_with_the_words_of_the_function_when_it_says_no(
    small_world: World, called: ModuleType, effect: str
) -> None:
    worker = await small_world.worker()
    raised(called, "ToolFailed('there is no room 12')")
    workflow_id = await small_world.submit(one(effect))

    await small_world.run(worker)

    failure = (await small_world.step(workflow_id, "s"))["failure"]
    assert (failure["kind"], failure["message"]) == ("tool_error", "do failed: there is no room 12.")
    assert called.calls == [1]


async def test_effect_that_may_have_happened_is_not_believed_failed_when_its_repeat_says_no(
    small_world: World, called: ModuleType
) -> None:
    worker = await small_world.worker()
    raised(called, "ConnectionError('reset')", "ToolFailed('it is there already')")
    workflow_id = await small_world.submit(one("idempotent"))

    await small_world.run(worker)

    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_model_reads_what_the_function_says_and_asks_no_second_time_when_it_says_no(
    small_world: World, called: ModuleType
) -> None:
    worker = await small_world.worker()
    raised(called, "ToolFailed('there is no room 12')")
    small_world.model.answers = [uses(("do", {"n": 7})), "I could not."]
    agent = {"agent": {"model": "fast", "tools": ["do"]}, "prompt": "Book."}
    definition = one("idempotent") | {"steps": {"s": agent}}
    definition["tools"]["do"]["input_schema"] = {"n": {"type": "integer"}}
    workflow_id = await small_world.submit(definition)

    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert called.calls == [7]
    assert b"do failed: there is no room 12." in small_world.model.requests[-1].messages[-1]


async def test_function_undoes_what_a_function_did_when_the_workflow_fails(
    small_world: World, called: ModuleType
) -> None:
    worker = await small_world.worker()
    definition = one("at_most_once", compensate={"tool": "undo", "with": {"n": "${{ output.n }}"}})
    definition["tools"]["undo"] = python("undo", "idempotent")
    definition["steps"]["t"] = {"tool": "undo", "needs": ["s"], "with": {"n": 1, "m": 2}}
    workflow_id = await small_world.submit(definition)

    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["compensation"]) == ("failed", "done")
    assert called.calls == [1, "undone 1"]


async def test_call_waits_for_a_worker_that_has_its_package_and_says_so(small_world: World, tmp_path: Path) -> None:
    """Not on this worker is nobody's failure: no try is used up, and nothing is guessed."""
    tools: Any = PythonTools(secrets={}, response_limit=100_000, threads=4, where="worker.1", remembered=0)
    small_world.tools = tools
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))

    for _ in range(8):  # more often than any policy would try
        await small_world.once(worker)
    said = await reasons(small_world, workflow_id)
    before = await small_world.call(workflow_id, "s")
    with packages.on_path(packages.write(tmp_path, SOURCE, NAMES)):
        await small_world.run(worker)

    assert (before["state"], before["attempts"], before["tries"]) == ("due", 8, {})
    assert "do was not called: worker.1 has no distribution `acme-tools`" in said[0]
    assert "It is tried again at " in said[0]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    await check_laws(small_world)


async def test_call_of_a_missing_package_pauses_longer_each_time(small_world: World) -> None:
    small_world.tools = PythonTools(secrets={}, response_limit=1, threads=1, where="worker.1")  # type: ignore[assignment]
    worker = await small_world.worker()
    await small_world.submit(one("idempotent"))

    pauses = []
    for _ in range(4):
        await small_world.once(worker)
        row = await small_world.row(
            "SELECT extract(epoch FROM d.due_at - c.updated_at)::float AS pause FROM dues d "
            "JOIN workflows c ON c.id = d.workflow_id WHERE d.kind = 'call'"
        )
        pauses.append(round(row["pause"]))

    assert pauses == [2, 4, 8, 16]


@pytest.mark.parametrize(("effect", "state"), [("read_only", "due"), ("at_most_once", "intended")])
async def test_drain_stops_a_read_at_once_and_never_an_effect(
    small_world: World, called: ModuleType, effect: str, state: str
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one(effect, "waits"))
    [call_id] = await small_world.due_calls()
    running = asyncio.create_task(worker.run(call_id))
    await called.entered.wait()

    worker.lease.draining.set()
    if effect == "read_only":
        await running
    else:
        for _ in range(20):
            await asyncio.sleep(0)

    assert (await small_world.call(workflow_id, "s"))["state"] == state
    running.cancel()
    await asyncio.wait([running])


async def test_cancelled_workflow_waits_for_the_function_that_is_at_work(
    small_world: World, called: ModuleType
) -> None:
    worker = await small_world.worker()
    raised(called, "ConnectionError('reset')")
    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)

    await cancel.cancel(
        small_world.api, (await small_world.workflow(workflow_id))["tenant_id"], workflow_id, reason="x", by="kim"
    )
    between = (await small_world.workflow(workflow_id))["status"]
    await settle(small_world, workflow_id, "happened", result={"n": 1})

    assert between == "cancelling"
    assert (await small_world.workflow(workflow_id))["status"] == "cancelled"
