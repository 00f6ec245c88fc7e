"""Webhooks out: one POST of one event to one receiver, signed after Standard Webhooks.

`Webhooks.send` answers with a `DeliveryResult` and raises nothing for what the receiver does. 2xx is the only
success; a redirect is a failure and is not followed; 410 means never again; 429 and 503 may say when. It never
retries (the stream's schedule does), never changes the body, and reads no more than `RESPONSE_LIMIT` of the answer.
"""

from __future__ import annotations

import base64
import ssl
import time
from datetime import UTC, datetime
from functools import lru_cache
from secrets import token_bytes
from typing import Final

from standardwebhooks.webhooks import Webhook

from app.domain.bodies import storable_text
from app.domain.certainty import Observation
from app.ports.outbound import Exchange, Outbound, OutboundPolicy, Resolver
from app.ports.world import DeliveryRequest, DeliveryResult

RESPONSE_LIMIT: Final = 64 * 1024
EXCERPT: Final = 500
"""Characters of the answer shown to the operator."""

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
"""Standard Webhooks asks for 24 to 64."""

_WAIT_STATUSES: Final = frozenset({429, 503})

_WORDS: Final = {
    Observation.FORBIDDEN: "Not sent: {detail}. The operator can allow the host in SUREFOOT_OUTBOUND_ALLOW.",
    Observation.REQUEST_INVALID: "Not sent: {detail}.",
    Observation.DNS_FAILED: "Not reached: {detail}.",
    Observation.CONNECT_FAILED: "Not reached: {detail}.",
    Observation.TLS_FAILED: "Not sent: {detail}.",
    Observation.POOL_TIMEOUT: "Not sent: no connection was free in time.",
    Observation.DEADLINE_UNSENT: "No connection within {detail}.",
    Observation.DEADLINE: "No answer within {detail}.",
    Observation.WRITE_ERROR: "The connection broke while sending ({detail}).",
    Observation.READ_ERROR: "The connection broke before the answer ({detail}).",
    Observation.PROTOCOL_ERROR: "No usable answer: {detail}.",
    Observation.DEFECT_UNSENT: "Not sent: a defect of ours ({detail}).",
    Observation.DEFECT: "Sent, but a defect of ours lost the answer ({detail}).",
}


def new_secret() -> str:
    """A fresh signing secret, `whsec_…`."""
    return SECRET_PREFIX + base64.b64encode(token_bytes(SECRET_BYTES)).decode("ascii")


class Webhooks:
    """Implements `WebhookPort`. One per process and event loop; `aclose` lets go of idle connections."""

    def __init__(
        self, policy: OutboundPolicy, *, resolver: Resolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._outbound = Outbound(policy, resolver=resolver, tls=tls)

    async def send(self, request: DeliveryRequest, *, seconds: float) -> DeliveryResult:
        began = time.monotonic()
        exchange = await self._outbound.send(
            "POST",
            request.url,
            headers=_headers(request),
            content=request.body,
            seconds=seconds,
            limit=RESPONSE_LIMIT,
            may_send=lambda: True,
        )
        return _result(exchange, duration_ms=round((time.monotonic() - began) * 1000))

    async def aclose(self) -> None:
        await self._outbound.aclose()


def _headers(request: DeliveryRequest) -> list[tuple[bytes, bytes]]:
    sent_at = datetime.fromtimestamp(int(request.timestamp), tz=UTC)
    text = request.body.decode("utf-8")
    signatures = [_signer(secret).sign(request.event_id, sent_at, text) for secret in request.secrets]
    headers = [
        (b"Content-Type", b"application/json"),
        (b"webhook-id", request.event_id.encode("ascii")),
        (b"webhook-timestamp", str(int(request.timestamp)).encode("ascii")),
        (b"webhook-signature", " ".join(signatures).encode("ascii")),
    ]
    if request.gap:
        headers.append((b"surefoot-gap", b"true"))
    return headers


@lru_cache(maxsize=1024)
def _signer(secret: str) -> Webhook:
    return Webhook(secret)


def _result(exchange: Exchange, *, duration_ms: int) -> DeliveryResult:
    status = exchange.status
    delivered = status is not None and 200 <= status < 300
    # A 2xx whose body breaks off was received: the body is only for people.
    return DeliveryResult(
        delivered=delivered,
        status_code=status,
        error=None if delivered else _error(exchange),
        retry_after=exchange.retry_after if status in _WAIT_STATUSES else None,
        gone=status == 410,
        response_excerpt=storable_text(exchange.body[: 4 * EXCERPT].decode("utf-8", "replace"), limit=EXCERPT),
        duration_ms=duration_ms,
    )


def _error(exchange: Exchange) -> str:
    status = exchange.status
    if status is None:
        return _WORDS[exchange.observation].format(detail=exchange.detail)
    if 300 <= status < 400:
        return f"The receiver answered {status}; redirects are not followed."
    if status == 410:
        return "The receiver answered 410: it asks never to be called again."
    return f"The receiver answered {status}."
