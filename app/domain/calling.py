"""How a step's wish becomes a call: inputs frozen, key derived, effect class set. Nothing here decides whether.

A call's request is frozen when the call is made: attempts send identical bytes, and whatever changes the request is a
new call with `retry_of` and `change`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.domain import canonical, ids
from app.domain.aggregate import Call, Message, StepRow
from app.domain.outcomes import JSON
from app.domain.plan import Agent, Step, Tool
from app.domain.states import AttemptOutcome, CallKind, CallState, EffectClass, FailureKind, HeldReason
from app.domain.transition import Draft

_KEY_DOMAIN: Final = "surefoot/idempotency-key/v1"
"""Domain separator: nothing else of ours hashes to a key."""

ANSWER: Final = "answer"
FINAL: Final = "final"
"""Purposes of a model call. A `final` one is the last of an agent that ends at a limit: it may use no tool."""

MAX_TOKENS: Final = "max_tokens"
"""Counter on an agent step: how long its answers may be, if that was changed."""
FINISHING: Final = "finishing"
"""Counter on an agent step that is to end with its next answer: at which limit (`app/domain/finishing.py`)."""


def next_number(draft: Draft, row: StepRow) -> tuple[int, UUID]:
    """The next call's number in its step and its id, which follows from its place."""
    row.calls += 1
    draft.touch(row)
    return row.calls, call_id(draft, row, row.calls)


def call_id(draft: Draft, row: StepRow, n: int) -> UUID:
    """The id that the step's `n`th call has if it is made in this decision."""
    return ids.timed(draft.now, str(draft.workflow.id), row.path, str(n))


def shown_id(call: Call) -> str:
    return ids.encode("call", call.id)


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
    retry_of: Call | None = None,
    change: JSON = None,
    target: UUID | None = None,
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
        retry_of=None if retry_of is None else retry_of.id,
        change=change,
        target=target,
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
    )
    if keyed:
        call.key = wire_key(call)
    return draft.add_call(call)


def again(draft: Draft, row: StepRow, tool: Tool, call: Call, *, change: JSON, held: HeldReason | None = None) -> Call:
    """The same wish as a new call: after a definite end of the first, never while it may have happened."""
    return tool_call(
        draft,
        row,
        tool,
        call.request["arguments"],
        generation=call.generation + (1 if _refused(call) else 0),
        turn=call.turn,
        ordinal=call.ordinal,
        tool_use_id=call.tool_use_id,
        retry_of=call,
        change=change,
        held=held,
    )


def _refused(call: Call) -> bool:
    """Whether it definitely failed under its key, which a drain calls cancelled: the tool would replay that failure."""
    if call.state == CallState.FAILED:
        return True
    last = None if call.attempt_id is None else call.attempt(call.attempt_id)
    failed = last is not None and last.outcome == AttemptOutcome.FAILED
    # Without a failure it was about to be sent under the next generation; 429 executed nothing under this one.
    return failed and (call.failure or {}).get("kind") not in (None, FailureKind.RATE_LIMITED)


def probe_call(
    draft: Draft, row: StepRow, tool: Tool, arguments: Mapping[str, JSON], *, target: Call, delay: timedelta
) -> Call:
    """Ask the world whether `target` took effect. A call of its own, harmless, that ignores pause and drain."""
    n, call_id = next_number(draft, row)
    call = Call(
        workflow_id=draft.workflow.id,
        id=call_id,
        tenant_id=draft.workflow.tenant_id,
        step=row.path,
        n=n,
        kind=CallKind.PROBE,
        tool=tool.name,
        turn=target.turn,
        ordinal=target.ordinal,
        args_sha256=hash_of(arguments),
        effect=EffectClass.READ_ONLY,
        state=CallState.DUE,
        request={"tool": tool.name, "arguments": arguments, "business_key": None},
        timeout_ms=_milliseconds(tool.timeout),
        settle_ms=0,
        target=target.id,
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
    )
    return draft.add_call(call, delay=delay)


