"""Another model goes on: after an overload that lasts, a refusal, whatever a definition names one for (`switch_model`).

    switch     if the policy of that failure names another model: its call is made, or what it needs is read first
    in_use     the model that a step goes on with, and whether it was switched
    carried    the messages are there: a new conversation without what the other model cannot read

A model is switched for the rest of the step (`StepRow.model`). Thinking blocks are only sent to models that can read
them, system notes to those that take them: else the conversation goes on as a copy without the thinking, its notes as
user messages, under the next number, because what was sent once is never changed. The old one stays for the audit. A
crash leaves either both or nothing: it is one decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.domain import calling, changing, conversation, ending, model_facts, notes
from app.domain.aggregate import Call, Message, StepRow
from app.domain.conversation_facts import ModelSwitched
from app.domain.facts import name_of
from app.domain.outcomes import Failure
from app.domain.plan import RetryPolicy, Step
from app.domain.recovery_table import Action
from app.domain.states import StepState, WorkflowStatus
from app.domain.transition import Draft

SWITCHES: Final = "switch_model"
"""Counter on an agent step: how often its model was switched."""
MOST_SWITCHES: Final = 3
"""Of one step: two policies that name each other's models must not hand a conversation back and forth for ever."""
MOST_CARRIED: Final = 2_000
"""Messages copied into a conversation without thinking; no agent should ever have as many, and its step fails then."""
THINKING: Final = "thinking"
"""Counter on an agent step: the conversation in which there are thinking blocks."""


def switch(draft: Draft, row: StepRow, step: Step, call: Call, failure: Failure) -> bool:
    """Whether another model goes on in the place of `call`, which has failed."""
    policy = step.retry.get(failure.kind)
    before = calling.model_of(row, step)
    if policy is None or policy.switch_model in (None, before) or policy.switch_model is None:
        return False
    if row.counters.get(SWITCHES, 0) >= MOST_SWITCHES or not changing.affordable(draft):
        return False
    if not _unreadable(row, before=before, after=policy.switch_model):
        _go_on(draft, row, step, call, failure, policy)
    elif row.messages > MOST_CARRIED:
        return False
    else:
        draft.then(ModelSwitched(step=row.path, call_id=call.id, failure=failure))
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    model: str
    alias: str
    switched_from: str | None
    """The agent's own model, if this is another one."""


def in_use(step: Step, *, switched_to: str | None) -> Used | None:
    """`switched_to`: `StepRow.model`. None for a step that is no agent."""
    if step.agent is None:
        return None
    model = switched_to or step.agent.model
    was = None if model == step.agent.model else step.agent.model
    return Used(model=model, alias=calling.called(step, step.agent, switched_to=switched_to), switched_from=was)


def _unreadable(row: StepRow, *, before: str, after: str) -> bool:
    """Whether there is something in the conversation that the other model cannot read."""
    thinks = row.counters.get(THINKING) == row.conversation and not model_facts.reads_thinking(after, of=before)
    return thinks or (notes.among(row) and not model_facts.facts(after).system_messages)


def carried(draft: Draft, fact: ModelSwitched) -> None:
    """Now that its messages are read. What was decided meanwhile may have stopped the step."""
    row, call = draft.step(fact.step), draft.call(fact.call_id)
    step = draft.plan.steps[name_of(fact.step)]
    ends = WorkflowStatus(draft.workflow.status).ending or bool(row.counters.get("timed_out"))
    policy = step.retry.get(fact.failure.kind)
    if ends or StepState(row.state).final or policy is None:
        ending.call_gone(draft, row)
        return
    _carry_over(draft, row, _messages(draft, row), to=policy.switch_model or "")
    _go_on(draft, row, step, call, fact.failure, policy, dropped=True)


def _carry_over(draft: Draft, row: StepRow, messages: Sequence[Message], *, to: str) -> None:
    """What the other model can read, as the next conversation. (Whether it can read thinking is the same for all of
    it: who reads the latest reads what is older.)"""
    thinks = row.counters.get(THINKING) == row.conversation
    reads = not thinks or model_facts.reads_thinking(to, of=calling.model_of(row, draft.plan.steps[row.name]))
    takes = model_facts.facts(to).system_messages
    row.conversation, row.messages, roles = row.conversation + 1, 0, list[str]()
    for message in messages:
        body = message.body if reads else conversation.without_thinking(message.body)
        role = message.role if takes or message.role != "system" else "user"
        if body is not None:
            calling.append(draft, row, role=role, body=conversation.in_role(body, role=role), turn=message.turn)
            roles.append(role)
    notes.carried(row, roles)
    if thinks and reads:
        row.counters = {**row.counters, THINKING: row.conversation}


def _messages(draft: Draft, row: StepRow) -> Sequence[Message]:
    """Of the current conversation: those read, and those that this very decision has appended."""
    found = {message.ordinal: message for message in draft.snapshot.messages.get(row.path, ())}
    for message in draft.transition.messages:
        if message.step == row.path and message.conversation == row.conversation:
            found[message.ordinal] = message
    return [found[ordinal] for ordinal in sorted(found)]


def _go_on(
    draft: Draft,
    row: StepRow,
    step: Step,
    call: Call,
    failure: Failure,
    policy: RetryPolicy,
    *,
    dropped: bool = False,
) -> None:
    before, wanted = calling.model_of(row, step), calling.max_tokens_of(row, step)
    used = row.counters.get(SWITCHES, 0) + 1
    row.model = policy.switch_model
    after = calling.model_of(row, step)
    diff = [f"- model {before}", f"+ model {after}"]
    counters = {**row.counters, SWITCHES: used}
    most = model_facts.facts(after).max_output
    if wanted > most:
        counters[calling.MAX_TOKENS] = most
        diff += [f"- max_tokens {wanted}", f"+ max_tokens {most}"]
    if dropped:
        diff.append(f"+ conversation {row.conversation}: the same messages, as far as that model can read them")
    row.counters = counters
    changing.ask_again(
        draft, row, step, call, failure, policy=policy, action=Action.SWITCH_MODEL, diff=diff, used=min(used, 1)
    )


def note_thinking(row: StepRow, content: object) -> None:
    """An answer goes into the conversation: whether there is thinking in it."""
    if row.counters.get(THINKING) != row.conversation and conversation.holds_thinking(content):
        row.counters = {**row.counters, THINKING: row.conversation}
