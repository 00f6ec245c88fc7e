"""Workflows that run: order, branches, conditions, items, sets, outputs; no crash in sight."""

from __future__ import annotations

from typing import Any

from tests.engine.pools import pool_of
from tests.engine.world import World, refused, tool


def chain(length: int) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    for n in range(length):
        before = {} if n == 0 else {"before": f"${{{{ steps.s{n - 1}.output.n }}}}"}
        steps[f"s{n}"] = {"tool": "do", "with": {"n": n, **before}}
    return {
        "name": "chain",
        "tools": {"do": tool("idempotent")},
        "steps": steps,
        "output": {"last": f"${{{{ steps.s{length - 1}.output.n }}}}"},
    }


async def test_workflow_runs_its_steps_in_the_order_their_references_imply(small_world: World) -> None:
    small_world.tools.script["do"] = [lambda r: {"n": r.arguments["n"]}] * 5
    worker = await small_world.worker()

    workflow_id = await small_world.submit(chain(5))
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert workflow["status"] == "succeeded"
    assert workflow["output"] == {"last": 4}
    assert [request.arguments["n"] for request in small_world.tools.ledger] == [0, 1, 2, 3, 4]
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_branches_without_references_run_in_parallel_and_join(small_world: World) -> None:
    definition = {
        "name": "diamond",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "a": {"tool": "do", "with": {"n": 1}},
            "b": {"tool": "do", "with": {"n": 2}},
            "join": {"set": {"both": ["${{ steps.a.output.n }}", "${{ steps.b.output.n }}"]}},
        },
        "output": {"both": "${{ steps.join.output.both }}"},
    }
    small_world.tools.script["do"] = [lambda r: {"n": r.arguments["n"]}] * 2
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition)
    due = await small_world.due_calls()
    await small_world.run(worker)

    assert len(due) == 2
    assert (await small_world.workflow(workflow_id))["output"] == {"both": [1, 2]}


async def test_skipped_step_skips_its_dependents_unless_their_condition_mentions_it(small_world: World) -> None:
    definition = {
        "name": "skips",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "find": {"set": {"found": False}},
            "book": {"if": "steps.find.output.found", "tool": "do", "with": {}},
            "invite": {"needs": ["book"], "tool": "do", "with": {}},
            "sorry": {"if": "steps.book.state == 'skipped'", "set": {"text": "no slot"}},
        },
        "output": {"event": "${{ steps.book.output.id.deeper }}", "text": "${{ steps.sorry.output.text }}"},
    }

    workflow_id = await small_world.submit(definition)

    states = {r["path"]: r["state"] for r in await small_world.rows("SELECT path, state FROM steps")}
    assert states == {"find": "succeeded", "book": "skipped", "invite": "skipped", "sorry": "succeeded"}
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"event": None, "text": "no slot"})
    assert small_world.tools.ledger == []


async def test_for_each_keeps_input_order_and_starts_no_more_than_allowed(small_world: World) -> None:
    definition = {
        "name": "fan",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "list": {"set": {"names": ["a", "b", "c", "d", "e"]}},
            "each": {
                "for_each": "${{ steps.list.output.names }}",
                "max_parallel": 2,
                "tool": "do",
                "with": {"name": "${{ item }}", "at": "${{ item_index }}"},
            },
        },
        "output": {"all": "${{ steps.each.output }}"},
    }
    small_world.tools.script["do"] = [lambda r: r.arguments["name"] + str(r.arguments["at"])] * 5
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition)
    at_once = len(await small_world.due_calls())
    await small_world.run(worker)

    assert at_once == 2
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"all": ["a0", "b1", "c2", "d3", "e4"]})


async def test_for_each_over_an_empty_list_succeeds_with_an_empty_list(small_world: World) -> None:
    definition = {
        "name": "none",
        "tools": {"do": tool("idempotent")},
        "steps": {"each": {"for_each": "${{ input.names }}", "tool": "do", "with": {"name": "${{ item }}"}}},
        "output": {"all": "${{ steps.each.output }}"},
    }

    workflow_id = await small_world.submit(definition, input={"names": []})

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"all": []})


async def test_large_for_each_is_inserted_in_windows_and_ends(small_world: World) -> None:
    definition = {
        "name": "large",
        "steps": {"each": {"for_each": "${{ input.names }}", "max_parallel": 50, "set": {"n": "${{ item }}"}}},
        "output": {"last": "${{ steps.each.output[1199].n }}"},
    }

    workflow_id = await small_world.submit(definition, input={"names": list(range(1200))})

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"last": 1199})


