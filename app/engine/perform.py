"""One call, once: claim, perform, record, ring. What a Celery task and the sweep's local feed run.

    claim    a transaction: the intent is committed before any byte leaves
    perform  no transaction: self-fence, then the world, under the attempt's send deadline
    record   a transaction: evidence and decision (`app/engine/record.py`)

The process may die at every line. Before the claim's commit nothing happened; between it and the record the attempt is
`intended` and the sweep, or late evidence, decides by the effect class; after the record's commit the bell is only a
hint. A doorbell rung twice finds nothing due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from uuid_utils.compat import uuid7

from app.domain import conversation, ids
from app.domain.facts import Fact, KeyExpired, MayHaveHappened, SwitchedOff, name_of
from app.domain.outcomes import Failure, Outcome
from app.domain.plan import Plan
from app.domain.states import ENGINE_VERSION, AttemptOutcome, CallKind, EffectClass, FailureKind
from app.engine import gate, record, result_tokens, switch, transactions
from app.engine.advance import advance_one
from app.engine.gather import Gatherer
from app.engine.lease import Lease, boot_time
from app.engine.services import Services
from app.ports.world import ModelRequest, ToolRequest
from app.settings import Settings
from app.store import claims, messages
from app.store.claims import Claimed

log = structlog.get_logger(__name__)

KNOWN_VERSIONS: Final = (ENGINE_VERSION,)

CLAIM_TRIES: Final = 3
"""Flushes in which a call that is due, but whose row somebody held, is asked for; then the sweep has it."""

LEAST_TIME: Final = 0.05
"""Seconds: an attempt that has less left when its first byte could leave (or half of a still shorter timeout) is not
sent at all."""

LATE_PAUSE: Final = timedelta(seconds=1)
"""Before an attempt that came too late is made anew: a timeout that nothing can keep must not become a hot loop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    call_id: UUID
    attempt_id: UUID


async def perform(services: Services, call_id: UUID) -> None:
    """Perform the call if it is due. Never raises for what the world does."""
    lease = services.lease
    if lease is None or not lease.may_claim():
        return
    before_claim = boot_time()
    worker_id = lease.worker_id
    asked = Asked(call_id=call_id, attempt_id=uuid7())
    claimed = None
    for _ in range(CLAIM_TRIES):
        claimed, locked = await _claim_for_certain(services, lease, asked)
        if not locked:
            break
    if claimed is None:
        return
    with structlog.contextvars.bound_contextvars(
        workflow_id=ids.encode("wf", claimed.workflow_id), step=claimed.step, call=ids.encode("call", call_id)
    ):
        refused = _refused(claimed)
        if isinstance(refused, SwitchedOff):
            await switch.hold_call(services, claimed.tenant_id, claimed.workflow_id, refused)
            return
        if refused is not None:
            await advance_one(services, claimed.workflow_id, [refused], purpose="expire")
            return
        await _perform_claimed(services, lease, claimed, worker_id=worker_id, before_claim=before_claim)


def _refused(claimed: Claimed) -> Fact | None:
    """Why a call that is due was not claimed after all: for the one door to decide about."""
    if claimed.key_expired:
        return KeyExpired(call_id=claimed.call_id, step=claimed.step)
    if claimed.lost_past:
        return MayHaveHappened(call_id=claimed.call_id, step=claimed.step)
    if claimed.switched_off is not None:
        return SwitchedOff(call_id=claimed.call_id, step=claimed.step, scope=claimed.switched_off)
    return None


async def _perform_claimed(
    services: Services, lease: Lease, claimed: Claimed, *, worker_id: UUID, before_claim: float
) -> None:
    sending = _Sending(lease=lease, claimed=claimed)
    deadline = before_claim + claimed.timeout_ms / 1000
    lease.opened(claimed.call_id, claimed.attempt_id, sending.revoked, worker_id=worker_id, deadline=deadline)
    watch = _watch(services, lease)
    watch.sendings[claimed.attempt_id] = sending
    try:
        outcome = await sending.run(_send(services, claimed, sending, deadline=deadline))
        await record.record(services, claimed, outcome)
    finally:
        lease.closed(claimed.attempt_id)
        watch.sendings.pop(claimed.attempt_id, None)