def compensation_call(
    draft: Draft, row: StepRow, tool: Tool, arguments: Mapping[str, JSON], *, target: Call, delay: timedelta
) -> Call:
    """Undo `target`: an effect itself, with its own class and key. After a failed one the next has another key; after
    one that was given up, which may have happened, it has the same."""
    n, call_id = next_number(draft, row)
    before = compensation_of(draft, target)
    keyed = tool.effect is EffectClass.KEYED
    call = Call(
        workflow_id=draft.workflow.id,
        id=call_id,
        tenant_id=draft.workflow.tenant_id,
        step=row.path,
        n=n,
        kind=CallKind.COMPENSATION,
        tool=tool.name,
        turn=target.turn,
        ordinal=target.ordinal,
        args_sha256=hash_of(arguments),
        effect=tool.effect,
        state=CallState.DUE,
        request={"tool": tool.name, "arguments": arguments, "business_key": None},
        generation=1 if before is None else before.generation + (1 if before.state == CallState.FAILED else 0),
        key_ttl_ms=_milliseconds(tool.key_ttl) if keyed and tool.key_ttl is not None else None,
        timeout_ms=_milliseconds(tool.timeout),
        settle_ms=_milliseconds(tool.settle_time),
        retry_of=None if before is None else before.id,
        target=target.id,
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
    )
    if keyed:
        call.key = wire_key(call)
    return draft.add_call(call, delay=delay)


def compensation_of(draft: Draft, effect: Call) -> Call | None:
    """The latest call that was made to undo this effect, if there was one."""
    found = None if effect.probe_id is None else draft.snapshot.calls.get(effect.probe_id)
    return found if found is not None and found.kind == CallKind.COMPENSATION else None


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
    recovery: Sequence[JSON] = (),
) -> Call:
    """A tool use that is answered without being sent: unknown tool, arguments that break the schema, a tool that was
    taken away."""
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
        recovery=list(recovery),
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
        ended_at=draft.now,
    )
    return draft.add_call(call)


def model_of(row: StepRow, step: Step) -> str:
    """The model that the step's next model call is made with: the agent's own, unless it was switched."""
    if step.agent is None:
        raise ValueError(f"{step.id} is not an agent step")
    return row.model or step.agent.model


def alias_of(row: StepRow, step: Step) -> str:
    """What the definition calls that model."""
    if step.agent is None:
        raise ValueError(f"{step.id} is not an agent step")
    return called(step, step.agent, switched_to=row.model)


def called(step: Step, agent: Agent, *, switched_to: str | None) -> str:
    """What the definition calls the model that a step goes on with."""
    if switched_to is None:
        return agent.alias
    named = (policy.switch_alias for policy in step.retry.values() if policy.switch_model == switched_to)
    return next((alias for alias in named if alias is not None), switched_to)


def max_tokens_of(row: StepRow, step: Step) -> int:
    """How long its next answer may be: as declared, or as a cut answer or another model has changed it."""
    if step.agent is None:
        raise ValueError(f"{step.id} is not an agent step")
    return row.counters.get(MAX_TOKENS, step.agent.max_tokens)


def model_call(
    draft: Draft,
    row: StepRow,
    step: Step,
    *,
    retry_of: Call | None = None,
    change: JSON = None,
    recovery: JSON = None,
    purpose: str | None = None,
) -> Call:
    """The next model call of that step's conversation as it stands. The messages themselves are rows. `recovery`: a
    record or several; `purpose`: `answer`, or `final` for an agent that is to end, unless it is said here."""
    if step.agent is None:
        raise ValueError(f"{step.id} is not an agent step")
    n, call_id = next_number(draft, row)
    request = {
        "model": model_of(row, step),
        "alias": alias_of(row, step),
        "max_tokens": max_tokens_of(row, step),
        "effort": step.agent.effort,
        "conversation": row.conversation,
        "messages": row.messages,
        "purpose": purpose or (FINAL if row.counters.get(FINISHING) else ANSWER),
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
        recovery=[] if recovery is None else recovery if isinstance(recovery, list) else [recovery],
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
    place: tuple[str, ...] = (str(call.workflow_id), call.step, str(call.turn), str(call.ordinal), str(call.generation))
    if call.kind == CallKind.COMPENSATION:
        place = (*place, "undo", str(call.target))
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


def append(draft: Draft, row: StepRow, *, role: str, body: bytes, turn: int | None = None) -> None:
    """One message more. Messages are never trimmed, reordered or edited. `turn`: of a message that is carried over into
    another conversation."""
    draft.transition.messages.append(
        Message(
            workflow_id=row.workflow_id,
            tenant_id=row.tenant_id,
            step=row.path,
            conversation=row.conversation,
            ordinal=row.messages,
            role=role,
            turn=row.turn if turn is None else turn,
            body=body,
        )
    )
    row.messages += 1
    draft.touch(row)
