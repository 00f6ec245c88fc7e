"""Deliver the next webhook of one stream: claim, sign, POST, record, ring.

Dies the process after the POST, the receiver gets it again (at least once, same id, same bytes); order per stream is
kept because only the head is ever sent and its due is moved into the future while it is.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from app.domain import delivery_schedule, ids, webhook_bodies
from app.domain.outcomes import JSON
from app.domain.states import DeliveryState, Lane
from app.engine import transactions
from app.engine.advance import instant
from app.engine.services import Services
from app.ports.world import DeliveryRequest, DeliveryResult
from app.store import deliveries
from app.store.deliveries import Head

log = structlog.get_logger(__name__)

CONNECTIONS: Final = 2
LEASE_MARGIN: Final = 5.0
"""Seconds beyond the delivery's own deadline during which nobody else takes the stream."""


async def deliver(services: Services, stream: UUID) -> None:
    """One delivery; rings for the next. Never raises for what the receiver does."""
    if services.webhooks is None:
        raise RuntimeError("this process delivers nothing")
    settings = services.settings

    async def take(connection: transactions.Connection) -> tuple[Head, bytes] | None:
        head = await deliveries.take(connection, stream, lease=settings.delivery_timeout + LEASE_MARGIN)
        if head is None:
            return None
        body = head.body
        if body is None:
            body = webhook_bodies.body(head.workflow, head.event)
            await deliveries.freeze(connection, head, body)
        return head, bytes(body)

    taken = await transactions.run(services.database, "deliver", take, size=CONNECTIONS)
    if taken is None:
        return
    head, body = taken
    request = DeliveryRequest(
        url=head.url,
        event_id=ids.encode("evt", head.event_id),
        body=body,
        secrets=head.secrets,
        gap=head.gap,
        timestamp=head.now.timestamp(),
    )
    result = await services.webhooks.send(request, seconds=settings.delivery_timeout)
    await _record(services, stream, head, result)


async def _record(services: Services, stream: UUID, head: Head, result: DeliveryResult) -> None:
    expiry = timedelta(seconds=services.settings.delivery_expiry)

    async def work(connection: transactions.Connection) -> bool:
        now = await deliveries.lock(connection, stream)
        if now is None:
            return False
        again = _next(head, result, now=now, expiry=expiry)
        state = _state(result, again)
        if not await deliveries.record(connection, head, attempt=_attempt(head, result, now), state=state):
            return False
        if state is DeliveryState.DISABLED:
            await deliveries.disable(connection, head, stream)
        elif state is DeliveryState.GIVEN_UP:
            await deliveries.mark_gap(connection, head, stream)
        more = await deliveries.go_on(connection, head, stream, at=again or now)
        return more and again is None

    ready = await transactions.run(services.database, "deliver", work, size=CONNECTIONS)
    if not result.delivered:
        log.info("delivery.failed", workflow=str(head.workflow_id), seq=head.seq, error=result.error)
    if ready:
        services.bell.ring(Lane.DELIVERIES, [stream])


def _next(head: Head, result: DeliveryResult, *, now: datetime, expiry: timedelta) -> datetime | None:
    """When this delivery is tried again; None if it is over, one way or the other."""
    if result.delivered or result.gone:
        return None
    return delivery_schedule.next_attempt(
        now=now,
        attempts=len(head.attempts) + 1,
        event_at=head.event["at"],
        expiry=expiry,
        retry_after=result.retry_after,
        delivery=head.id,
    )


def _state(result: DeliveryResult, again: datetime | None) -> DeliveryState:
    if result.delivered:
        return DeliveryState.DELIVERED
    if result.gone:
        return DeliveryState.DISABLED
    return DeliveryState.OPEN if again is not None else DeliveryState.GIVEN_UP


def _attempt(head: Head, result: DeliveryResult, now: datetime) -> JSON:
    return {
        "n": len(head.attempts) + 1,
        "at": instant(now),
        "status_code": result.status_code,
        "error": result.error,
        "response_excerpt": result.response_excerpt,
        "duration_ms": result.duration_ms,
    }
