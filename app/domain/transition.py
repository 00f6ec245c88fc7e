"""What follows from facts, as a value: `Transition`; and the `Draft` in which a decision builds one.

The draft keeps the laws that every handler would otherwise repeat: each move of a workflow, step or call must be listed
in the table of `app/domain/legal.py` for the fact at hand; the workflow's counters follow the states of its calls;
each event takes the next sequence number; a call that becomes due has a due and one that ends has none; and nothing
becomes due that the workflow's budgets have no room for (`app/domain/budgets.py`): it is held until they have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from app.domain import budgets, ids, legal, rewound
from app.domain.aggregate import Attempt, Call, Snapshot, StepRow
from app.domain.breakers import Advice
from app.domain.changes import Audit, Delivery, Due, Event, KeyWanted, Transition
from app.domain.facts import Fact, name_of
from app.domain.outcomes import JSON
from app.domain.plan import Plan
from app.domain.rules import Rules
from app.domain.states import CallKind, CallState, DueKind, HeldReason, Lane, StepState, WorkflowStatus

__all__ = [
    "DEFAULT_WEBHOOK_EVENTS",
    "RING_AFTER",
    "Audit",
    "Delivery",
    "Draft",
    "Due",
    "Event",
    "KeyWanted",
    "Transition",
    "subscribed",
]

RING_AFTER = timedelta(seconds=2)
"""A due that is rung directly is swept only after this long: the bell is quicker, the sweep is the promise."""

_HELD_DUES = {
    HeldReason.ATTACHED: DueKind.ATTACHED,
    HeldReason.OPERATOR: DueKind.SWITCH,
    HeldReason.BUDGET: DueKind.BUDGET,
    HeldReason.BREAKER: DueKind.DEPENDENCY,
    HeldReason.QUOTA: DueKind.DEPENDENCY,
}
"""What wakes a call that is held for that reason; for the others a person does."""

_ATTEMPT_ENDED = ("agent.model.called", "agent.tool.executed")

DEFAULT_WEBHOOK_EVENTS = ("workflow.*", "approval.requested", "effect.in_doubt")


class Draft:
    """A decision in the making. Mutates the snapshot it was given; nothing else holds it."""

    def __init__(self, snapshot: Snapshot, *, plan: Plan, now: datetime, rules: Rules) -> None:
        self.snapshot = snapshot
        self.rules = rules
        self.workflow = snapshot.workflow
        self.plan = plan
        self.now = now
        self.agenda: deque[Fact] = deque()
        """Facts to be decided next."""
        self.fact = "WorkflowAccepted"
        """Name of the fact being decided: what the table of legal moves is asked about."""
        self.transition = Transition(workflow=snapshot.workflow)
        self._told: dict[UUID, str] = {}
        """Call → the state that the events have told of it so far; absent: as it was read, or was made."""
        self._made: set[UUID] = set()
        self.advice: dict[UUID, Advice] = {}
        """Call → what is known of what it calls, where something is wrong with that."""
        self.weighed = 0
        """How many of the transition's messages the budgets have counted."""
        self.freed = 0
        """How often calls that wait for room in a budget were looked at in this decision."""

    # --- reading -------------------------------------------------------------------------------------------------

    def step(self, path: str) -> StepRow:
        return self.snapshot.steps[path]

    def call(self, call_id: UUID) -> Call:
        return self.snapshot.calls[call_id]

    def calls_of(self, path: str, *, turn: int | None = None) -> list[Call]:
        found = [c for c in self.snapshot.calls.values() if c.step == path and (turn is None or c.turn == turn)]
        return sorted(found, key=lambda call: call.n)

    # --- moves ---------------------------------------------------------------------------------------------------

    def touch(self, step: StepRow) -> StepRow:
        """Note that the row changed (a new row is written whole anyway)."""
        self.transition.steps[step.path] = step
        return step

    def move_workflow(self, to: WorkflowStatus) -> None:
        if self.workflow.status == to:
            return
        legal.check("workflow", self.workflow.status, to, fact=self.fact)
        self.workflow.status = to
        if to.final:
            self.workflow.ended_at = self.now

    def move_step(self, step: StepRow, to: StepState) -> None:
        legal.check("step", step.state, to, fact=self.fact)
        was_final = StepState(step.state).final
        step.state = to
        if not to.final:
            step.ended_at = None
        if to in (StepState.RUNNING, StepState.WAITING) and step.started_at is None:
            step.started_at = self.now
        if to.final and not was_final:
            step.ended_at = self.now
            if step.parent is None:
                self.workflow.steps_open -= 1
                if to in (StepState.SUCCEEDED, StepState.SKIPPED):
                    self.workflow.steps_done += 1
        self.touch(step)

    def move_call(
        self,
        call: Call,
        to: CallState,
        *,
        held: HeldReason | None = None,
        delay: timedelta = timedelta(0),
    ) -> None:
        """Move a call; counters and dues follow. `delay`: how long it is not due yet."""
        if to is CallState.DUE and self.due_state(call) is CallState.HELD:
            to, held = CallState.HELD, HeldReason.PAUSE
        budgets.leave(self, call, to)
        if to is CallState.DUE and not budgets.admit(self, call):
            to, held = CallState.HELD, HeldReason.BUDGET
        legal.check("call", call.state, to, fact=self.fact)
        self._about_to_move(call)
        self._clear_held(call)
        self._count(call, -1)
        call.state = to
        call.held_reason = held
        self._count(call, 1)
        if to.final:
            call.ended_at = self.now
            if call.business_key:
                self.transition.owners_ended.append(call.id)
        self.transition.calls[call.id] = call
        self._follow_with_dues(call, delay=delay)

    def _clear_held(self, call: Call) -> None:
        if call.held_reason in _HELD_DUES:
            self.clear_due(_HELD_DUES[HeldReason(call.held_reason)], call.id)

    def pauses(self, call: Call) -> bool:
        """Whatever would become due in a paused workflow is held, unless an attempt of it may be at the tool: then it
        is in flight. Probes and compensations ignore a pause."""
        paused = self.workflow.status == WorkflowStatus.PAUSED
        return paused and call.kind not in (CallKind.PROBE, CallKind.COMPENSATION) and not call.maybe_done

    def due_state(self, call: Call) -> CallState:
        """What a call that is to become due comes to be."""
        return CallState.HELD if self.pauses(call) else CallState.DUE

    def _follow_with_dues(self, call: Call, *, delay: timedelta) -> None:
        if call.state == CallState.DUE:
            at = self.now + delay
            ring = at if delay else self.now + RING_AFTER
            self.set_due(
                Due(kind=DueKind.CALL, ref=call.id, due_at=at, ring_at=ring, lane=call.lane, priority=call.priority)
            )
            self.clear_due(DueKind.ATTEMPT, call.id)
        elif call.state != CallState.INTENDED:
            if budgets.is_held(call):
                self.set_due(budgets.held_due(self, call))
            self.clear_sent(call)
            if CallState(call.state).final:  # else what was kept without a decision is still news: it may end a doubt
                self.clear_due(DueKind.APPLY, call.id)

    def _count(self, call: Call, by: int) -> None:
        match call.state:
            case CallState.DUE | CallState.INTENDED | CallState.PROBING:
                self.workflow.open_calls += by
                budgets.count(self, call, by)
            case CallState.HELD:
                self.workflow.held += by
            case CallState.IN_DOUBT:
                self.workflow.doubts += by

    def add_call(self, call: Call, *, delay: timedelta = timedelta(0)) -> Call:
        """A call of the step whose `calls` counter gave it its number; `due` unless it says held or settled."""
        rewound.mark(self.workflow, call, plan=self.plan)
        if call.state == CallState.DUE and self.pauses(call):
            call.state, call.held_reason = CallState.HELD, HeldReason.PAUSE
        elif call.state == CallState.DUE and not budgets.admit(self, call):
            call.state, call.held_reason = CallState.HELD, HeldReason.BUDGET
        self.snapshot.calls[call.id] = call
        self.transition.new_calls.append(call)
        self._made.add(call.id)
        self._count(call, 1)
        self._follow_with_dues(call, delay=delay)
        return call

    def hold_new(self, call: Call, reason: HeldReason) -> None:
        """A call made in this very decision is held before it was ever due."""
        budgets.leave(self, call, CallState.HELD)
        self._about_to_move(call)
        self._clear_held(call)
        self._count(call, -1)
        call.state, call.held_reason = CallState.HELD, reason
        self._count(call, 1)
        self._follow_with_dues(call, delay=timedelta(0))

    def step_name(self, call: Call) -> str:
        """The id in the definition of the call's step."""
        return name_of(call.step)

    def touch_call(self, call: Call) -> Call:
        self.transition.calls[call.id] = call
        return call

    def rewrite(self, call: Call) -> None:
        """The request of a call that was stored, and of which nothing was ever sent, is another one now."""
        if call.id not in self._made and call.id in self.snapshot.calls:
            self.transition.requests.append(call)

    def touch_attempt(self, attempt: Attempt) -> Attempt:
        self.transition.attempts[attempt.id] = attempt
        return attempt

    def set_due(self, due: Due) -> None:
        self.transition.dues[(due.kind, due.ref)] = due

    def clear_due(self, kind: DueKind, ref: UUID) -> None:
        self.transition.dues[(kind, ref)] = None

    def clear_sent(self, call: Call) -> None:
        """Of a call in flight the due is its `attempt`, or still that of the call if it has not been open for long."""
        self.clear_due(DueKind.CALL, call.id)
        self.clear_due(DueKind.ATTEMPT, call.id)

    def then(self, fact: Fact) -> None:
        """Left behind: decided next if its rows are loaded, else after another read."""
        if fact not in self.agenda and fact not in self.transition.then:
            self.agenda.append(fact)

    # --- events --------------------------------------------------------------------------------------------------

    def event(
        self,
        type: str,
        *,
        step: str | None = None,
        call: Call | None = None,
        attempt: UUID | None = None,
        moved: tuple[str | None, str | None] = (None, None),
        data: Mapping[str, JSON] | None = None,
    ) -> None:
        self.workflow.last_seq += 1
        seq = self.workflow.last_seq
        event = Event(
            id=ids.timed(self.now, str(self.workflow.id), str(seq)),
            seq=seq,
            type=type,
            step=step if step is not None or call is None else call.step,
            call_id=None if call is None else call.id,
            attempt_id=attempt,
            from_state=moved[0],
            to_state=moved[1],
            data=data or {},
            at=self.now,
        )
        if call is not None and moved[1] is not None:
            self._told[call.id] = moved[1]
        self.transition.events.append(event)
        self._deliver(event)

    def tell_moves(self) -> None:
        """Whoever reads only events knows where each call is: a move that no event of its own has told is told by that
        of the attempt which caused it, else by one that says so. (That a call is made or claimed follows from what it
        came to.)"""
        for call_id, told in self._told.items():
            call = self.snapshot.calls[call_id]
            if call.state != told and not self._told_by_its_attempt(call, told):
                self.event("effect.call.changed", call=call, moved=(told, call.state), data={"reason": "settled"})

    def _told_by_its_attempt(self, call: Call, before: str) -> bool:
        events = self.transition.events
        for n, event in enumerate(events):
            if event.type in _ATTEMPT_ENDED and event.call_id == call.id and event.to_state is None:
                events[n] = replace(event, from_state=before, to_state=call.state)
                self._told[call.id] = call.state
                return True
        return False

    def _about_to_move(self, call: Call) -> None:
        if call.id not in self._made:
            self._told.setdefault(call.id, call.state)

    def _deliver(self, event: Event) -> None:
        webhook = self.workflow.webhook
        if not webhook or not subscribed(webhook.get("events") or DEFAULT_WEBHOOK_EVENTS, event.type):
            return
        stream = self.workflow.id
        self.transition.deliveries.append(
            Delivery(
                id=ids.timed(self.now, "delivery", str(event.id)),
                stream=stream,
                url=webhook["url"],
                event_id=event.id,
                seq=event.seq,
                type=event.type,
            )
        )
        self.set_due(
            Due(kind=DueKind.DELIVERY, ref=stream, due_at=self.now, ring_at=self.now + RING_AFTER, lane=Lane.DELIVERIES)
        )

    def audit(self, action: str, *, by: str, object: str, data: Mapping[str, JSON]) -> None:
        """Note what somebody did by hand, in the same transaction."""
        number = f"{self.workflow.revision}.{len(self.transition.audits)}"
        identity = ids.timed(self.now, "audit", str(self.workflow.id), number, action)
        self.transition.audits.append(Audit(id=identity, actor=by, action=action, object=object, data=data))

    def unattend(self, what: str) -> None:
        self.workflow.attention = [each for each in self.workflow.attention if each != what]

    def attend(self, what: str, *, tool: str | None = None) -> None:
        """Something needs a person: noted on the row once, told each time."""
        if what not in self.workflow.attention:
            self.workflow.attention = sorted({*self.workflow.attention, what})
        self.event("workflow.needs_attention", data={"attention": what, "tool": tool})


def subscribed(patterns: tuple[str, ...] | list[str], type: str) -> bool:
    """`*` is everything, `workflow.*` a family, anything else one event."""
    return any(p in ("*", type) or (p.endswith(".*") and type.startswith(p[:-1])) for p in patterns)
