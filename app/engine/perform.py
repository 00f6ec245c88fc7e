"""One call, once: claim, perform, record, ring. What a Celery task and the sweep's local feed run.

    claim    a transaction: the intent is committed before any byte leaves (`app/engine/claim.py`)
    perform  no transaction: self-fence, then the world (`app/engine/send.py`), under the attempt's send deadline
    record   a transaction: evidence and decision (`app/engine/record.py`), and where the workflow goes on in this place
             the claim of its next call (`app/engine/follow.py`)

The process may die at every line. Before the claim's commit nothing happened; between it and the record the attempt is
`intended` and the sweep, or late evidence, decides by the effect class; after the record's commit the bell is only a
hint. A doorbell rung twice finds nothing due.
"""

from __future__ import annotations

from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.domain import ids
from app.domain.facts import SwitchedOff
from app.domain.outcomes import Outcome
from app.engine import claim, record, send, switch
from app.engine.advance import advance_one
from app.engine.claim import Asked
from app.engine.lease import Lease, boot_time
from app.engine.sending import Sending, Watch
from app.engine.services import Ready, Services
from app.store.claims import Claimed

log = structlog.get_logger(__name__)


async def perform(services: Services, call_id: UUID) -> None:
    """Perform the call if it is due, or was claimed with the record before it. Never raises for what the world does."""
    lease = services.lease
    if lease is None:
        return
    ready = services.ready.pop(call_id, None)
    if ready is None and lease.may_claim():
        ready = await _ready(services, lease, call_id)
    if ready is None:
        return
    claimed = ready.claimed
    with structlog.contextvars.bound_contextvars(
        workflow_id=ids.encode("wf", claimed.workflow_id), step=claimed.step, call=ids.encode("call", call_id)
    ):
        await _perform_claimed(services, lease, ready)


async def _ready(services: Services, lease: Lease, call_id: UUID) -> Ready | None:
    """The call, claimed. None: there is nothing to perform, or the one door has decided about what stood before it."""
    before_claim, worker_id = boot_time(), lease.worker_id
    claimed = await claim.claimed(services, lease, Asked(call_id=call_id, attempt_id=uuid7()))
    if claimed is None:
        return None
    refused = claim.refused(claimed)
    if refused is None:
        return Ready(claimed=claimed, worker_id=worker_id, before_claim=before_claim)
    if isinstance(refused, SwitchedOff):
        await switch.hold_call(services, claimed.tenant_id, claimed.workflow_id, refused)
    else:
        await advance_one(services, claimed.workflow_id, [refused], purpose="expire")
    return None


async def _perform_claimed(services: Services, lease: Lease, ready: Ready) -> None:
    claimed = ready.claimed
    sending = Sending(lease=lease, claimed=claimed, partials=services.partials)
    deadline = ready.before_claim + claimed.timeout_ms / 1000
    lease.opened(
        claimed.call_id,
        claimed.attempt_id,
        sending.revoked,
        worker_id=ready.worker_id,
        deadline=deadline,
        harmless=sending.harmless,
    )
    watch = _watch(services, lease)
    watch.sendings[claimed.attempt_id] = sending
    try:
        outcome = await _outcome(services, claimed, sending, deadline=deadline)
        await record.record(services, claimed, outcome)
    finally:
        lease.closed(claimed.attempt_id)
        watch.sendings.pop(claimed.attempt_id, None)


async def _outcome(services: Services, claimed: Claimed, sending: Sending, *, deadline: float) -> Outcome:
    """Of an attempt that was claimed, whatever happens: without one it would be open until its deadline."""
    try:
        return await sending.run(send.send(services, claimed, sending, deadline=deadline))
    except Exception as error:
        return send.broken(error, sent=sending.sent)


def _watch(services: Services, lease: Lease) -> Watch:
    if services.watch is None:
        services.watch = Watch(lease)
    return services.watch
