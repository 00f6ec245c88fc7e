"""When a byte may leave, and on which connection: the permit, keep-alive, fresh connections, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, EffectClass, FailureKind
from app.ports.http_tools import HttpTools
from app.ports.outbound import Outbound, OutboundPolicy
from app.ports.world import ToolRequest
from tests.ports.misbehaving_server import Behaviour, Connection, answers, response, sends_then_stalls, serving
from tests.ports.tool_calls import call, http

LIMIT = 100_000
READ_ONLY, IDEMPOTENT, KEYED = EffectClass.READ_ONLY, EffectClass.IDEMPOTENT, EffectClass.KEYED
CHECKABLE, AT_MOST_ONCE = EffectClass.CHECKABLE, EffectClass.AT_MOST_ONCE
SUCCEEDED, NOT_SENT, UNKNOWN = AttemptOutcome.SUCCEEDED, AttemptOutcome.NOT_SENT, AttemptOutcome.UNKNOWN


def tools() -> HttpTools:
    return HttpTools(OutboundPolicy.parse("127.0.0.0/8"), secrets={}, response_limit=LIMIT)


# --- the permit ----------------------------------------------------------------------------------------------------


async def test_fenced_worker_sends_no_byte_although_it_is_connected() -> None:
    received = bytearray()
    closed = asyncio.Event()

    async def listens(connection: Connection) -> None:
        received.extend(await connection.reader.read())
        closed.set()

    port = tools()
    async with serving(listens) as server:
        outcome = await port.send(call(http(server.url)), seconds=5, may_send=lambda: False)
        await asyncio.wait_for(closed.wait(), 5)

        assert server.connections == 1
    assert bytes(received) == b""
    assert outcome.certainty is NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.WORKER_LOST
    assert outcome.sent_after is None


async def test_permit_of_each_request_is_asked_on_a_shared_connection() -> None:
    asked: list[int] = []
    port = tools()
    async with serving(answers(response(200, b"{}"))) as server:
        request = call(http(server.url), {"title": "x" * 100_000})
        for number in range(3):
            await port.send(request, seconds=5, may_send=lambda number=number: asked.append(number) or True)

        await port.aclose()
        assert server.connections == 1
    assert sorted(set(asked)) == [0, 1, 2]
    assert asked == sorted(asked)


async def test_revoked_permit_stops_the_next_request_on_a_shared_connection() -> None:
    port = tools()
    async with serving(answers(response(200, b"{}"))) as server:
        await port.send(call(http(server.url)), seconds=5, may_send=lambda: True)

        outcome = await port.send(call(http(server.url)), seconds=5, may_send=lambda: False)

        await port.aclose()
        assert outcome.certainty is NOT_SENT
        assert len(server.requests) == 1


async def test_cancelled_call_raises_and_lets_the_connection_go() -> None:
    port = tools()
    async with serving(sends_then_stalls(b"HTTP/1.1 200 OK\r\n")) as server:
        task = asyncio.create_task(port.send(call(http(server.url)), seconds=60, may_send=lambda: True))
        while not server.requests:
            await asyncio.wait({task}, timeout=0.01)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.gone.wait(), 5)


# --- connections ---------------------------------------------------------------------------------------------------


async def send_in_turn(
    *requests: Callable[[str], ToolRequest], behaviour: Behaviour
) -> tuple[list[Outcome], list[int]]:
    port = tools()
    async with serving(behaviour) as server:
        outcomes = [await port.send(make(server.url), seconds=5, may_send=lambda: True) for make in requests]
        await port.aclose()
        return outcomes, server.served_on


def of(effect: EffectClass) -> Callable[[str], ToolRequest]:
    return lambda url: call(http(url), effect=effect)


async def test_repeatable_calls_share_a_connection() -> None:
    outcomes, served_on = await send_in_turn(
        of(READ_ONLY), of(IDEMPOTENT), of(KEYED), behaviour=answers(response(200, b"{}"))
    )

    assert [outcome.certainty for outcome in outcomes] == [SUCCEEDED] * 3
    assert served_on == [1, 1, 1]


@pytest.mark.parametrize("effect", [AT_MOST_ONCE, CHECKABLE])
async def test_unrepeatable_call_has_a_connection_that_nobody_used_or_will_use(effect: EffectClass) -> None:
    _, served_on = await send_in_turn(
        of(IDEMPOTENT), of(effect), of(effect), of(IDEMPOTENT), behaviour=answers(response(200, b"{}"))
    )

    assert served_on == [1, 2, 3, 1]


async def test_call_is_sent_on_a_new_connection_when_the_idle_one_was_closed() -> None:
    closed = asyncio.Event()

    async def answers_once(connection: Connection) -> None:
        await connection.request()
        await connection.send(response(200, b"{}"))
        connection.writer.close()
        await connection.writer.wait_closed()
        closed.set()

    port = tools()
    async with serving(answers_once) as server:
        await port.send(call(http(server.url)), seconds=5, may_send=lambda: True)
        await asyncio.wait_for(closed.wait(), 5)

        outcome = await port.send(call(http(server.url)), seconds=5, may_send=lambda: True)
        await port.aclose()

        assert outcome.certainty is SUCCEEDED
        assert server.connections == 2


async def test_call_on_a_stale_connection_is_unknown_and_not_sent_a_second_time() -> None:
    async def goes_stale(connection: Connection) -> None:
        await connection.request()
        await connection.send(response(200, b"{}"))
        await connection.request()
        connection.reset()

    outcomes, served_on = await send_in_turn(of(IDEMPOTENT), of(IDEMPOTENT), behaviour=goes_stale)

    assert outcomes[1].certainty is UNKNOWN
    assert served_on == [1, 1]


async def test_connection_is_not_reused_when_its_answer_was_cut_by_the_cap() -> None:
    flood = response(200, b"x" * (LIMIT * 20))

    outcomes, served_on = await send_in_turn(of(IDEMPOTENT), of(IDEMPOTENT), behaviour=answers(flood))

    assert [outcome.certainty for outcome in outcomes] == [SUCCEEDED] * 2
    assert served_on == [1, 2]


async def test_two_ports_do_not_share_idle_connections() -> None:
    first, second = tools(), tools()
    async with serving(answers(response(200, b"{}"))) as server:
        for port in (first, second):
            await port.send(call(http(server.url)), seconds=5, may_send=lambda: True)
        await first.aclose()
        await second.aclose()

        assert server.connections == 2


async def test_idle_connections_nobody_asks_for_again_are_closed() -> None:
    """A host called once must not keep a socket for ever: the next call to anybody tidies up."""
    left = asyncio.Event()

    async def closes_soon(connection: Connection) -> None:
        await connection.request()
        await connection.send(response(200, b"{}"))
        connection.writer.write_eof()
        await connection.until_client_leaves()
        left.set()

    outbound = Outbound(OutboundPolicy.parse("127.0.0.0/8"), keep_alive=0.0)
    async with serving(closes_soon) as once, serving(answers(response(200))) as other:
        for url in (once.url, other.url):
            await outbound.send("POST", url, headers=[], content=b"{}", seconds=5, limit=10, may_send=lambda: True)
        await asyncio.wait_for(left.wait(), 5)
        await outbound.aclose()

        assert once.connections == 1
