"""The operator's switches through the API: held while held, sent when released."""

from __future__ import annotations

import httpx
import pytest

from tests.api.operated import audited
from tests.engine import world as engine
from tests.engine.world import World


@pytest.mark.parametrize("scope", ["tool:do", "tool%3Ado", "tenant"])
async def test_tool_is_not_called_while_it_is_held_and_is_when_released(
    api: httpx.AsyncClient, world: World, scope: str
) -> None:
    held = await api.put(f"/v1/switches/{scope}", json={"reason": "sends everything twice"})
    again = await api.put(f"/v1/switches/{scope}")
    workflow_id = await world.submit(engine.one("keyed"))
    worker = await world.worker()
    await world.run(worker)
    sent_meanwhile = len(world.tools.ledger)
    listed = await api.get("/v1/switches")
    released = await api.delete(f"/v1/switches/{scope}")
    await world.sweep(worker)
    await world.run(worker)
    nothing = await api.delete(f"/v1/switches/{scope}")

    assert [answer.status_code for answer in (held, again, listed, released)] == [200] * 4
    assert held.json() == again.json() == listed.json()["data"][0]
    assert (held.json()["reason"], held.json()["by"][:4]) == ("sends everything twice", "key:")
    assert sent_meanwhile == 0
    assert (released.json(), nothing.json()) == ({"released": 1}, {"released": 0})
    assert (await world.workflow(workflow_id))["status"] == "succeeded"
    assert (await api.get("/v1/switches")).json()["data"] == []
    assert await audited(world) == ["switch.hold", "switch.release"]


async def test_model_is_held_by_a_name_with_slashes_when_the_url_carries_it(api: httpx.AsyncClient) -> None:
    held = await api.put("/v1/switches/model%3Aus%2Fclaude:x", json={})

    assert (held.status_code, held.json()["scope"]) == (200, "model:us/claude:x")