async def test_failing_item_stops_new_items_drains_and_fails_the_step(small_world: World) -> None:
    definition = {
        "name": "fan",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "each": {
                "for_each": "${{ input.names }}",
                "max_parallel": 2,
                "tool": "do",
                "with": {"name": "${{ item }}"},
            },
            "after": {"needs": ["each"], "set": {"x": 1}},
        },
    }
    small_world.tools.script["do"] = [lambda r: refused(404) if r.arguments["name"] == "a" else {"ok": 1}] * 2
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition, input={"names": ["a", "b", "c", "d"]})
    await worker.run((await small_world.call(workflow_id, "each.0"))["id"])
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "item_failures_exceeded")
    assert len(small_world.tools.ledger) == 2
    states = {r["path"]: r["state"] for r in await small_world.rows("SELECT path, state FROM steps")}
    assert states == {
        "each": "failed",
        "each.0": "failed",
        "each.1": "succeeded",
        "each.2": "cancelled",
        "each.3": "cancelled",
        "after": "cancelled",
    }


async def test_expression_that_fails_is_that_steps_failure_and_nothing_is_lost(small_world: World) -> None:
    definition = {
        "name": "bad",
        "tools": {"do": tool("at_most_once")},
        "steps": {
            "book": {"tool": "do", "with": {}},
            "use": {"tool": "do", "with": {"x": "${{ steps.book.output.missing.deeper + 1 }}"}},
        },
    }
    small_world.tools.script["do"] = [{"id": 1}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "expression_error")
    assert (await small_world.step(workflow_id, "book"))["output"] == {"id": 1}
    assert (await small_world.call(workflow_id, "book"))["state"] == "succeeded"


async def test_step_that_continues_on_error_counts_as_met_and_shows_its_error(small_world: World) -> None:
    definition = {
        "name": "goes-on",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "may": {"tool": "do", "with": {}, "on_error": "continue"},
            "then": {"set": {"kind": "${{ steps.may.error.kind }}", "value": "${{ steps.may.output }}"}},
        },
        "output": {"kind": "${{ steps.then.output.kind }}", "value": "${{ steps.then.output.value }}"},
    }
    small_world.tools.script["do"] = [refused(404)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"kind": "tool_error", "value": None})


async def test_workflow_of_a_thousand_sets_ends_in_its_submission(small_world: World) -> None:
    steps: dict[str, Any] = {"s0": {"set": {"n": 0}}}
    steps |= {f"s{n}": {"set": {"n": f"${{{{ steps.s{n - 1}.output.n + 1 }}}}"}} for n in range(1, 1000)}
    definition = {"name": "sets", "steps": steps, "output": {"n": "${{ steps.s999.output.n }}"}}

    workflow_id = await small_world.submit(definition)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"n": 999})


async def test_events_are_numbered_without_gaps_and_carry_legal_moves(small_world: World) -> None:
    small_world.tools.script["do"] = [lambda r: {"n": r.arguments["n"]}] * 3
    worker = await small_world.worker()

    workflow_id = await small_world.submit(chain(3))
    await small_world.run(worker)

    events = await small_world.rows("SELECT * FROM events WHERE workflow_id = %s ORDER BY seq", workflow_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["seq"] == (await small_world.workflow(workflow_id))["last_seq"]
    assert [event["type"] for event in events][:2] == ["workflow.accepted", "workflow.started"]
    assert events[-1]["type"] == "workflow.succeeded"
    ends: dict[Any, Any] = {}
    for event in events:
        if event["from_state"] is not None:
            entity = event["call_id"] or event["step"]
            assert ends.get(entity, event["from_state"]) == event["from_state"]
            ends[entity] = event["to_state"]


async def test_next_call_goes_to_the_worker_that_made_it_due_and_the_bell_stays_silent(small_world: World) -> None:
    small_world.tools.script["do"] = [lambda r: {"n": r.arguments["n"]}] * 2
    worker = await small_world.worker()
    pool = pool_of(worker, places=False)
    await small_world.submit(chain(2))
    small_world.bell.rung.clear()

    await worker.run((await small_world.due_calls())[0])

    assert pool.offered == await small_world.due_calls()
    assert small_world.bell.rung == []


async def test_branches_beside_the_next_call_are_rung_and_so_is_what_the_pool_refuses(small_world: World) -> None:
    definition = {
        "name": "fan-out",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "first": {"tool": "do", "with": {}},
            "a": {"needs": ["first"], "tool": "do", "with": {}},
            "b": {"needs": ["first"], "tool": "do", "with": {}},
        },
    }
    worker = await small_world.worker()
    pool = pool_of(worker, places=False)

    for key, rung in (("taken", 1), ("refused", 2)):
        pool.room = key == "taken"
        await small_world.submit(definition, key=key)
        small_world.bell.rung.clear()
        await worker.run((await small_world.due_calls())[-1])
        assert len(small_world.bell.rung) == rung
