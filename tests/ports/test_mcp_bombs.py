"""An MCP server whose small gzip answers unpack to hundreds of megabytes: read up to a cap, and no further."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.domain.states import AttemptOutcome, FailureKind
from app.ports.mcp_wire import LONGEST_MESSAGE
from tests.ports import mcp_calls
from tests.ports.mcp_calls import AMPLE, Server, output, port, sent

BOMB = 256 * 2**20
MOST = 6 * LONGEST_MESSAGE
"""Bytes: a message at the cap is there as it came, unpacked, and on its way from one buffer to the next."""


@pytest.fixture(params=["json", "sse"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with mcp_calls.at_url(tmp_path) as found:
        found.behave(sse=request.param == "sse")
        yield found


def bomb(server: Server, method: str, *, blanks: int = BOMB) -> None:
    """It answers as before, and this method with a bomb."""
    server.behave(**server.behaviour, bombs={method: blanks})


@contextmanager
def within(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


async def test_bomb_in_answer_to_a_call_leaves_its_outcome_unknown_when_the_cap_is_reached(server: Server) -> None:
    tool = await server.frozen("act")
    bomb(server, "tools/call")

    with within(MOST):
        outcome = await sent(tool)

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.NETWORK
    assert "its answer is too long to be read: more than 16 MB" in outcome.failure.message
    assert [noted["name"] for noted in server.book] == ["act"]  # never twice


@pytest.mark.parametrize("method", ["initialize", "tools/list"])
async def test_bomb_before_the_call_leaves_it_unsent_when_the_cap_is_reached(server: Server, method: str) -> None:
    tool = await server.frozen("act")
    bomb(server, method)

    with within(MOST):
        outcome = await sent(tool)

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.SERVER_ERROR
    assert "its answer is too long to be read: more than 16 MB" in outcome.failure.message
    assert server.book == []


async def test_bomb_in_place_of_a_list_is_told_when_the_server_is_asked_for_its_tools(server: Server) -> None:
    bomb(server, "tools/list")

    with within(MOST):
        outcome = await port().discover(server.place, seconds=AMPLE, may_send=lambda: True)

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert outcome.failure is not None
    assert "its answer is too long to be read" in outcome.failure.message


async def test_packed_answer_is_an_answer_when_it_stays_below_the_cap(server: Server) -> None:
    tool = await server.frozen("act")
    bomb(server, "tools/call", blanks=LONGEST_MESSAGE // 2)

    assert output(await sent(tool)) == "done"
