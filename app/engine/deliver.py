"""Deliver the webhooks of one stream, in order: claim, sign, POST, record and claim the next; then ring.

Dies the process after the POST, the receiver gets it again (at least once, same id, same bytes); order per stream is
kept because only the head is ever sent and its due is moved into the future while it is. The transaction that records
one delivery takes the next: half of the transactions, and no doorbell in between.
"""

from __future__ import annotations

from dataclasses import dataclass
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

CONNECTIONS: Final = 4
LEASE_MARGIN: Final = 5.0
"""Seconds beyond the delivery's own deadline during which nobody else takes the stream."""

IN_A_ROW: Final = 32
"""Deliveries of one stream that a task makes before it rings for the rest: other streams wait for the task's slot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Taken:
    """The head of the stream, ours until its lease is over, and the bytes of every attempt at it."""

    head: Head
    body: bytes


async def deliver(services: Services, stream: UUID) -> None:
    """What is due of the stream; rings if more is. Never raises for what the receiver does."""
    if services.webhooks is None:
        raise RuntimeError("this process delivers nothing")
    lease = services.settings.delivery_timeout + LEASE_MARGIN

    async def take(connection: transactions.Connection) -> _Taken | None:
        return await _frozen(connection, await deliveries.take(connection, stream, lease=lease))

    taken = await transactions.run(services.database, "deliver", take, size=CONNECTIONS)
    for left in reversed(range(IN_A_ROW)):
        if taken is None:
            return
        result = await services.webhooks.send(_request(taken), seconds=services.settings.delivery_timeout)
        go_on = left > 0 and not (services.lease is not None and services.lease.draining.is_set())
        taken = await _record(services, stream, taken.head, result, lease=lease if go_on else None)


async def _frozen(connection: transactions.Connection, head: Head | None) -> _Taken | None:
    if head is None:
        return None
    body = head.body
    if body is None:
        body = webhook_bodies.body(head.workflow, head.event)
        await deliveries.freeze(connection, head, body)
    return _Taken(head=head, body=bytes(body))


def _request(taken: _Taken) -> DeliveryRequest:
    head = taken.head
    return DeliveryRequest(
        url=head.url,
        event_id=ids.encode("evt", head.event_id),
        body=taken.body,
        secrets=head.secrets,
        gap=head.gap,
        timestamp=head.now.timestamp(),
    )


async def _record(
    services: Services, stream: UUID, head: Head, result: DeliveryResult, *, lease: float | None
) -> _Taken | None:
    """`lease`: the next is taken for so long if this one is over; None: it is left to whoever hears the bell."""
    expiry = timedelta(seconds=services.settings.delivery_expiry)

    async def work(connection: transactions.Connection) -> tuple[_Taken | None, bool]:
        now = await deliveries.lock(connection, stream)
        if now is None:
            return None, False
        again = _next(head, result, now=now, expiry=expiry)
        state = _state(result, again)
        if not await deliveries.record(connection, head, attempt=_attempt(head, result, now), state=state):
            return None, False
        if state is DeliveryState.DISABLED:
            await deliveries.disable(connection, head, stream)
        elif state is DeliveryState.GIVEN_UP:
            await deliveries.mark_gap(connection, head, stream)
        if again is None and lease is not None:
            following = await deliveries.take_next(connection, stream, lease=lease)
            return await _frozen(connection, following), False
        more = await deliveries.go_on(connection, head, stream, at=again or now)
        return None, more and again is None

    taken, ready = await transactions.run(services.database, "deliver", work, size=CONNECTIONS)
    if not result.delivered:
        log.info("delivery.failed", workflow=str(head.workflow_id), seq=head.seq, error=result.error)
    if ready:
        services.bell.ring(Lane.DELIVERIES, [stream])
    return taken


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