class _Sending:
    """One attempt on its way: may it be sent, was it, and who may stop it."""

    def __init__(self, *, lease: Lease, claimed: Claimed) -> None:
        self._lease = lease
        self._claimed = claimed
        self._task: asyncio.Task[Outcome] | None = None
        self.sent = False

    def may_send(self) -> bool:
        """Asked by the port at the last moment before the first byte: the self-fence."""
        allowed = self._lease.may_send(self._claimed.attempt_id)
        self.sent = self.sent or allowed  # asked twice, a later no takes back nothing
        return allowed

    @property
    def harmless(self) -> bool:
        """Model and read_only calls are cancelled at once when the process drains; a sent effect never is."""
        return self._claimed.kind == CallKind.MODEL or self._claimed.effect == EffectClass.READ_ONLY

    def revoked(self, reason: str) -> None:
        """The fence went to somebody else: stop if nothing left yet; what left is waited for, as evidence."""
        if not self.sent and self._task is not None:
            self._task.cancel()

    def drain(self) -> None:
        if self._task is not None and (self.harmless or not self.sent):
            self._task.cancel()

    async def run(self, sending: Any) -> Outcome:
        self._task = asyncio.create_task(sending)
        if self._lease.draining.is_set():
            self.drain()
        try:
            return await self._task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                self._task.cancel()
                raise
            return _stopped(sent=self.sent)


def _stopped(*, sent: bool) -> Outcome:
    """We stopped it ourselves: before the first byte that is certain; after it only a harmless call is stopped."""
    certainty = AttemptOutcome.UNKNOWN if sent else AttemptOutcome.NOT_SENT
    failure = Failure(
        kind=FailureKind.WORKER_LOST, message="The worker is shutting down; the call is made again elsewhere."
    )
    return Outcome(certainty=certainty, failure=failure)


class Watch:
    """Tells every attempt of this process when a drain begins."""

    def __init__(self, lease: Lease) -> None:
        self.sendings: dict[UUID, _Sending] = {}
        self.task = asyncio.create_task(self._run(lease))

    async def _run(self, lease: Lease) -> None:
        await lease.draining.wait()
        for sending in list(self.sendings.values()):
            sending.drain()


def _watch(services: Services, lease: Lease) -> Watch:
    if services.watch is None:
        services.watch = Watch(lease)
    return services.watch


# --- claim ---------------------------------------------------------------------------------------------------------


def _claims(services: Services) -> Gatherer[Asked, tuple[Claimed | None, bool]]:
    if services.claims is None:
        services.claims = Gatherer(partial(claim, services), limit=services.settings.batch)
    return services.claims


async def _claim_for_certain(services: Services, lease: Lease, asked: Asked) -> tuple[Claimed | None, bool]:
    """Ask until the database answers, or we are told to end: a claim whose reply was lost may be committed, and then
    nobody but us would perform it before its deadline."""
    pause = record.PAUSE
    while True:
        try:
            return await _claims(services).submit(asked)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if lease.draining.is_set() or not transactions.lost(error):
                raise
            log.info("claim.database_away", error=str(error)[:200], after=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, record.LONGEST_PAUSE)


async def claim(services: Services, batch: Sequence[Asked]) -> list[tuple[Claimed | None, bool]]:
    """(what was claimed, whether somebody held the row) for each. Repeated with the same attempt ids if the COMMIT's
    reply is lost: then what is intended with our attempt id is ours."""
    lease = services.lease
    if lease is None:
        return [(None, False)] * len(batch)
    settings, worker = services.settings, lease.worker_id
    unique = {asked.call_id: asked for asked in batch}  # the same bell twice in one batch: one attempt

    async def work(connection: transactions.Connection) -> tuple[dict[UUID, Claimed], set[UUID]]:
        asked = [(one.call_id, one.attempt_id) for one in unique.values()]
        got = await claims.claim(
            connection,
            asked,
            worker=worker,
            versions=KNOWN_VERSIONS,
            key_margin=settings.key_margin,
        )
        found = {one.call_id: one for one in got}
        rest = [one.call_id for one in unique.values() if one.call_id not in found]
        return found, await claims.still_due(connection, rest) if rest else set()

    found, locked = await transactions.run(services.database, "claim", work, one_statement=True)
    answer: list[tuple[Claimed | None, bool]] = []
    for asked in batch:
        got = found.get(asked.call_id)
        mine = got is not None and (got.attempt_id == asked.attempt_id)
        answer.append((got if mine else None, asked.call_id in locked))
    return answer


# --- perform -------------------------------------------------------------------------------------------------------


