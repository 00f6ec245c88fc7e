"""Doubts and undos settled through the API, one or many at once, and the lists they are found in."""

from __future__ import annotations

import httpx
import pytest

from app.api.shapes.effect import Effect, WorkflowEffects
from app.domain import ids
from tests.api.operated import doubts, effect_of, failed
from tests.api.rows import path as where
from tests.engine import world as engine
from tests.engine.world import World

# --- doubts -----------------------------------------------------------------------------------------------------------


async def test_many_doubts_are_settled_with_one_verdict_when_they_fit_the_filter(
    api: httpx.AsyncClient, world: World
) -> None:
    submitted = await doubts(world, 3)
    body = {"filter": {"tool": "do"}, "outcome": "happened", "note": "looked at the ledger", "limit": 2}

    dry = await api.post("/v1/effects/resolve", json=body | {"dry_run": True})
    still = [(await world.workflow(each))["doubts"] for each in submitted]
    first = await api.post("/v1/effects/resolve", json=body)
    rest = await api.post("/v1/effects/resolve", json=body)
    nothing = await api.post("/v1/effects/resolve", json=body)

    assert dry.json() == {"matched": 2, "resolved": 2, "refused": [], "remaining": 1}
    assert still == [1, 1, 1]
    assert first.json() == {"matched": 2, "resolved": 2, "refused": [], "remaining": 1}
    assert rest.json() == {"matched": 1, "resolved": 1, "refused": [], "remaining": 0}
    assert nothing.json() == {"matched": 0, "resolved": 0, "refused": [], "remaining": 0}
    assert [(await world.workflow(each))["status"] for each in submitted] == ["succeeded"] * 3


async def test_refused_doubts_are_listed_with_their_reason_when_many_are_settled(
    api: httpx.AsyncClient, world: World
) -> None:
    [early, late] = await doubts(world, 2)
    await world.rows(
        "UPDATE calls SET not_before = clock_timestamp() - interval '1 s' WHERE workflow_id = %s", early
    )  # fmt: skip

    answer = await api.post(
        "/v1/effects/resolve", json={"filter": {"step": "s"}, "outcome": "did_not_happen", "note": "n"}
    )

    [refused] = answer.json()["refused"]
    assert (answer.json()["matched"], answer.json()["resolved"], answer.json()["remaining"]) == (2, 1, 0)
    assert refused["effect"] == ids.encode("call", (await world.call(late, "s"))["id"])
    assert refused["code"] == "quarantine_active"


async def test_only_doubts_of_the_named_workflow_and_time_are_settled_when_filtered(
    api: httpx.AsyncClient, world: World
) -> None:
    [one, other] = await doubts(world, 2)
    named = {"workflow": ids.encode("wf", one)}
    said = {"outcome": "abandon", "note": "n"}

    before = await api.post("/v1/effects/resolve", json=said | {"filter": named | {"until": "2020-01-01T00:00:00Z"}})
    since = await api.post("/v1/effects/resolve", json=said | {"filter": named | {"since": "2020-01-01T00:00:00Z"}})

    assert (before.json()["matched"], since.json()["resolved"]) == (0, 1)
    assert [(await world.workflow(each))["doubts"] for each in (one, other)] == [0, 1]


