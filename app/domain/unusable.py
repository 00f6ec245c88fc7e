"""A model answered, and the answer cannot be used as it is: cut, paused, refused, malformed, misshapen.

    handle         what is done about it, by the recovery table; else the step fails
    said_before    the text of the parts that came before an answer, where one was cut or paused and went on

A part that is kept stands in the conversation as it came, and its text on the call that gave it, so that the parts can
be joined when the last one is there. What is dropped was never appended: the conversation stays well formed at every
line, whatever dies in between, because the answer, its verdict and the next call are one decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from app.domain import (
    answers,
    bodies,
    calling,
    changing,
    compacting,
    conversation,
    model_facts,
    recovery,
    switching,
)
from app.domain.aggregate import Attempt, Call, StepRow
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step
from app.domain.recovery_table import CHANGES, Action
from app.domain.states import FailureKind
from app.domain.transition import Draft

_PARTS: Final = frozenset({CHANGES[Action.CONTINUE], CHANGES[Action.APPEND]})
"""Changes that leave a part of the answer standing."""
_CARRYING: Final = _PARTS | {CHANGES[Action.DOUBLE], CHANGES[Action.SWITCH_MODEL], "reopened"}
"""Changes after which the parts before still stand in the conversation."""
IN_A_ROW: Final = (
    FailureKind.MALFORMED_OUTPUT,
    FailureKind.OUTPUT_TRUNCATED,
    FailureKind.PAUSED_TURN,
)
"""Counters that an answer which can be used sets back."""


def handle(
    draft: Draft, row: StepRow, step: Step, call: Call, attempt: Attempt | None, message: JSON, failure: Failure
) -> None:
    """The call has failed with `failure`; its step goes on."""
    match failure.kind:
        case FailureKind.OUTPUT_TRUNCATED:
            _truncated(draft, row, step, call, attempt, message, failure)
        case FailureKind.PAUSED_TURN:
            _paused(draft, row, step, call, attempt, message, failure)
        case FailureKind.MALFORMED_OUTPUT | FailureKind.WRONG_SHAPE:
            _remind(draft, row, step, call, attempt, message, failure)
        case FailureKind.CONTEXT_TOO_LONG:
            changing.wasted(draft, attempt)
            if not compacting.begin(draft, row, step, call=call, failure=failure):
                changing.give_up(draft, row, call, failure)
        case _:
            changing.wasted(draft, attempt)
            if not switching.switch(draft, row, step, call, failure):
                changing.give_up(draft, row, call, failure)


def said_before(draft: Draft, call: Call) -> str:
    """The parts of this answer that came before, joined; empty for almost every answer."""
    parts: list[str] = []
    current: Call | None = call
    while current is not None and current.retry_of is not None:
        change = (current.change or {}).get("change")
        if change not in _CARRYING:
            break
        current = draft.snapshot.calls.get(current.retry_of)
        if change in _PARTS and current is not None:
            parts.append(str((current.result or {}).get("text", "")))
    return "".join(reversed(parts))


def worded(failure: Failure, call: Call) -> Failure:
    """With the number that matters."""
    if failure.kind is not FailureKind.OUTPUT_TRUNCATED:
        return failure
    return replace(
        failure, message=failure.message.replace("max_tokens", f"max_tokens ({call.request['max_tokens']:,})", 1)
    )


def _truncated(
    draft: Draft, row: StepRow, step: Step, call: Call, attempt: Attempt | None, message: JSON, failure: Failure
) -> None:
    """Text is kept and continued. Half a tool call, or thinking that took all the room, is asked for anew with more."""
    answer, content = answers.read_answer(message), message["content"]
    if answer.text and bodies.hygiene(answer.text):
        _remind(draft, row, step, call, attempt, message, _malformed("The answer holds text that cannot be stored."))
    elif conversation.can_stay(content) and content[-1].get("type") == "text":
        _keep(draft, row, step, call, message, failure, answer.text, action=Action.CONTINUE)
    else:
        changing.wasted(draft, attempt)
        _double(draft, row, step, call, failure)


def _paused(
    draft: Draft, row: StepRow, step: Step, call: Call, attempt: Attempt | None, message: JSON, failure: Failure
) -> None:
    answer, content = answers.read_answer(message), message["content"]
    kept = bool(content) and not answer.tool_uses and not bodies.hygiene(answer.text)
    if kept and conversation.is_paused(content):
        _keep(draft, row, step, call, message, failure, answer.text, action=Action.APPEND)
    elif kept and conversation.can_stay(content) and content[-1].get("type") == "text":
        _keep(draft, row, step, call, message, failure, answer.text, action=Action.CONTINUE)
    else:
        _remind(draft, row, step, call, attempt, message, _malformed("The turn was paused where it cannot go on."))


def _keep(
    draft: Draft, row: StepRow, step: Step, call: Call, message: JSON, failure: Failure, text: str, *, action: Action
) -> None:
    """The part stays in the conversation as it came."""
    used = row.counters.get(failure.kind, 0)
    policy = recovery.changed(step, failure.kind, used=used)
    if policy is None or not changing.affordable(draft):
        changing.give_up(draft, row, call, failure)
        return
    row.counters = {**row.counters, failure.kind: used + 1}
    call.result = {"text": text}
    calling.append(draft, row, role="assistant", body=conversation.assistant_message(message))
    switching.note_thinking(row, message["content"])
    diff = [f"+ the part so far, {len(text):,} characters"]
    if action is Action.CONTINUE:
        calling.append(draft, row, role="user", body=conversation.continue_message())
        diff.append("+ “continue exactly where it stopped”")
    changing.ask_again(draft, row, step, call, failure, policy=policy, action=action, diff=diff, used=used + 1)


def _double(draft: Draft, row: StepRow, step: Step, call: Call, failure: Failure) -> None:
    used = row.counters.get(failure.kind, 0)
    policy = recovery.changed(step, failure.kind, used=used)
    given = int(call.request["max_tokens"])
    if "clamped_from" in call.request:  # the budget made it that short, and would again
        failure = replace(
            failure,
            kind=FailureKind.BUDGET_EXCEEDED,
            message=f"{failure.message.rstrip('.')}, and the budget leaves no room for a longer answer.",
            fix="Raise the budget, or lower the agent's `max_tokens` and ask for less at once.",
        )
        policy = None
    wanted = min(2 * given, model_facts.facts(calling.model_of(row, step)).max_output)
    if policy is None or wanted <= given or not changing.affordable(draft):
        changing.give_up(draft, row, call, failure)
        return
    row.counters = {**row.counters, failure.kind: used + 1, calling.MAX_TOKENS: wanted}
    diff = [f"- max_tokens {given}", f"+ max_tokens {wanted}"]
    changing.ask_again(draft, row, step, call, failure, policy=policy, action=Action.DOUBLE, diff=diff, used=used + 1)


def _remind(
    draft: Draft, row: StepRow, step: Step, call: Call, attempt: Attempt | None, message: JSON, failure: Failure
) -> None:
    """Malformed or misshapen: say exactly what was wrong and ask again; then perhaps another model; else it fails."""
    changing.wasted(draft, attempt)
    group = FailureKind.MALFORMED_OUTPUT
    used = row.counters.get(group, 0)
    policy = recovery.changed(step, failure.kind, used=used)
    if policy is None:
        if not switching.switch(draft, row, step, call, failure):
            changing.give_up(draft, row, call, failure)
        return
    if not changing.affordable(draft):
        changing.give_up(draft, row, call, failure)
        return
    row.counters = {**row.counters, group: used + 1}
    errors = failure.detail.get("errors") or [{"pointer": "", "message": failure.message}]
    answer = message if isinstance(message, Mapping) else {}
    *kept, reminder = conversation.repair(answer, errors=errors, schema=step.output_schema)
    for body in kept:
        calling.append(draft, row, role="assistant", body=body)
        switching.note_thinking(row, answer.get("content"))
    calling.append(draft, row, role="user", body=reminder)
    changing.ask_again(
        draft, row, step, call, failure, policy=policy, action=Action.REMIND, diff=_added(errors), used=used + 1
    )


def _added(errors: Sequence[Mapping[str, JSON]]) -> list[str]:
    """What was added to the prompt, in short: the exact complaints; the whole message is in the conversation."""
    return [f"+ {error.get('pointer') or ''} {error['message']}".replace("+  ", "+ ") for error in errors[:5]]


def _malformed(message: str) -> Failure:
    return Failure(
        kind=FailureKind.MALFORMED_OUTPUT,
        message=message,
        fix="Say in the prompt what is wanted, and show an example.",
        detail={"errors": [{"pointer": "", "message": message}]},
    )
