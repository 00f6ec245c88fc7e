"""Every history of up to three workflows that workers, tools, people, operators and time can make, and the laws.

`Histories` is a hypothesis state machine: each rule is something that somebody or something may do next. After each
rule the rows keep the laws (`machine_laws.py`), the tools know that the promises were kept (`machine_tools.py`),
`why` and the trace account for everything (`machine_sight.py`), and the events alone tell the states (`replaying.py`).
A subclass says over what it runs: memory alone, or memory beside real Postgres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.aggregate import Call
from app.domain.states import CallKind, CallState, DueKind, StepState
from tests.domain import replaying
from tests.domain.machine_alone import Alone
from tests.domain.machine_laws import Laws
from tests.domain.machine_memory import Memory
from tests.domain.machine_plans import documents, inputs
from tests.domain.machine_sight import row_of, unseen
from tests.domain.machine_store import Store
from tests.domain.machine_tools import Airborne, Tools
from tests.domain.machine_verbs import Asked

Choice = TypeVar("Choice")

MOST_WORKFLOWS: Final = 3
WAITS: Final = {"1 s": 1, "12 s": 12, "1 min": 60, "11 min": 660, "2 h": 7200, "25 h": 90_000}
SCOPES: Final = ("tenant", "model:fast", "tool:do_at_most_once", "tool:do_keyed", "tool:undo_idempotent", "tool:look")
WORDS: Final = {
    "resolve": ["happened", "did_not_happen", "abandon", "probe"],
    "undo": ["retry", "done", "skip"],
    "decide": ["approve", "approve", "edit", "reject"],
    "saga": ["undo", "keep"],
    "resume": [""],
}
"""What people may say of what waits for them."""
INTERFERENCES: Final = (
    "waits", "waits", "loses_a_worker", "loses_a_worker", "keeps_what_it_hears", "says_again_what_it_heard",
    "operates_a_step", "switches", "switches", "breaks", "breaks", "pauses", "retries", "retries", "decides_too_late",
    "cancels", "runs_out_of_time",
)  # fmt: skip
FIRED: Final = frozenset(DueKind) - {DueKind.CALL, DueKind.DELIVERY, DueKind.DEADLINE}


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine: Any = self.open_engine()
        self.tools = Tools()
        self.laws = Laws()
        self.workers: list[UUID] = []
        self.lost: set[UUID] = set()
        self.names: dict[UUID, str] = {}
        self.documents: dict[UUID, Any] = {}

    def open_engine(self) -> Any:
        return Alone()

    @property
    def memory(self) -> Memory:
        found: Memory = self.engine.memory
        return found

    @property
    def store(self) -> Store:
        return self.memory.store

    def teardown(self) -> None:
        self.engine.close()

    # --- choosing ------------------------------------------------------------------------------------------------

    def pick(self, data: st.DataObject, what: str, options: Mapping[str, Choice]) -> Choice:
        """By a name that a person can read in a failure."""
        return options[data.draw(st.sampled_from(list(options)), label=what)]

    def called(self, call: Call) -> str:
        return f"{self.names[call.workflow_id]}/{call.step}#{call.n} {call.kind} {call.effect}"

    def calls(self, *states: str) -> dict[str, Call]:
        wanted = set(states)
        return {self.called(call): call for call in self.store.every_call() if call.state in wanted}

    def live(self) -> list[UUID]:
        return [each for each in self.workers if each not in self.lost]

    def jump(self, at: Any) -> None:
        """To that instant, if it is to come."""
        if at > self.memory.now:
            self.pass_time(at - self.memory.now)

    def pass_time(self, by: timedelta) -> None:
        self.tools.elapsed += by
        self.engine.pass_time(by)

    def named(self, airborne: Airborne) -> str:
        flight = airborne.flight
        return f"{self.called(self.store.call(flight.call_id))} attempt {flight.n}"

    # --- clients -------------------------------------------------------------------------------------------------

    @initialize(document=documents(), given=inputs())
    def begins(self, document: Any, given: Any) -> None:
        self.workers = [self.engine.worker(), self.engine.worker()]
        self._submit(document, given)

    @precondition(lambda self: len(self.names) < MOST_WORKFLOWS)
    @rule(data=st.data())
    def submits(self, data: st.DataObject) -> None:
        """The same again, so that two want the same business keys, or another one."""
        if data.draw(st.booleans(), label="the same again"):
            workflow_id = self._any_workflow(data)
            self._submit(self.documents[workflow_id], self.store.workflows[workflow_id].input)
        else:
            self._submit(data.draw(documents()), data.draw(inputs()))

    def _submit(self, document: Any, given: Any) -> None:
        name = f"w{len(self.names) + 1}"
        workflow_id = self.engine.submit(document, given, key=name)
        self.names[workflow_id] = name
        self.documents[workflow_id] = document

    # --- workers and tools ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.calls("due") and self.live())
    @rule(data=st.data())
    def claims(self, data: st.DataObject) -> None:
        self._claim(data)

    @precondition(lambda self: self.calls("due") and self.live())
    @rule(data=st.data())
    def performs(self, data: st.DataObject) -> None:
        """Claims it, and hears at once."""
        airborne = self._claim(data)
        if airborne is not None:
            self._answer(data, airborne)

    @precondition(lambda self: self.calls("due") and self.live())
    @rule(data=st.data(), most=st.integers(1, 8))
    def works(self, data: st.DataObject, most: int) -> None:
        """A stretch in which little goes wrong: without it few histories would come far."""
        for _ in range(most):
            due = self.calls("due")
            if not due:
                return
            airborne = self._claim(data, lands=True)
            if airborne is not None:
                words = self.tools.outcomes(airborne, self.store.plans[airborne.flight.workflow_id])
                asked = data.draw(st.integers(0, 19), label="asks for") if words[0] == "says" else 0
                word = "uses" if asked % 4 == 1 else words[0]
                self.engine.settle(airborne.flight, self.tools.hear(airborne, word, asked=asked))

    def _claim(self, data: st.DataObject, *, lands: bool = False) -> Airborne | None:
        call = self.pick(data, "call", self.calls("due"))
        self.jump(self.store.dues[(DueKind.CALL, call.id)][1].due_at)
        worker = self.pick(data, "worker", {f"worker {n}": each for n, each in enumerate(self.live())})
        flight = self.engine.claim(call.id, worker=worker)
        if flight is None:
            return None
        call = self.store.call(flight.call_id)
        target = call.target if call.kind == CallKind.PROBE else None
        airborne = self.tools.depart(flight, target=target)
        if flight.effect != "read_only" and (lands or data.draw(st.booleans(), label="lands at once")):
            self.tools.land(airborne)
        return airborne

    @precondition(lambda self: self.tools.open())
    @rule(data=st.data())
    def hears(self, data: st.DataObject) -> None:
        """On time, or long after its worker was given up."""
        self._answer(data, self.pick(data, "attempt", {self.named(each): each for each in self.tools.open()}))

    def _answer(self, data: st.DataObject, airborne: Airborne) -> None:
        flight = airborne.flight
        words = self.tools.outcomes(airborne, self.store.plans[flight.workflow_id])
        word = data.draw(st.sampled_from(words), label="hears")
        asked = data.draw(st.integers(0, 19), label="asks for") if word == "uses" else 0
        self.engine.settle(flight, self.tools.hear(airborne, word, asked=asked))

    def _keeps_what_it_hears(self, data: st.DataObject) -> None:
        """Deciding fails: the evidence alone is committed, and decided later."""
        flying = {self.named(each): each for each in self.tools.open()}
        if flying:
            airborne = self.pick(data, "attempt", flying)
            words = self.tools.outcomes(airborne, self.store.plans[airborne.flight.workflow_id])
            word = data.draw(st.sampled_from(words), label="hears")
            self.engine.keep(airborne.flight, self.tools.hear(airborne, word))

    def _says_again_what_it_heard(self, data: st.DataObject) -> None:
        """The reply to its COMMIT was lost."""
        told = {self.named(each): each for each in self.tools.flights if each.told}
        if told:
            airborne = self.pick(data, "attempt", told)
            self.engine.settle(airborne.flight, airborne.told[-1])

    @precondition(lambda self: self._reporting())
    @rule(data=st.data())
    def reports(self, data: st.DataObject) -> None:
        """A tool that takes its time tells its result by itself."""
        airborne = self.pick(data, "attempt", {self.named(each): each for each in self._reporting()})
        reported = self.engine.report(airborne.flight, succeeded=airborne.landed)
        if not airborne.landed and reported:
            airborne.grounded = True

    def _reporting(self) -> list[Airborne]:
        """What has been done, or will not be: an honest tool says nothing else."""
        return [
            each
            for each in self.tools.flights
            if each.flight.kind == CallKind.TOOL
            and self.store.plans[each.flight.workflow_id].tools[each.flight.tool or ""].on_202 == "wait"
            and each.flight.effect != "read_only"
            and (each.landed or each.grounded or not each.told or each.told[-1].pending)
        ]

    @precondition(lambda self: self.tools.may_land(self.store, self.memory.now))
    @rule(data=st.data())
    def lands_late(self, data: st.DataObject) -> None:
        flying = {self.named(each): each for each in self.tools.may_land(self.store, self.memory.now)}
        self.tools.land(self.pick(data, "attempt", flying))

    def _loses_a_worker(self, data: st.DataObject) -> None:
        proof = data.draw(st.booleans(), label="its parent saw it die")
        worker = self.pick(data, "worker", {f"worker {n}": each for n, each in enumerate(self.live())})
        self.lost.add(worker)
        self.engine.lose(worker, proof=proof)
        self.workers.append(self.engine.worker())

    # --- time ----------------------------------------------------------------------------------------------------

    def _waits(self, data: st.DataObject) -> None:
        self.pass_time(timedelta(seconds=self.pick(data, "for", WAITS)))

    def _runs_out_of_time(self, data: st.DataObject) -> None:
        due = self._fired(DueKind.DEADLINE)
        if due:
            self._fire(self.pick(data, "due", due))

    @precondition(lambda self: self._fired())
    @rule(data=st.data())
    def sweeps(self, data: st.DataObject) -> None:
        """The time of one due comes. Of a lost worker's attempt it is now."""
        self._fire(self.pick(data, "due", self._fired()))

    def _fire(self, found: tuple[str, UUID]) -> None:
        kind, ref = found
        if kind == DueKind.CALL:  # of a call in flight
            self.engine.in_flight(ref)
            kind = DueKind.ATTEMPT
        _, due = self.store.dues[(kind, ref)]
        if kind != DueKind.ATTEMPT or due.worker not in self.lost:
            self.jump(due.ring_at)
        self.engine.fire(kind, ref)

    def _fired(self, *kinds: DueKind) -> dict[str, tuple[str, UUID]]:
        found = {}
        for (kind, ref), (workflow_id, due) in self.store.dues.items():
            calls = self.store.calls[workflow_id]
            in_flight = kind == DueKind.CALL and calls[ref].state == CallState.INTENDED and not kinds
            if in_flight or kind in (kinds or FIRED):
                asked = self.store.approvals[workflow_id]
                of = asked[ref].step if ref in asked else due.note or ""
                about = self.called(calls[ref]) if ref in calls else f"{self.names[workflow_id]}/{of}"
                found[f"{kind} {about}"] = (kind, ref)
        return found

    # --- people --------------------------------------------------------------------------------------------------

    def ask(self, verb: str, workflow_id: UUID, **more: Any) -> bool:
        answer: bool = self.engine.ask(Asked(verb=verb, workflow_id=workflow_id, **more))
        return answer

    @precondition(lambda self: self._waiting_for_people())
    @rule(data=st.data())
    def attends(self, data: st.DataObject) -> None:
        """A person does something about what waits for one."""
        verb, workflow_id, place = self.pick(data, "attends to", self._waiting_for_people())
        word = data.draw(st.sampled_from(WORDS[verb]), label="says")
        values = {"edit": {"n": 7}, "happened": {"n": 1}}.get(word)
        took = self.ask(verb, workflow_id, word=word, values=values, **place)
        if took and word == "did_not_happen":
            self.tools.denied[place["ref"]] += 1

    def _waiting_for_people(self) -> dict[str, tuple[str, UUID, dict[str, Any]]]:
        found: dict[str, tuple[str, UUID, dict[str, Any]]] = {}
        for call in self.store.every_call():
            place = {"ref": call.id, "path": call.step}
            if call.state == "in_doubt":
                found[f"the doubt {self.called(call)}"] = ("resolve", call.workflow_id, place)
            if call.undo == "failed":
                found[f"the undo of {self.called(call)}"] = ("undo", call.workflow_id, place)
        for workflow_id, asked in self.store.approvals.items():
            for n, each in enumerate(asked.values()):
                if each.status == "open":
                    name = f"the approval {self.names[workflow_id]}/{each.step} {each.kind} {n}"
                    found[name] = ("decide", workflow_id, {"ref": each.id, "path": each.step})
        for workflow in self.store.workflows.values():
            if workflow.saga == "held":
                found[f"the held {self.names[workflow.id]}"] = ("saga", workflow.id, {})
            if workflow.status == "paused":
                found[f"the paused {self.names[workflow.id]}"] = ("resume", workflow.id, {})
        return found

    @rule(data=st.data(), what=st.sampled_from(INTERFERENCES))
    def interferes(self, data: st.DataObject, what: str) -> None:
        """Something that is seldom, and that ends or hinders: rare, so that histories come far before it."""
        getattr(self, f"_{what}")(data)

    def _any_workflow(self, data: st.DataObject) -> UUID:
        return self.pick(data, "workflow", {name: each for each, name in self.names.items()})

    def _cancels(self, data: st.DataObject) -> None:
        self.ask("cancel", self._any_workflow(data))

    def _pauses(self, data: st.DataObject) -> None:
        self.ask("pause", self._any_workflow(data))

    def _retries(self, data: st.DataObject) -> None:
        workflow_id = self._any_workflow(data)
        if self.ask("retry", workflow_id):
            self.laws.reopened(workflow_id)

    def _operates_a_step(self, data: st.DataObject) -> None:
        steps = {
            f"{self.names[workflow_id]}/{path}": (workflow_id, path)
            for workflow_id, rows in self.store.steps.items()
            for path, row in rows.items()
            if not StepState(row.state).final
        }
        if steps:
            workflow_id, path = self.pick(data, "step", steps)
            word = data.draw(st.sampled_from(["retry-now", "skip", "complete", "fail"]), label="says")
            self.ask("operate", workflow_id, path=path, word=word, values={"n": 1})

    def _decides_too_late(self, data: st.DataObject) -> None:
        """Of a call that is settled, an approval that is closed, a workflow that is not held."""
        call = data.draw(st.sampled_from(list(self.store.every_call()) or [None]), label="of")
        if call is not None and call.kind != CallKind.MODEL and call.effect != "read_only":
            place = {"ref": call.id, "path": call.step}
            if call.state != "in_doubt":
                self.ask("resolve", call.workflow_id, word="happened", values={"n": 1}, **place)
            if call.undo != "failed":
                self.ask("undo", call.workflow_id, word="skip", **place)
            if self.store.workflows[call.workflow_id].saga != "held":
                self.ask("saga", call.workflow_id, word="keep")

    def _switches(self, data: st.DataObject) -> None:
        """Off, or on again."""
        if self.store.switches:
            self.engine.release(next(iter(self.store.switches)))
        else:
            self.engine.hold(data.draw(st.sampled_from(SCOPES), label="scope"))

    def _breaks(self, data: st.DataObject) -> None:
        if self.store.shut:
            return self.engine.reopen(next(iter(self.store.shut)))
        return self.engine.shut(data.draw(st.sampled_from(SCOPES[1:]), label="scope"))

    # --- the laws ------------------------------------------------------------------------------------------------

    @invariant()
    def keeps_its_laws(self) -> None:
        contradicted = {e.call_id: True for es in self.store.events.values() for e in es if "contradicted" in e.type}
        broken = list(self.tools.judge(self.store.every_call(), contradicted))
        for workflow_id, name in self.names.items():
            found = [*self.laws.breaches(self.store, workflow_id), *self._replayed(workflow_id)]
            found += unseen(self.store, workflow_id, now=self.memory.now)
            self.laws.look(self.store, workflow_id)
            broken += [f"{name}: {each}" for each in found]
        if broken:
            note(self.story())
        assert not broken, "\n".join(broken)

    def _replayed(self, workflow_id: UUID) -> Sequence[str]:
        return replaying.differences(
            [row_of(event) for event in self.store.events[workflow_id]],
            workflow=row_of(self.store.workflows[workflow_id]),
            steps=[row_of(row) for row in self.store.steps[workflow_id].values()],
            calls=[row_of(row) for row in self.store.calls[workflow_id].values()],
            approvals=[row_of(row) for row in self.store.approvals[workflow_id].values()],
        )

    def story(self) -> str:
        """The events of every workflow, for whoever reads a failure."""
        lines = []
        for workflow_id, name in self.names.items():
            for event in self.store.events[workflow_id]:
                call = self.store.calls[workflow_id].get(event.call_id) if event.call_id else None
                about = event.step or "" if call is None else f"{call.step}#{call.n}"
                moved = "" if event.to_state is None else f" {event.from_state} → {event.to_state}"
                lines.append(f"{name} {event.seq:3} {event.type} {about}{moved} {dict(event.data)}"[:200])
        return "\n".join(lines)
