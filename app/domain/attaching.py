"""A business key that another call owns: with the same arguments this call attaches to it, with others it conflicts.

An attached call is held until the owner's end, then has the owner's result. It never sends anything and never undoes
what it did not do. If the owner failed, was cancelled or undone, the key is free and the call asks for it itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from app.domain import calling, concluding, ids
from app.domain.aggregate import Call
from app.domain.bindings import instant
from app.domain.facts import KeyAnswered, OwnerLooked
from app.domain.outcomes import JSON, Failure
from app.domain.states import CallState, DueKind, FailureKind, HeldReason, Undo
from app.domain.transition import Draft, Due, KeyWanted

LOOK_AGAIN: Final = timedelta(minutes=1)
"""The owner's end makes the look due at once; this is for an end that nobody told."""

_UNDONE: Final = (Undo.RUNNING, Undo.DONE, Undo.FAILED)
"""Perhaps not there any more: whoever attaches waits until that is settled."""


def conflict(key: str, tool: str, owner: str, why: str) -> Failure:
    return Failure(
        kind=FailureKind.KEY_CONFLICT,
        message=f"The key {key!r:.200} of {tool} belongs to another call ({owner}), {why}; nothing was sent.",
        fix=f"Look at that effect (GET /v1/effects/{owner}); if this is another one, use another idempotency_key.",
        detail={"owner": owner, "key": key},
    )


def attach(draft: Draft, call: Call, fact: KeyAnswered) -> None:
    """A call made (or still held) for a key that somebody owns."""
    if fact.owner is None:
        raise ValueError("there is no owner to attach to")
    if call.target != fact.owner:
        draft.event("effect.attached", call=call, data={"owner": ids.encode("call", fact.owner), "key": fact.key})
    call.target = fact.owner
    draft.touch_call(call)
    _look(draft, call, state=fact.owner_state, undo=fact.owner_undo, result=fact.owner_result)


def owner_looked(draft: Draft, fact: OwnerLooked) -> None:
    call = draft.call(fact.call_id)
    if call.state != CallState.HELD or call.held_reason != HeldReason.ATTACHED:
        return
    ended = fact.state in (CallState.SUCCEEDED, CallState.ABANDONED) and fact.undo not in _UNDONE
    if fact.owner is not None and fact.owner == call.target and ended:
        _look(draft, call, state=fact.state, undo=fact.undo, result=fact.result)
    else:
        # Asked under the key's lock: an owner that ends meanwhile ends after us, and tells.
        want_key(draft, call)


def _look(draft: Draft, call: Call, *, state: str | None, undo: str, result: JSON) -> None:
    if state == CallState.SUCCEEDED and undo not in _UNDONE:
        _share(draft, call, result)
    elif state == CallState.ABANDONED:
        key = str(call.request["business_key"])
        owner = "" if call.target is None else ids.encode("call", call.target)
        failure = conflict(key, call.tool or "", owner, "and whether that happened was given up")
        concluding.fail(draft, call, failure)
    else:
        # Open, in doubt, or being undone: its end makes this due.
        at = draft.now + LOOK_AGAIN
        draft.set_due(Due(kind=DueKind.ATTACHED, ref=call.id, due_at=at, ring_at=at))


def _share(draft: Draft, call: Call, result: JSON) -> None:
    draft.workflow.duplicates_prevented += 1
    owner = None if call.target is None else ids.encode("call", call.target)
    call.resolved = {"outcome": "attached", "owner": owner, "by": "effect_keys", "at": instant(draft.now)}
    draft.move_call(call, CallState.SUCCEEDED)
    draft.event(
        "effect.call.changed",
        call=call,
        moved=(CallState.HELD, CallState.SUCCEEDED),
        data={"reason": f"{owner} did it under the same key"},
    )
    concluding.give(draft, draft.step(call.step), call, result)


def want_key(draft: Draft, call: Call) -> None:
    """The key is free: ask for it."""
    key = str(call.request["business_key"])
    draft.transition.keys_wanted.append(
        KeyWanted(step=call.step, call_id=call.id, tool=call.tool or "", key=key, args_sha256=call.args_sha256)
    )


def take_over(draft: Draft, call: Call, generation: int) -> None:
    """The key is ours now: the call that waited does the effect itself."""
    call.target = None
    call.generation = generation
    call.key = calling.wire_key(call)
    draft.move_call(call, CallState.DUE)
    draft.event(
        "effect.call.changed", call=call, moved=(CallState.HELD, call.state), data={"reason": "the key became free"}
    )
