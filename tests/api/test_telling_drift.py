"""How a changed tool and the list of a server are told: in the trace, in `why`, in the headline, in the evidence."""

from __future__ import annotations

import httpx

from app.domain import ids
from tests.engine import listing
from tests.engine.listing import ScriptedLister, drifted
from tests.engine.people import rest, say_next
from tests.engine.world import World, uses


async def test_trace_and_why_say_what_changed_and_who_can_move_it(api: httpx.AsyncClient, world: World) -> None:
    worker = await listing.worker(world, ScriptedLister())
    world.tools.script["git.commit"] = [lambda request: drifted(request.tool)]
    world.model.answers = [uses(("git-commit", {"message": "first"})), "done"]
    workflow_id = await world.submit(listing.agent())
    await world.run(worker)
    place = f"/v1/workflows/{ids.encode('wf', workflow_id)}"

    trace = (await api.get(f"{place}/trace?format=text&width=140")).text
    headline = (await api.get(place)).json()["headline"]
    [reason] = (await api.get(f"{place}/why")).json()["reasons"]
    [answer] = (await api.get(f"{place}/steps/s/calls/1")).json()["answers"]
    await say_next(world, workflow_id, "approve")
    await rest(world, worker)
    afterwards = (await api.get(f"{place}/trace?format=text&width=140")).text

    assert "tools of git" in trace
    assert "what the tool is now, if a person agrees" in trace
    assert "asks before it is sent: git.commit has changed since it was listed" in trace
    assert "git.commit has changed since it was listed; a person is asked first." in headline
    assert (reason["kind"], reason["reason"]) == ("approval", "drift")
    assert [tool["name"] for tool in answer["json"]["tools"]] == ["commit", "log"]  # the whole list is evidence
    assert "approved by kim" in afterwards
    assert '+ /description: "Make a commit, and push it."' in afterwards


async def test_whole_result_is_kept_where_the_model_sees_head_and_tail(api: httpx.AsyncClient, world: World) -> None:
    worker = await listing.worker(world, ScriptedLister())
    long = "a" * 60_000 + "THE MIDDLE" + "z" * 60_000
    world.tools.script["git.log"] = [{"content": [{"type": "text", "text": long}]}]
    world.model.answers = [uses(("git-log", {"n": 1})), "done"]
    workflow_id = await world.submit(listing.agent())
    await world.run(worker)

    shown = world.model.requests[-1].messages[-1].decode()
    place = f"/v1/workflows/{ids.encode('wf', workflow_id)}/steps/s/calls/3"
    [answer] = (await api.get(place)).json()["answers"]

    assert "characters left out here" in shown
    assert "THE MIDDLE" not in shown
    assert answer["json"]["content"][0]["text"] == long