async def _send(services: Services, claimed: Claimed, sending: _Sending, *, deadline: float) -> Outcome:
    """`deadline`: of the attempt, by the boot clock. What is read before the first byte takes of its time."""
    try:
        plan = await services.plans.get(claimed.tenant_id, claimed.plan_digest)
        if claimed.kind == CallKind.MODEL:
            return await _send_model(services, plan, claimed, sending, deadline=deadline)
        return await _send_tool(services, plan, claimed, sending, deadline=deadline)
    except Exception as error:
        if not sending.sent and transactions.lost(error):
            return _database_away(error)
        # A defect of ours or of an adapter: what left is unknown, the rest was never sent.
        log.exception("perform.defect")
        certainty = AttemptOutcome.UNKNOWN if sending.sent else AttemptOutcome.NOT_SENT
        failure = Failure(kind=FailureKind.INTERNAL, message=f"A defect of Surefoot: {type(error).__name__}.")
        return Outcome(certainty=certainty, failure=failure)


def _database_away(error: Exception) -> Outcome:
    """What is to be sent could not be read: nobody's failure, and made again once the record finds the database."""
    log.warning("perform.database_away", error=str(error)[:200])
    failure = Failure(kind=FailureKind.WORKER_LOST, message="The database was away before anything was sent.")
    return Outcome(certainty=AttemptOutcome.NOT_SENT, failure=failure)


def _least(claimed: Claimed) -> float:
    return min(LEAST_TIME, claimed.timeout_ms / 2000)


def _too_late() -> Outcome:
    failure = Failure(
        kind=FailureKind.WORKER_LOST,
        message="What comes before the first byte took as long as the attempt may; nothing was sent.",
        retry_after=LATE_PAUSE,
    )
    return Outcome(certainty=AttemptOutcome.NOT_SENT, failure=failure)


async def _send_tool(
    services: Services, plan: Plan, claimed: Claimed, sending: _Sending, *, deadline: float
) -> Outcome:
    if services.tools is None or claimed.tool is None:
        raise RuntimeError("this process performs no tools")
    effect = EffectClass(claimed.effect)
    tool = plan.tools[claimed.tool]
    not_approved = await gate.shut(services, claimed, tool)
    if not_approved is not None:
        return not_approved
    token = None
    if tool.on_202 == "wait":
        token = await result_tokens.make(services, call_id=claimed.call_id, attempt_id=claimed.attempt_id)
    request = ToolRequest(
        tool=tool,
        arguments=claimed.request["arguments"],
        key=claimed.key,
        headers=_headers(claimed),
        fresh_connection=effect in (EffectClass.AT_MOST_ONCE, EffectClass.CHECKABLE),
        result_url=None if token is None else _result_url(services.settings, claimed),
        result_token=token,
    )
    seconds = deadline - boot_time()
    if seconds < _least(claimed):
        return _too_late()
    return await services.tools.send(request, seconds=seconds, may_send=sending.may_send)


def _result_url(settings: Settings, claimed: Claimed) -> str:
    """Where the tool reports its result. An API that listens everywhere is reached on loopback unless told else."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    base = settings.public_url.rstrip("/") or f"http://{host}:{settings.port}"
    return f"{base}/v1/calls/{ids.encode('call', claimed.call_id)}/result"


async def _send_model(
    services: Services, plan: Plan, claimed: Claimed, sending: _Sending, *, deadline: float
) -> Outcome:
    if services.models is None:
        raise RuntimeError("this process performs no model calls")
    step = plan.steps[name_of(claimed.step)]
    agent = step.agent
    if agent is None:
        raise RuntimeError(f"{claimed.step} is no agent step")
    wanted = claimed.request
    async with services.database.hot("messages", size=4) as connection:
        bodies = await messages.conversation(
            connection,
            workflow_id=claimed.workflow_id,
            step=claimed.step,
            conversation=wanted["conversation"],
            count=wanted["messages"],
        )
    broken = conversation.check(bodies)
    if broken:
        raise RuntimeError(f"a malformed conversation is not sent: {broken[0]}")
    request = ModelRequest(
        model=wanted["model"],
        max_tokens=wanted["max_tokens"],
        system=agent.instructions,
        messages=bodies,
        tools=[
            conversation.tool_param(name=name, description=tool.description, input_schema=tool.input_schema)
            for name, tool in ((name, plan.tools[name]) for name in agent.tools)
        ],
        output_schema=step.output_schema,
        effort=wanted["effort"],
        headers=_headers(claimed),
    )
    seconds = deadline - boot_time()
    if seconds < _least(claimed):
        return _too_late()
    return await services.models.send(request, seconds=seconds, may_send=sending.may_send)


def _headers(claimed: Claimed) -> Mapping[str, str]:
    headers = {
        "Surefoot-Workflow": ids.encode("wf", claimed.workflow_id),
        "Surefoot-Call": ids.encode("call", claimed.call_id),
        "Surefoot-Attempt": str(claimed.n),
    }
    if claimed.traceparent is not None:
        headers["traceparent"] = claimed.traceparent
    return headers
