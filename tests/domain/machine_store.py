"""The tables, in memory: what Postgres holds, for a machine that tries thousands of histories in a second.

    Store.lock, load     rows handed out as a decision reads them: copies, and not one row more than `Reads` asks for
    Store.apply          a transition written back: what the decision touched, and not one row more
    Store.acquire        who owns a business key

It mirrors `app/store/loading.py`, `workflows.py` and `effect_keys.py`, and is held against them row by row by
`tests/engine/test_machine_on_postgres.py`. Never decides anything.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from app.domain.aggregate import Approval, Attempt, Call, Message, Sender, Snapshot, StepRow, Workflow
from app.domain.plan import Plan
from app.domain.reads import UNDOS_AT_ONCE, Reads
from app.domain.states import GUARDED_CLASSES, ApprovalStatus, CallKind, CallState, DueKind, StepState, Undo
from app.domain.transition import Due, Event, KeyWanted, Transition
from tests.domain.machine_past import past

_ABOUT_ANOTHER: Final = (CallKind.PROBE, CallKind.COMPENSATION)
_KEPT: Final = ("input", "output", "title")
"""Of a step: what a change leaves out stays (`app/store/workflows.py`)."""
UNSTARTED: Final = (StepState.PENDING, StepState.READY)
BEGUN: Final = (StepState.RUNNING, StepState.WAITING)


@dataclass(kw_only=True)
class OwnedKey:
    workflow_id: UUID
    step: str
    call_id: UUID
    args_sha256: str
    generation: int = 1
    released: bool = False


@dataclass(frozen=True, kw_only=True)
class KeyAnswer:
    owner: UUID | None
    generation: int
    same_arguments: bool = True
    state: str | None = None
    undo: str = "none"
    result: Any = None


@dataclass(kw_only=True)
class Store:
    workflows: dict[UUID, Workflow] = field(default_factory=dict)
    plans: dict[UUID, Plan] = field(default_factory=dict)
    steps: dict[UUID, dict[str, StepRow]] = field(default_factory=lambda: defaultdict(dict))
    calls: dict[UUID, dict[UUID, Call]] = field(default_factory=lambda: defaultdict(dict))
    """With their attempts in `history`."""
    approvals: dict[UUID, dict[UUID, Approval]] = field(default_factory=lambda: defaultdict(dict))
    dues: dict[tuple[str, UUID], tuple[UUID, Due]] = field(default_factory=dict)
    """(kind, ref) → its workflow and itself."""
    events: dict[UUID, list[Event]] = field(default_factory=lambda: defaultdict(list))
    messages: dict[tuple[UUID, str, int, int], Message] = field(default_factory=dict)
    keys: dict[tuple[str, str], OwnedKey] = field(default_factory=dict)
    switches: dict[str, datetime] = field(default_factory=dict)
    shut: set[str] = field(default_factory=set)
    """Scopes of breakers that are open."""
    workers: dict[UUID, Sender] = field(default_factory=dict)

    # --- reading -------------------------------------------------------------------------------------------------

    def lock(self, workflow_id: UUID) -> Snapshot:
        return Snapshot(workflow=dataclasses.replace(self.workflows[workflow_id]))

    def call(self, call_id: UUID) -> Call:
        return next(found[call_id] for found in self.calls.values() if call_id in found)

    def every_call(self) -> Iterator[Call]:
        for found in self.calls.values():
            yield from found.values()

    def load(self, snapshot: Snapshot, reads: Reads) -> None:
        """What is there already stays as the decision left it."""
        workflow_id = snapshot.workflow.id
        rows = self.steps[workflow_id]
        for parent, count in reads.next_items.items():
            there = snapshot.steps.get(parent) or rows.get(parent)
            first = 0 if there is None else there.items_started or 0
            self._keep_steps(snapshot, [f"{parent}.{n}" for n in range(first, first + count)])
        for parent in reads.items_of:
            inserted = rows[parent].items_inserted or 0 if parent in rows else 0  # a submission's are not stored yet
            self._keep_steps(snapshot, [f"{parent}.{n}" for n in range(inserted)])
            snapshot.children.add(parent)
        self._keep_calls(snapshot, self._wanted_calls(snapshot, reads))
        self._load_open(snapshot, reads)
        self._load_for_operators(snapshot, reads)
        linked = {each for call in snapshot.calls.values() for each in _links(call)}
        self._keep_calls(snapshot, (self.calls[workflow_id].get(each) for each in linked if each is not None))
        self._keep_steps(snapshot, reads.steps | reads.lists, lists=reads.lists)
        for path in reads.conversations:
            current = rows[path].conversation
            place = (workflow_id, path, current)
            found = [m for m in self.messages.values() if (m.workflow_id, m.step, m.conversation) == place]
            snapshot.messages[path] = sorted(found, key=lambda message: message.ordinal)
        snapshot.histories |= {path: past(self, workflow_id, path) for path in reads.histories}

    def _keep_steps(self, snapshot: Snapshot, paths: Iterable[str], *, lists: Iterable[str] = ()) -> None:
        rows = self.steps[snapshot.workflow.id]
        for path in paths:
            there = snapshot.steps.get(path)
            if there is None and path in rows:
                given = rows[path].input if path in lists else None
                snapshot.steps[path] = dataclasses.replace(rows[path], input=given)
            elif there is not None and path in lists and there.input is None:
                there.input = rows[path].input

    def _keep_calls(self, snapshot: Snapshot, found: Iterable[Call | None]) -> None:
        for row in found:
            if row is None or row.id in snapshot.calls:
                continue
            call = dataclasses.replace(row, history=[dataclasses.replace(attempt) for attempt in row.history])
            for attempt in call.history:
                if attempt.worker in self.workers:
                    snapshot.workers[attempt.worker] = self.workers[attempt.worker]
            snapshot.calls[call.id] = call

    def _wanted_calls(self, snapshot: Snapshot, reads: Reads) -> Iterator[Call | None]:
        rows, steps = self.calls[snapshot.workflow.id], self.steps[snapshot.workflow.id]
        for call_id in reads.calls:
            yield rows.get(call_id)
        for call in rows.values():
            if call.step in reads.turns and call.turn == steps[call.step].turn:
                yield call
            if (call.tool, call.args_sha256) in reads.repeats and call.effect in GUARDED_CLASSES:
                yield call

    def _load_open(self, snapshot: Snapshot, reads: Reads) -> None:
        workflow_id, names = snapshot.workflow.id, reads.open_calls_of
        open_calls = [c for c in self.calls[workflow_id].values() if c.ended_at is None]
        if reads.everything_open:
            self._keep_calls(snapshot, open_calls)
            snapshot.complete = True
        elif names:
            self._keep_calls(snapshot, (c for c in open_calls if c.step.partition(".")[0] in names or c.step in names))
        if reads.everything_open or names:
            self._keep_steps(snapshot, [s.path for s in self.steps[workflow_id].values() if s.state in BEGUN])
        for approval in self.approvals[workflow_id].values():
            is_open = approval.status == ApprovalStatus.OPEN and (reads.everything_open or bool(names))
            if (approval.id in reads.approvals or is_open) and approval.id not in snapshot.approvals:
                snapshot.approvals[approval.id] = dataclasses.replace(approval)

    def _load_for_operators(self, snapshot: Snapshot, reads: Reads) -> None:
        rows = self.steps[snapshot.workflow.id]
        if reads.top_steps:
            self._keep_steps(snapshot, [row.path for row in rows.values() if row.parent is None])
            snapshot.top = True
        if reads.begun_items:
            ended = (StepState.FAILED, StepState.CANCELLED)
            begun = [row for row in rows.values() if row.parent and row.state in ended and row.started_at is not None]
            self._keep_steps(snapshot, [row.path for row in begun])
        for name in sorted(reads.undos):
            found = self._next_undos(snapshot, name)
            items = {call.step for call in found} - snapshot.steps.keys() - {name}
            self._keep_calls(snapshot, found)
            self._keep_steps(snapshot, items)

    def _next_undos(self, snapshot: Snapshot, name: str) -> list[Call]:
        """Of each path the latest effect that is to be undone, unless one of that path is under way."""
        loaded = snapshot.calls.values()
        settled = {c.id for c in loaded if c.undo in (Undo.DONE, Undo.SKIPPED)}
        begun = {c.id for c in loaded if c.undo in (Undo.RUNNING, Undo.FAILED)}
        rows = [c for c in self.calls[snapshot.workflow.id].values() if c.step.partition(".")[0] == name]

        def waits(call: Call) -> bool:
            return any(
                (later.undo == Undo.RECORDED and later.n > call.n)
                or (later.undo in (Undo.RUNNING, Undo.FAILED) and later.id not in settled)
                for later in rows
                if later.step == call.step
            )

        found = [c for c in rows if c.undo == Undo.RECORDED and c.id not in begun and not waits(c)]
        return sorted(found, key=lambda call: -call.n)[:UNDOS_AT_ONCE]

    # --- writing -------------------------------------------------------------------------------------------------

    def apply(self, t: Transition) -> None:
        workflow_id = t.workflow.id
        assert t.accepted != (workflow_id in self.workflows)
        self.workflows[workflow_id] = dataclasses.replace(t.workflow)
        fresh = {step.path for step in t.new_steps}
        for step in (*t.new_steps, *(s for s in t.steps.values() if s.path not in fresh)):
            self._write_step(workflow_id, step, new=step.path in fresh)
        self._write_calls(t)
        for approval in (*t.new_approvals, *t.approvals.values()):
            self.approvals[workflow_id][approval.id] = dataclasses.replace(approval)
        for message in t.messages:
            place = (workflow_id, message.step, message.conversation, message.ordinal)
            assert place not in self.messages, "a message is written once"
            self.messages[place] = message
        self.events[workflow_id] += t.events
        self._write_dues(t)
        self._write_in_bulk(t)
        self._write_keys(t)
        if t.end_dues:
            kept = {k: v for k, v in self.dues.items() if v[0] != workflow_id or k[0] == DueKind.DELIVERY}
            self.dues = kept

    def _write_step(self, workflow_id: UUID, step: StepRow, *, new: bool) -> None:
        before = self.steps[workflow_id].get(step.path)
        assert new == (before is None), step.path
        row = dataclasses.replace(step)
        for name in _KEPT:
            if before is not None and getattr(row, name) is None:
                setattr(row, name, getattr(before, name))
        self.steps[workflow_id][step.path] = row

    def _write_calls(self, t: Transition) -> None:
        rows = self.calls[t.workflow.id]
        for call in t.new_calls:
            assert call.id not in rows
            rows[call.id] = dataclasses.replace(call, history=[])
        new = {call.id for call in t.new_calls}
        for call in t.calls.values():
            if call.id not in new:
                rows[call.id] = dataclasses.replace(call, history=rows[call.id].history)
        for attempt in t.attempts.values():
            history = rows[attempt.call_id].history
            at = next(n for n, each in enumerate(history) if each.id == attempt.id)
            if history[at].outcome in (None, attempt.outcome):  # written once
                history[at] = dataclasses.replace(attempt)

    def _write_dues(self, t: Transition) -> None:
        for (kind, ref), due in t.dues.items():
            if due is None:
                self.dues.pop((kind, ref), None)
            else:
                self.dues[(kind, ref)] = (t.workflow.id, due)

    def _write_in_bulk(self, t: Transition) -> None:
        for row in self.steps[t.workflow.id].values():
            if row.parent in t.reopen_items and row.state == StepState.CANCELLED and row.started_at is None:
                row.state, row.ended_at = StepState.PENDING, None
            ends = () if t.cancel_steps is None else UNSTARTED if t.cancel_steps == "unstarted" else UNSTARTED + BEGUN
            if row.state in ends or (row.parent in t.cancel_items and row.state == StepState.PENDING):
                row.state, row.ended_at = StepState.CANCELLED, t.workflow.updated_at

    def age(self, by: timedelta) -> None:
        """Every row as if it had been written that much earlier. Of the workers only those that are lost: the others
        go on with their heartbeats."""
        self.workflows = {name: earlier(row, by) for name, row in self.workflows.items()}
        for rows in (*self.steps.values(), *self.approvals.values(), *self.calls.values()):
            rows.update({name: earlier(row, by) for name, row in rows.items()})
        for call in self.every_call():
            call.history[:] = [earlier(attempt, by) for attempt in call.history]
        self.dues = {name: (owner, earlier(due, by)) for name, (owner, due) in self.dues.items()}
        self.workers = {name: earlier(row, by) if row.lost_at else row for name, row in self.workers.items()}

    # --- business keys -------------------------------------------------------------------------------------------

    def acquire(self, workflow_id: UUID, wanted: KeyWanted) -> KeyAnswer:
        place = (wanted.tool, wanted.key)
        row = self.keys.get(place)
        if row is None or row.released:
            generation = 1 if row is None else row.generation
            row = OwnedKey(
                workflow_id=workflow_id, step=wanted.step, call_id=wanted.call_id, args_sha256=wanted.args_sha256,
                generation=generation,
            )  # fmt: skip
            self.keys[place] = row
        if row.call_id == wanted.call_id:
            return KeyAnswer(owner=None, generation=row.generation)
        state, undo, result = self.owner(row.call_id)
        same = row.args_sha256 == wanted.args_sha256
        return KeyAnswer(
            owner=row.call_id, generation=row.generation, same_arguments=same, state=state, undo=undo, result=result
        )

    def owner(self, call_id: UUID) -> tuple[str | None, str, Any]:
        """State, undo and result of the call that owns a key; no state while it is not committed."""
        found = next((c for c in self.every_call() if c.id == call_id), None)
        if found is None:
            return None, "none", None
        status = self.workflows[found.workflow_id].status
        ending = status in ("failing", "cancelling", "compensating")
        undo = Undo.RUNNING if found.undo == Undo.RECORDED and ending else found.undo
        output = self.steps[found.workflow_id][found.step].output
        return found.state, undo, output if found.result is None else found.result

    def attached_to(self, call: Call) -> UUID | None:
        row = self.keys.get((call.tool or "", str(call.request.get("business_key"))))
        return call.target if row is not None and not row.released and row.call_id == call.target else None

    def _write_keys(self, t: Transition) -> None:
        owned = [key for key in self.keys.values() if key.workflow_id == t.workflow.id and not key.released]
        for old, new in t.keys_passed:
            for key in owned:
                if key.call_id == old:
                    key.call_id, key.args_sha256 = new, self.calls[t.workflow.id][new].args_sha256
        for call_id in (each for each in t.keys_released if _has_key(t, each)):
            generation = self.calls[t.workflow.id][call_id].generation
            for key in owned:
                if key.call_id == call_id and not key.released:
                    key.released, key.generation = True, max(key.generation, generation) + 1
        ended = {call for call in (*t.owners_ended, *t.keys_released) if _has_key(t, call)}
        for call in list(self.every_call()):
            if call.target in ended and call.state == CallState.HELD and (DueKind.ATTACHED, call.id) in self.dues:
                self.wake(DueKind.ATTACHED, call.id, at=t.workflow.updated_at)

    def wake(self, kind: str, ref: UUID, *, at: datetime) -> None:
        workflow_id, due = self.dues[(kind, ref)]
        self.dues[(kind, ref)] = (workflow_id, dataclasses.replace(due, due_at=at, ring_at=at))


def _has_key(t: Transition, call_id: UUID) -> bool:
    call = t.calls.get(call_id)
    return call is not None and call.business_key


def _links(call: Call) -> tuple[UUID | None, ...]:
    return (call.target if call.kind in _ABOUT_ANOTHER else None, call.probe_id)


def earlier(row: Any, by: timedelta) -> Any:
    """The row as if it had been written that much earlier: how time passes where the clock cannot be set."""
    moved = {
        each.name: value - by
        for each in dataclasses.fields(row)
        if isinstance(value := getattr(row, each.name), datetime)
    }
    return dataclasses.replace(row, **moved) if moved else row


def attempt_of(call: Call, attempt_id: UUID) -> Attempt:
    return next(attempt for attempt in call.history if attempt.id == attempt_id)
