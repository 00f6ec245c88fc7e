"""Knowing an attempt's id, which every trace shows, is not enough to tell what it came to."""

from __future__ import annotations

import pytest

from app.errors import ResultTokenInvalid
from tests.engine.awaiting import report, slow, state, waiting
from tests.engine.world import World

ATTEMPT_ENDS = len("srt_") + 32
"""A token is a prefix, the attempt's id in hex, and what only we can make of it."""


@pytest.mark.parametrize("places", [(0,), (63,), tuple(range(64))], ids=["first digit", "last digit", "every digit"])
async def test_report_is_refused_when_only_the_attempt_of_its_token_is_right(
    small_world: World, places: tuple[int, ...]
) -> None:
    workflow_id, _ = await waiting(small_world, slow("keyed"))
    token = small_world.tools.ledger[0].result_token
    assert token is not None
    letters = list(token[ATTEMPT_ENDS:])
    for place in places:
        letters[place] = "0" if letters[place] != "0" else "1"

    with pytest.raises(ResultTokenInvalid):
        await report(small_world, workflow_id, token=token[:ATTEMPT_ENDS] + "".join(letters))

    assert await state(small_world, workflow_id) == "intended"
    await report(small_world, workflow_id, token=token)
    assert await state(small_world, workflow_id) == "succeeded"
