"""An MCP server whose answer is larger than any worker should hold: read up to a limit, and honestly unknown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.states import AttemptOutcome
from app.ports.mcp_wire import LONGEST_MESSAGE
from tests.ports import mcp_calls
from tests.ports.mcp_calls import Server, output, sent


@pytest.fixture(params=["stdio", "json", "sse"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "stdio":
        yield mcp_calls.at_command(tmp_path)
        return
    with mcp_calls.at_url(tmp_path) as found:
        found.behave(sse=request.param == "sse")
        yield found


async def test_answer_beyond_the_longest_message_is_unknown_and_read_no_further(endless: Server) -> None:
    outcome = await sent(await endless.frozen("odd"), {"how": "big", "size": LONGEST_MESSAGE + 1_000_000})

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert outcome.failure is not None
    assert "gave no readable answer" in outcome.failure.message
    assert outcome.evidence is None
    assert len(endless.book) == 1  # it was called, once


async def test_answer_a_little_below_the_longest_message_is_a_success(endless: Server) -> None:
    outcome = await sent(await endless.frozen("odd"), {"how": "big", "size": LONGEST_MESSAGE - 10_000})

    assert output(outcome)["reason"] == "the answer was cut before its end"