async def test_probe_is_refused_as_a_verdict_when_the_tool_has_none(api: httpx.AsyncClient, world: World) -> None:
    [workflow_id] = await doubts(world, 1)

    answer = await api.post(
        await effect_of(world, workflow_id) + "/resolve", json={"outcome": "probe", "note": "server is back"}
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_value")
    assert "no probe" in answer.json()["detail"]


# --- effects and undoing ----------------------------------------------------------------------------------------------


async def test_effects_tell_how_they_were_undone_and_the_totals_when_a_workflow_failed(
    api: httpx.AsyncClient, world: World
) -> None:
    workflow_id = await failed(world)

    answer = await api.get(where(workflow_id, "/effects"))

    page = WorkflowEffects.model_validate_json(answer.content)
    done, other, undoing = page.data
    assert (done.kind, done.undo, other.undo, undoing.kind, undoing.undoes) == (
        "tool", "done", "none", "compensation", done.id,
    )  # fmt: skip
    assert done.result == {"id": 7}
    assert undoing.result != done.result
    assert done.compensation is not None
    assert done.compensation.model_dump() == {
        "tool": "undo", "arguments": {"id": 7}, "call": undoing.id, "state": "succeeded", "failure": None,
    }  # fmt: skip
    assert (done.attached_to, undoing.attached_to, undoing.compensation) == (None, None, None)
    assert page.totals.model_dump() == {
        "done": 1, "duplicates_prevented": 0, "unknown": 0, "undone": 1, "abandoned": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "undo", "compensation"),
    [("retry", "done", "done"), ("done", "done", "done"), ("skip", "skipped", "skipped")],
)
async def test_undo_that_failed_is_settled_from_the_work_list_when_an_operator_says_how(
    api: httpx.AsyncClient, world: World, action: str, undo: str, compensation: str
) -> None:
    world.tools.script["undo"] = [engine.refused()]
    workflow_id = await failed(world)
    [listed] = (await api.get("/v1/effects?undo=failed&tool=do")).json()["data"]

    body = {"action": action, "note": "looked"}
    answer = await api.post(f"/v1/effects/{listed['id']}/compensation", json=body)
    again = await api.post(f"/v1/effects/{listed['id']}/compensation", json=body)
    await world.run(await world.worker("worker.2"))

    assert listed["compensation"]["state"] == "failed"
    assert listed["compensation"]["failure"]["message"]
    assert (answer.status_code, again.status_code) == (200, 200)
    effect = Effect.model_validate_json((await api.get(f"/v1/effects/{listed['id']}")).content)
    assert effect.undo == undo
    assert effect.compensation is not None
    assert effect.compensation.state == ("succeeded" if action == "retry" else "failed")
    assert (await world.workflow(workflow_id))["compensation"] == compensation
    assert (await api.get("/v1/effects?undo=failed")).json()["data"] == []


async def test_undo_is_not_settled_when_it_has_not_failed(api: httpx.AsyncClient, world: World) -> None:
    workflow_id = await failed(world, on_failure="hold")

    answer = await api.post(await effect_of(world, workflow_id) + "/compensation", json={"action": "done", "note": "n"})

    assert (answer.status_code, answer.json()["code"], answer.json()["possible"]) == (409, "not_possible", ["wait"])


@pytest.mark.parametrize(
    ("query", "steps"),
    [
        ("undo=done", ["s"]),
        ("undo=failed", []),
        ("undo=done&undo=none", ["s", "s", "t"]),
        ("tool=undo", ["s"]),
        ("tool=last&state=failed", ["t"]),
        ("tool=nothing", []),
    ],
)
async def test_effects_are_those_that_fit_when_filtered(
    api: httpx.AsyncClient, world: World, query: str, steps: list[str]
) -> None:
    workflow_id = await failed(world)
    of_one = f"/v1/effects?{query}&workflow={ids.encode('wf', workflow_id)}"
    paths = [where(workflow_id, f"/effects?{query}"), f"/v1/effects?{query}", of_one]

    inside, of_all, named = [(await api.get(path)).json() for path in paths]

    assert [sorted(one["step"] for one in page["data"]) for page in (inside, of_all, named)] == [steps] * 3
    assert inside["totals"]["done"] == 1


async def test_pages_of_filtered_effects_hold_each_once_when_walked(api: httpx.AsyncClient, world: World) -> None:
    await doubts(world, 3)

    seen: list[str] = []
    path: str | None = "/v1/effects?state=in_doubt&limit=1"
    while path is not None:
        answer = await api.get(path)
        seen += [one["id"] for one in answer.json()["data"]]
        path = answer.links["next"]["url"] if "next" in answer.links else None

    assert (len(seen), seen) == (3, sorted(set(seen), reverse=True))


@pytest.mark.parametrize("changed", ["state=held", "state=in_doubt&tool=do", "state=in_doubt&undo=none"])
async def test_cursor_of_effects_is_refused_when_the_filters_are_others(
    api: httpx.AsyncClient, world: World, changed: str
) -> None:
    await doubts(world, 2)
    cursor = (await api.get("/v1/effects?state=in_doubt&limit=1")).json()["next_cursor"]

    right = await api.get(f"/v1/effects?state=in_doubt&limit=1&cursor={cursor}")
    wrong = await api.get(f"/v1/effects?{changed}&limit=1&cursor={cursor}")

    assert (right.status_code, wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (200, 422, "?cursor")
