"""The self-fence stands before every piece of a request, not only the first: half a request takes no effect."""

from __future__ import annotations

import asyncio

from app.domain.states import AttemptOutcome, EffectClass, FailureKind
from app.ports.http_tools import HttpTools
from app.ports.outbound import OutboundPolicy
from tests.ports.tool_calls import call, http


async def test_rest_of_a_request_stays_here_when_the_lease_ended_after_its_first_bytes() -> None:
    """A process that was frozen between its headers and its body, for longer than anybody waits for it."""
    received = bytearray()
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            received.extend(piece)
        ended.set()
        writer.close()

    asked: list[None] = []

    def may_send() -> bool:
        asked.append(None)
        return len(asked) == 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = HttpTools(OutboundPolicy.parse("127.0.0.0/8"), secrets={}, response_limit=1000)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

    outcome = await port.send(
        call(http(url), {"text": "once"}, effect=EffectClass.AT_MOST_ONCE), seconds=5, may_send=may_send
    )

    await asyncio.wait_for(ended.wait(), 5)
    server.close()
    await port.aclose()
    assert b"Content-Length" in received
    assert b"once" not in received
    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.NETWORK
    assert outcome.sent_after is not None
