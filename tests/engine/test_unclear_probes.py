"""A probe that says neither true nor false has told nothing, however much its answer looks like a no."""

from __future__ import annotations

import pytest

from app.domain.outcomes import JSON
from tests.engine.probing import probing, state
from tests.engine.world import World, probed


@pytest.mark.parametrize("found", [None, 0, 0.0, "", "false", [], {}, 1, "yes"])
async def test_effect_is_not_sent_again_when_its_probe_says_neither_true_nor_false(
    small_world: World, found: JSON
) -> None:
    definition = probed(probe={"deadline": "1h"})
    workflow_id, worker = await probing(small_world, {"found": found}, definition=definition)
    await small_world.end_quarantines()

    await small_world.once(worker)

    verdict = await small_world.row("SELECT data ->> 'verdict' AS said FROM events WHERE type = 'effect.probed'")
    assert (await state(small_world, workflow_id), verdict["said"]) == ("probing", "unclear")
    assert len(small_world.tools.sent("do")) == 1
