"""Webhooks against real receivers: signatures that others verify, and what each answer comes to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence

import pytest
from standardwebhooks.webhooks import Webhook

from app.domain.bodies import hygiene
from app.ports.outbound import OutboundPolicy
from app.ports.webhooks import EXCERPT, Webhooks, new_secret
from app.ports.world import DeliveryRequest, DeliveryResult
from tests.ports.misbehaving_server import (
    Behaviour,
    Connection,
    answers,
    free_port,
    response,
    sends_then_closes,
    sends_then_resets,
    sends_then_stalls,
    serving,
)

LOOPBACK = OutboundPolicy.parse("127.0.0.0/8")
BODY = json.dumps({"type": "workflow.succeeded", "data": {"title": "Grüezi \U0001f600"}}, ensure_ascii=False).encode()


def delivery(
    url: str, *, secrets: Sequence[str] = ("whsec_" + base64.b64encode(b"k" * 32).decode(),), gap: bool = False
) -> DeliveryRequest:
    return DeliveryRequest(
        url=url, event_id="evt_01K", body=BODY, secrets=secrets, gap=gap, timestamp=time.time() + 0.75
    )


async def delivered_to(
    behaviour: Behaviour, *, secrets: Sequence[str] | None = None, gap: bool = False, seconds: float = 5
) -> tuple[DeliveryResult, list[bytes]]:
    port = Webhooks(LOOPBACK)
    async with serving(behaviour) as server:
        request = delivery(server.url, gap=gap) if secrets is None else delivery(server.url, secrets=secrets, gap=gap)
        result = await port.send(request, seconds=seconds)
        await port.aclose()
        return result, server.requests


def parts(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    pairs = [line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:]]
    return {name.lower(): value for name, value in pairs}, body


def verified_by_hand(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Standard Webhooks written out from its text: HMAC-SHA256 over `id.timestamp.body`, base64, `v1,` before it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split(" "))


# --- signatures ----------------------------------------------------------------------------------------------------


async def test_receiver_verifies_the_delivery_with_the_standard_library_and_by_hand() -> None:
    secret = new_secret()

    result, requests = await delivered_to(answers(response(200)), secrets=[secret])

    headers, body = parts(requests[0])
    assert result.delivered
    assert body == BODY
    assert headers["webhook-id"] == "evt_01K"
    assert headers["content-type"] == "application/json"
    assert "surefoot-gap" not in headers
    assert Webhook(secret).verify(body, headers) == json.loads(BODY)
    assert verified_by_hand(headers, body, secret)
    assert not verified_by_hand(headers, body + b" ", secret)


async def test_receiver_verifies_with_either_secret_while_rotating() -> None:
    old, new = new_secret(), new_secret()

    _, requests = await delivered_to(answers(response(200)), secrets=[new, old])

    headers, body = parts(requests[0])
    assert len(headers["webhook-signature"].split(" ")) == 2
    assert all(verified_by_hand(headers, body, secret) for secret in (old, new))
    assert not verified_by_hand(headers, body, new_secret())


async def test_receiver_is_told_of_a_gap() -> None:
    _, requests = await delivered_to(answers(response(200)), gap=True)

    assert parts(requests[0])[0]["surefoot-gap"] == "true"


def test_new_secret_is_32_random_bytes_in_standard_form() -> None:
    first, second = new_secret(), new_secret()

    assert first != second
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"), validate=True)) == 32


# --- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "delivered", "gone"),
    [
        (200, True, False),
        (202, True, False),
        (204, True, False),
        (301, False, False),
        (303, False, False),
        (307, False, False),
        (304, False, False),
        (400, False, False),
        (404, False, False),
        (410, False, True),
        (429, False, False),
        (500, False, False),
        (520, False, False),
    ],
)
async def test_only_2xx_is_delivered_and_only_410_is_gone(status: int, delivered: bool, gone: bool) -> None:
    result, requests = await delivered_to(answers(response(status, headers="Location: http://127.0.0.1:1/\r\n")))

    assert (result.delivered, result.gone, result.status_code) == (delivered, gone, status)
    assert (result.error is None) is delivered
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, "Retry-After: 120\r\n", 120.0),
        (503, "Retry-After: 0\r\n", 0.0),
        (
            429,
            "Date: Wed, 21 Oct 2026 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2026 07:30:30 GMT\r\n",
            150.0,
        ),
        (429, "Date: Wed, 21 Oct 2026 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 0.0),
        (429, "Retry-After: Wed, 21 Oct 2026 07:30:30 GMT\r\n", None),
        (429, "Retry-After: tomorrow\r\n", None),
        (429, "Retry-After: -5\r\n", None),
        (429, f"Retry-After: {'9' * 300}\r\n", 366 * 86400.0),
        (429, "", None),
        (500, "Retry-After: 120\r\n", None),
    ],
)
async def test_retry_after_is_read_when_the_receiver_may_say_when(
    status: int, headers: str, wait: float | None
) -> None:
    result, _ = await delivered_to(answers(response(status, headers=headers)))

    assert result.retry_after == wait


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (sends_then_closes(b""), "closed the connection without an answer"),
        (sends_then_resets(b""), "connection broke"),
        (sends_then_closes(b"garbage\r\n\r\n"), "not valid HTTP/1.1"),
        (sends_then_stalls(b""), "No answer within 0.2 s"),
    ],
)
async def test_delivery_without_an_answer_says_what_happened(behaviour: Behaviour, words: str) -> None:
    result, _ = await delivered_to(behaviour, seconds=0.2)

    assert not result.delivered
    assert result.status_code is None
    assert result.error is not None
    assert words in result.error


async def test_delivery_says_that_nobody_listens() -> None:
    result = await Webhooks(LOOPBACK).send(delivery(f"http://127.0.0.1:{free_port()}/"), seconds=5)

    assert not result.delivered
    assert "connection refused" in (result.error or "")


async def test_delivery_into_a_private_network_is_refused() -> None:
    async with serving(answers(response(200))) as server:
        result = await Webhooks(OutboundPolicy()).send(delivery(server.url), seconds=5)

        assert server.connections == 0
    assert not result.delivered
    assert "SUREFOOT_OUTBOUND_ALLOW" in (result.error or "")


async def test_received_delivery_is_delivered_although_its_answer_breaks_off() -> None:
    result, _ = await delivered_to(sends_then_resets(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok"))

    assert result.delivered
    assert result.response_excerpt == "ok"


async def test_answer_is_read_no_further_than_it_is_useful() -> None:
    sent = 0

    async def floods(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    result, _ = await delivered_to(floods)

    assert not result.delivered
    assert result.response_excerpt == "x" * EXCERPT
    assert sent < 64 * 1024 * 1024  # what the sockets hold, not what the receiver would send


@pytest.mark.parametrize(
    "body", [b"\x00\x1b[31m", b"\xff\xfe", b"\xed\xa0\x80", "\ud83d".encode("utf-8", "surrogatepass")]
)
async def test_excerpt_is_storable_whatever_the_receiver_says(body: bytes) -> None:
    result, _ = await delivered_to(answers(response(500, body)))

    assert result.response_excerpt
    assert hygiene(result.response_excerpt) == []


async def test_same_event_is_the_same_bytes_at_every_attempt() -> None:
    _, first = await delivered_to(answers(response(500)))
    _, second = await delivered_to(answers(response(500)))

    assert parts(first[0])[1] == parts(second[0])[1]
    assert parts(first[0])[0]["webhook-id"] == parts(second[0])[0]["webhook-id"]
