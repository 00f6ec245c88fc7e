"""What leaves for one claimed attempt, and by which port: a tool's request, or a model's with its conversation.

    send     the outcome of one attempt; raises nothing for what the world does
    broken   its outcome if it raised something all the same: an error of the database, of an adapter, of ours

The request was frozen when the call was made; what is read here (the plan, messages, an approval, a token) only renders
it. Nothing is written, decided or repeated here. Until the port's first byte the outcome is a certain `not_sent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import structlog

from app.domain import calling, compacting, conversation, drifting, ids
from app.domain.facts import name_of
from app.domain.outcomes import Failure, Outcome
from app.domain.plan import Plan
from app.domain.states import AttemptOutcome, CallKind, EffectClass, FailureKind
from app.engine import discover, gate, result_tokens, transactions
from app.engine.lease import boot_time
from app.engine.sending import Sending
from app.engine.services import Services
from app.ports.world import ModelRequest, ToolRequest
from app.settings import Settings
from app.store.claims import Claimed

log = structlog.get_logger(__name__)

LEAST_TIME: Final = 0.05
"""Seconds: an attempt that has less left when its first byte could leave (or half of a still shorter timeout) is not
sent at all."""

LATE_PAUSE: Final = timedelta(seconds=1)
"""Before an attempt that came too late is made anew: a timeout that nothing can keep must not become a hot loop."""


async def send(services: Services, claimed: Claimed, sending: Sending, *, deadline: float) -> Outcome:
    """`deadline`: of the attempt, by the boot clock. What is read before the first byte takes of its time."""
    plan = await services.plans.get(claimed.tenant_id, claimed.plan_digest)
    if claimed.kind == CallKind.MODEL:
        return await _send_model(services, plan, claimed, sending, deadline=deadline)
    if claimed.kind == CallKind.DISCOVER:
        return await discover.send_discovery(services, plan, claimed, sending, seconds=deadline - boot_time())
    return await _send_tool(services, plan, claimed, sending, deadline=deadline)


def broken(error: Exception, *, sent: bool) -> Outcome:
    """What left is unknown, whatever broke; the rest was never sent."""
    if not sent and transactions.lost(error):
        return _database_away(error)
    log.error("perform.defect", exc_info=error)
    certainty = AttemptOutcome.UNKNOWN if sent else AttemptOutcome.NOT_SENT
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


async def _send_tool(services: Services, plan: Plan, claimed: Claimed, sending: Sending, *, deadline: float) -> Outcome:
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
        definition=claimed.request.get(drifting.CHANGE),
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
    services: Services, plan: Plan, claimed: Claimed, sending: Sending, *, deadline: float
) -> Outcome:
    if services.models is None:
        raise RuntimeError("this process performs no model calls")
    step = plan.steps[name_of(claimed.step)]
    agent = step.agent
    if agent is None:
        raise RuntimeError(f"{claimed.step} is no agent step")
    wanted = claimed.request
    place = (claimed.workflow_id, claimed.step, wanted["conversation"])
    async with services.database.hot("messages", size=4) as connection:
        read = await services.conversations.read(connection, place, count=wanted["messages"])
    bodies = read.messages
    sent = compacting.sent(wanted, bodies)
    broken = services.conversations.problems(place, read) if sent is bodies else conversation.check(sent)
    if broken:
        raise RuntimeError(f"a malformed conversation is not sent: {broken[0]}")
    purpose = wanted.get("purpose")
    bare = wanted.get("over") == compacting.TRANSCRIPT  # there is no prefix to keep: text alone is sent
    request = ModelRequest(
        model=wanted["model"],
        max_tokens=wanted["max_tokens"],
        system=agent.instructions,
        messages=sent,
        tools=[
            conversation.tool_param(name=name, description=tool.description, input_schema=tool.input_schema)
            for name, tool in ((name, plan.tools[name]) for name in (() if bare else agent.tools))
        ],
        output_schema=None if bare else step.output_schema,
        effort=wanted["effort"],
        tools_forbidden=purpose in (compacting.PURPOSE, calling.FINAL),
        free_form=purpose == compacting.PURPOSE,
        headers=_headers(claimed),
        writing=sending.writing,
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
