"""How a step's wish becomes a call: inputs frozen, key derived, effect class set. Nothing here decides whether.

A call's request is frozen when the call is made: attempts send identical bytes, and whatever changes the request is a
new call with `retry_of` and `change`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.domain import canonical, ids
from app.domain.aggregate import Call, Message, StepRow
from app.domain.outcomes import JSON
from app.domain.plan import Step, Tool
from app.domain.states import CallKind, CallState, EffectClass, HeldReason
from app.domain.transition import Draft

_KEY_DOMAIN: Final = "surefoot/idempotency-key/v1"
"""Domain separator: nothing else of ours hashes to a key."""


def next_number(draft: Draft, row: StepRow) -> tuple[int, UUID]:
    """The next call's number in its step and its id, which follows from its place."""
    row.calls += 1
    draft.touch(row)
    return row.calls, ids.timed(draft.now, str(draft.workflow.id), row.path, str(row.calls))


def hash_of(arguments: JSON) -> str:
    return canonical.sha256_hex(canonical.canonical_json(arguments))


def tool_call(
    draft: Draft,
    row: StepRow,
    tool: Tool,
    arguments: Mapping[str, JSON],
    *,
    business_key: str | None = None,
    generation: int = 1,
    turn: int = 0,
    ordinal: int = 0,
    tool_use_id: str | None = None,
    held: HeldReason | None = None,
) -> Call:
    n, call_id = next_number(draft, row)
    keyed = tool.effect is EffectClass.KEYED
    call = Call(
        workflow_id=draft.workflow.id,
        id=call_id,
        tenant_id=draft.workflow.tenant_id,
        step=row.path,
        n=n,
        kind=CallKind.TOOL,
        tool=tool.name,
        turn=turn,
        ordinal=ordinal,
        tool_use_id=tool_use_id,
        args_sha256=hash_of(arguments),
        effect=tool.effect,
        state=CallState.DUE if held is None else CallState.HELD,
        held_reason=held,
        request={"tool": tool.name, "arguments": arguments, "business_key": business_key},
        business_key=business_key is not None,
        generation=generation,
        key_ttl_ms=_milliseconds(tool.key_ttl) if keyed and tool.key_ttl is not None else None,
        timeout_ms=_milliseconds(tool.timeout),
        settle_ms=_milliseconds(tool.settle_time),
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
    )
    if keyed:
        call.key = wire_key(call)
    return draft.add_call(call)


def refused_call(
    draft: Draft,
    row: StepRow,
    *,
    tool: str,
    arguments: JSON,
    turn: int,
    ordinal: int,
    tool_use_id: str,
    failure: Mapping[str, JSON],
) -> Call:
    """A tool use that is answered without being sent: unknown tool, arguments that break the schema."""
    n, call_id = next_number(draft, row)
    call = Call(
        workflow_id=draft.workflow.id,
        id=call_id,
        tenant_id=draft.workflow.tenant_id,
        step=row.path,
        n=n,
        kind=CallKind.TOOL,
        tool=tool,
        turn=turn,
        ordinal=ordinal,
        tool_use_id=tool_use_id,
        args_sha256=hash_of(arguments),
        effect=EffectClass.READ_ONLY,
        state=CallState.FAILED,
        request={"tool": tool, "arguments": arguments, "business_key": None},
        timeout_ms=0,
        settle_ms=0,
        failure=dict(failure),
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
        ended_at=draft.now,
    )
    return draft.add_call(call)


def model_call(
    draft: Draft, row: StepRow, step: Step, *, retry_of: Call | None = None, change: JSON = None, recovery: JSON = None
) -> Call:
    """The next model call of that step's conversation as it stands. The messages themselves are rows."""
    if step.agent is None:
        raise ValueError(f"{step.id} is not an agent step")
    n, call_id = next_number(draft, row)
    request = {
        "model": step.agent.model,
        "alias": step.agent.alias,
        "max_tokens": step.agent.max_tokens,
        "effort": step.agent.effort,
        "conversation": row.conversation,
        "messages": row.messages,
    }
    call = Call(
        workflow_id=draft.workflow.id,
        id=call_id,
        tenant_id=draft.workflow.tenant_id,
        step=row.path,
        n=n,
        kind=CallKind.MODEL,
        turn=row.turn,
        args_sha256=hash_of(request),
        effect=EffectClass.READ_ONLY,
        state=CallState.DUE,
        request=request,
        timeout_ms=_milliseconds(step.call_timeout),
        settle_ms=0,
        retry_of=None if retry_of is None else retry_of.id,
        change=change,
        recovery=[] if recovery is None else [recovery],
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
    )
    return draft.add_call(call)


def wire_key(call: Call) -> str:
    """The key as it goes to the tool. A business key is sent verbatim, then `key#2` and so on after a definite failure;
    a derived key names the place of the call and its generation."""
    business = call.request.get("business_key")
    if business is not None:
        return str(business) if call.generation == 1 else f"{business}#{call.generation}"
    place = (str(call.workflow_id), call.step, str(call.turn), str(call.ordinal), str(call.generation))
    return "sf-" + hashlib.sha256("\x1f".join((_KEY_DOMAIN, *place)).encode()).hexdigest()[:40]


def next_generation(call: Call) -> None:
    """After a definite failure or a completed compensation, never after an unknown: else the tool would replay a
    stored failure for ever, or say "created" of what was deleted."""
    call.generation += 1
    call.key_deadline = None
    if call.key is not None:
        call.key = wire_key(call)


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


def append(draft: Draft, row: StepRow, *, role: str, body: bytes) -> None:
    """One message more. Messages are never trimmed, reordered or edited."""
    draft.transition.messages.append(
        Message(
            workflow_id=row.workflow_id,
            tenant_id=row.tenant_id,
            step=row.path,
            conversation=row.conversation,
            ordinal=row.messages,
            role=role,
            turn=row.turn,
            body=body,
        )
    )
    row.messages += 1
    draft.touch(row)
