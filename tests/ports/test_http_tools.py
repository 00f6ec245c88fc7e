"""HTTP tools against real sockets: what each misbehaviour of a server comes to, and what leaves this process."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import httpcore
import pytest
from pydantic import SecretStr

from app.domain.certainty import UNSENT
from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, EffectClass, FailureKind
from app.ports.http_tools import HttpTools
from app.ports.outbound import EXCEPTIONS, OutboundPolicy
from app.ports.world import ToolRequest
from tests.ports.misbehaving_server import (
    Behaviour,
    Connection,
    answers,
    free_port,
    response,
    sends_then_stalls,
    serving,
)
from tests.ports.tool_calls import call, http

LOOPBACK = OutboundPolicy.parse("127.0.0.0/8")
LIMIT = 100_000
IDEMPOTENT, KEYED, AT_MOST_ONCE = EffectClass.IDEMPOTENT, EffectClass.KEYED, EffectClass.AT_MOST_ONCE
SUCCEEDED, NOT_SENT = AttemptOutcome.SUCCEEDED, AttemptOutcome.NOT_SENT

HALF_BODY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


def tools(**secrets: str) -> HttpTools:
    values = {name: SecretStr(value) for name, value in secrets.items()}
    return HttpTools(LOOPBACK, secrets=values, response_limit=LIMIT)


async def sent_to(
    behaviour: Behaviour, *, effect: EffectClass = IDEMPOTENT, seconds: float = 5, may_send: bool = True
) -> Outcome:
    port = tools()
    async with serving(behaviour) as server:
        try:
            return await port.send(call(http(server.url), effect=effect), seconds=seconds, may_send=lambda: may_send)
        finally:
            await port.aclose()


# --- certainty: what each point of an exchange comes to is in test_certainty_on_the_wire.py ------------------------


async def test_effect_that_answered_200_is_done_even_when_its_body_never_ends() -> None:
    outcome = await sent_to(sends_then_stalls(HALF_BODY), effect=AT_MOST_ONCE, seconds=2)

    assert outcome.certainty is SUCCEEDED
    assert outcome.evidence is not None
    assert outcome.evidence.truncated
    assert outcome.evidence.body == b"{"


async def test_tool_call_is_not_sent_when_nobody_listens() -> None:
    outcome = await tools().send(call(http(f"http://127.0.0.1:{free_port()}/")), seconds=5, may_send=lambda: True)

    assert outcome.certainty is NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.NETWORK
    assert "connection refused" in outcome.failure.message
    assert outcome.sent_after is None


async def test_tool_call_is_not_sent_when_the_name_does_not_resolve() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    port = HttpTools(LOOPBACK, secrets={}, response_limit=LIMIT, resolver=nothing)

    outcome = await port.send(call(http("http://calendar.test/")), seconds=5, may_send=lambda: True)

    assert outcome.certainty is NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.fix == "Check the host name in the tool's url."


async def test_tool_call_is_not_sent_when_the_resolver_hangs_past_the_deadline() -> None:
    async def hangs(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    port = HttpTools(LOOPBACK, secrets={}, response_limit=LIMIT, resolver=hangs)

    outcome = await port.send(call(http("http://calendar.test/")), seconds=0.1, may_send=lambda: True)

    assert outcome.certainty is NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.TIMEOUT


# --- bodies --------------------------------------------------------------------------------------------------------


async def test_evidence_is_the_bytes_of_the_answer() -> None:
    body = b'{"event_id": "\\u0000", "n": NaN}'

    outcome = await sent_to(answers(response(201, body, headers="X-Request-Id: req-7\r\n")))

    assert outcome.evidence is not None
    assert outcome.evidence.body == body
    assert outcome.evidence.media_type == "application/json"
    assert not outcome.evidence.truncated
    assert outcome.status_code == 201
    assert outcome.request_id == "req-7"
    assert outcome.sent_after is not None
    assert outcome.received_after is not None
    assert 0 < outcome.sent_after <= outcome.received_after


async def test_evidence_is_capped_when_the_answer_never_ends() -> None:
    async def floods(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    outcome = await sent_to(floods)

    assert outcome.certainty is SUCCEEDED
    assert outcome.evidence is not None
    assert len(outcome.evidence.body) == LIMIT
    assert outcome.evidence.truncated


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b'{"a":1}')),
        ("x-gzip", gzip.compress(b'{"a":1}')),
        ("gzip", gzip.compress(b'{"a"') + gzip.compress(b":1}")),
        ("gzip", gzip.compress(b'{"a":1}') + b"\x00" * 16),
        ("deflate", zlib.compress(b'{"a":1}')),
        ("deflate", zlib.compress(b'{"a":1}')[2:-4]),
        ("identity", b'{"a":1}'),
    ],
    ids=["gzip", "x-gzip", "two members", "padded", "zlib", "bare deflate", "identity"],
)
async def test_evidence_is_decompressed(coding: str, packed: bytes) -> None:
    outcome = await sent_to(answers(response(200, packed, headers=f"Content-Encoding: {coding}\r\n")))

    assert outcome.evidence is not None
    assert outcome.evidence.body == b'{"a":1}'
    assert not outcome.evidence.truncated


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b"\x00" * 50_000_000)),
        ("gzip", gzip.compress(b'{"a":1}')[:-12]),
        ("gzip", b"this is not gzip"),
        ("br", b"\x0b\x02\x80{}\x03"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}"))),
    ],
    ids=["bomb", "cut", "garbage", "not asked for", "twice"],
)
async def test_answer_is_success_with_opaque_evidence_when_it_cannot_be_decompressed(
    coding: str, packed: bytes
) -> None:
    outcome = await sent_to(answers(response(200, packed, headers=f"Content-Encoding: {coding}\r\n")))

    assert outcome.certainty is SUCCEEDED
    assert outcome.evidence is not None
    assert outcome.evidence.truncated
    assert len(outcome.evidence.body) <= LIMIT


# --- what goes on the wire -----------------------------------------------------------------------------------------


async def captured(request: Callable[[str], ToolRequest], **secrets: str) -> tuple[bytes, Outcome]:
    port = tools(**secrets)
    async with serving(answers(response(200, b"{}"))) as server:
        outcome = await port.send(request(server.url), seconds=5, may_send=lambda: True)
        await port.aclose()
        return b"".join(server.requests), outcome


async def test_request_carries_key_identity_and_sorted_json() -> None:
    wire, outcome = await captured(
        lambda url: call(http(f"{url}/events"), {"title": "x", "attendees": ["a", "b"]}, effect=KEYED)
    )

    head, _, body = wire.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert outcome.certainty is SUCCEEDED
    assert lines[0] == b"POST /events HTTP/1.1"
    assert b"Idempotency-Key: key-1" in lines
    assert b"Surefoot-Call: call_1" in lines
    assert b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" in lines
    assert b"Content-Type: application/json" in lines
    assert body == b'{"attendees":["a","b"],"title":"x"}'


async def test_same_arguments_are_the_same_bytes_whatever_their_order() -> None:
    port = tools()
    async with serving(answers(response(200, b"{}"))) as server:
        for arguments in ({"a": 1, "b": {"x": 1, "y": 2}}, {"b": {"y": 2, "x": 1}, "a": 1}):
            await port.send(call(http(server.url), arguments), seconds=5, may_send=lambda: True)
        await port.aclose()

        assert server.requests[0] == server.requests[1]


async def test_secrets_reach_the_tool_and_nothing_else() -> None:
    secret = 'p@ss/w"örd-123'
    basic = base64.b64encode(f"user:{secret}".encode()).decode()

    async def echoes(connection: Connection) -> None:
        request = await connection.request()
        echo = {"raw": secret, "head": basic, "url": "p%40ss%2Fw%22%C3%B6rd-123", "got": basic in request.decode()}
        body = json.dumps(echo).encode() + secret.encode()
        await connection.send(response(400, body, media_type=f"text/{basic}"))

    port = tools(calendar=secret, basic=basic)
    async with serving(echoes) as server:
        declared = http(f"{server.url}/e", headers={"Authorization": "Basic ${{ secrets.basic }}"})
        outcome = await port.send(call(declared), seconds=5, may_send=lambda: True)
        await port.aclose()

    shown = repr(outcome).encode()
    assert outcome.evidence is not None
    assert b'"got": true' in outcome.evidence.body
    for spelling in (
        secret,
        basic,
        "p%40ss",
        json.dumps(secret)[1:-1],
        base64.b64encode(secret.encode()).decode()[4:12],
    ):
        assert spelling.encode() not in shown


async def test_secret_is_masked_although_the_cap_cuts_through_it() -> None:
    body = b"x" * (LIMIT - 5) + b"s3cret-s3cret" + b"y" * 100
    port = tools(calendar="s3cret-s3cret")
    async with serving(answers(response(200, body))) as server:
        outcome = await port.send(call(http(server.url)), seconds=5, may_send=lambda: True)
        await port.aclose()

    assert outcome.evidence is not None
    assert outcome.evidence.body[-5:] == b"***yy"
    assert outcome.evidence.truncated


async def test_result_token_reaches_the_tool_and_nothing_else() -> None:
    token = "rt_2f6c1b0a9d"

    async def echoes(connection: Connection) -> None:
        request = await connection.request()
        basic = base64.b64encode(f"result:{token}".encode()).decode()
        body = json.dumps({"echo": token, "basic": basic, "got": token in request.decode()}).encode()
        await connection.send(response(202, body, headers=f"X-Request-Id: {token}\r\n", media_type=f"text/{token}"))

    port = tools(calendar="s3cret-s3cret")
    async with serving(echoes) as server:
        declared = call(http(f"{server.url}/e"), on_202="wait", result_url="http://127.0.0.1/r", result_token=token)
        outcome = await port.send(declared, seconds=5, may_send=lambda: True)
        other = await port.send(call(http(f"{server.url}/e")), seconds=5, may_send=lambda: True)
        await port.aclose()

    assert outcome.evidence is not None
    assert outcome.request_id == "***"
    assert b'"got": true' in outcome.evidence.body
    assert token not in repr(outcome)
    assert base64.b64encode(token.encode()).decode()[4:12] not in repr(outcome)
    assert other.evidence is not None
    assert token.encode() in other.evidence.body  # it is a secret of the one request, not of the process


async def test_result_token_is_masked_although_the_cap_cuts_through_it() -> None:
    token = "rt_2f6c1b0a9d"
    port = tools()
    async with serving(answers(response(200, b"x" * (LIMIT - 5) + token.encode() + b"y" * 100))) as server:
        outcome = await port.send(call(http(server.url), result_token=token), seconds=5, may_send=lambda: True)
        await port.aclose()

    assert outcome.evidence is not None
    assert outcome.evidence.body[-5:] == b"***yy"


async def test_missing_secret_is_named_and_nothing_is_sent() -> None:
    wire, outcome = await captured(
        lambda url: call(http(url, headers={"Authorization": "Bearer ${{ secrets.calendar }}"})), other="x"
    )

    assert wire == b""
    assert outcome.certainty is NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.AUTH
    assert "`calendar`" in outcome.failure.message
    assert "SUREFOOT_SECRETS" in (outcome.failure.fix or "")


async def test_retry_after_is_read_when_the_tool_is_busy() -> None:
    outcome = await sent_to(answers(response(429, headers="Retry-After: 7\r\n")))

    assert outcome.failure is not None
    assert outcome.failure.retry_after is not None
    assert outcome.failure.retry_after.total_seconds() == 7


@pytest.mark.parametrize("value", ["-1", "soon", "1e9", "9" * 400, "\xff", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_odd_retry_after_never_breaks_the_outcome(value: str) -> None:
    outcome = await sent_to(answers(response(429, headers=f"Retry-After: {value}\r\n")))

    assert outcome.failure is not None
    wait = outcome.failure.retry_after
    assert wait is None or 0 <= wait.total_seconds() <= 366 * 86400


# --- the exception trees -------------------------------------------------------------------------------------------


def exceptions_of(module: Any) -> list[type[Exception]]:
    found = [getattr(module, name) for name in dir(module)]
    return [item for item in found if isinstance(item, type) and issubclass(item, Exception)]


def test_every_exception_of_httpcore_has_its_own_row() -> None:
    classes = exceptions_of(httpcore)

    assert len(classes) >= 14
    assert [item.__name__ for item in classes if item not in EXCEPTIONS] == []


NOT_OF_STREAMS = {
    "BrokenWorkerInterpreter",
    "BrokenWorkerProcess",
    "BusyResourceError",
    "DelimiterNotFound",
    "FutureAlreadyFinished",
    "FutureCancelled",
    "FutureFailed",
    "FutureNotFinished",
    "NoEventLoopError",
    "RunFinishedError",
    "TaskCancelled",
    "TaskFailed",
    "TaskNotFinished",
    "TypedAttributeLookupError",
    "WouldBlock",
}
"""anyio's errors of tasks, threads, processes and parsers, none of a connected byte stream: a defect, if one came."""


def test_every_exception_of_anyios_streams_is_mapped() -> None:
    mapped = tuple(item for item in EXCEPTIONS if item is not Exception)
    unmapped = {item.__name__ for item in exceptions_of(anyio) if not issubclass(item, mapped)}

    assert unmapped - NOT_OF_STREAMS == set()


def test_every_mapping_tells_before_from_after() -> None:
    for error, (before, after) in EXCEPTIONS.items():
        assert before in UNSENT, error
        assert after not in UNSENT, error
