"""One test's part of the installation: its workflows, the tags of its calls, what it made the tools hold back.

submit, submit_each     workflows with one tag each
hold, held              the tools keep a request (before) or an answer (after) back
in_one_worker           several held calls in the hands of the same worker process
make_whole, check       after the test: nothing frozen, held or away; then ledger and rows are judged
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from app.embedded import process
from tests.e2e import oracle
from tests.e2e.catalogue import CATALOGUE, definition
from tests.e2e.driver import Installation, Row, until, uuid_of

TRIES: Final = 12
"""Workflows of one kind until two calls are in one of two workers: 1 in 4,096 that it does not happen."""


class Held:
    """A workflow of one call, and how to find that call in the tools' books."""

    def __init__(self, *, workflow: str, tool: str, tag: str) -> None:
        self.workflow, self.tool, self.tag = workflow, tool, tag


class Scene:
    def __init__(self, installation: Installation, *, name: str) -> None:
        self.up = installation
        self.tools = installation.tools
        self.workflows: list[str] = []
        self._name = name

    def tag(self) -> str:
        return uuid4().hex[:12]

    # --- workflows ---

    def submit(self, *names: str, tag: str | None = None, key: str | None = None, **how: Any) -> Held:
        """A workflow that calls these tools one after the other. `how`: timeout, settle, name of the definition."""
        told = tag or self.tag()
        document = definition(self.tools.url, names, **how)
        workflow = self.up.submit(document, key=key, input={"tag": told})
        self.workflows.append(workflow)
        return Held(workflow=workflow, tool=names[0], tag=told)

    def submit_held(self, name: str, *, when: str, **how: Any) -> Held:
        """A workflow of one call whose request (`before`) or answer (`after`) the tool keeps back."""
        tag = self.tag()
        self.misbehave(name, tag, do="hold", when=when)
        return self.submit(name, tag=tag, **how)

    def misbehave(self, name: str, tag: str, **rule: Any) -> None:
        tool = CATALOGUE[name]
        self.tools.behave(tool=tool.demo, where={tool.mark: tag}, **rule)

    def until_held(self, *calls: Held) -> None:
        def there() -> bool:
            return all(call.tag in self.tools.held_marks(CATALOGUE[call.tool].demo) for call in calls)

        until("the tools hold these calls back", there)

    def in_one_worker(self, *submits: Callable[[], Held]) -> tuple[str, list[Held]]:
        """One call of each of these kinds in flight in the same worker: (the worker's name, the calls)."""
        found = [submits[0]()]
        worker = self.worker_of(found[0])
        for submit in submits[1:]:
            for _ in range(TRIES):
                call = submit()
                if self.worker_of(call) == worker:
                    found.append(call)
                    break
        assert len(found) == len(submits), f"{TRIES} calls, and none of them in {worker}"
        return worker, found

    def worker_of(self, call: Held) -> str:
        """The worker that has an attempt of it open."""
        return str(until(f"{call.tool} {call.tag} is in flight", lambda: self.in_flight(call))[-1]["worker_name"])

    def in_flight(self, call: Held) -> list[Row]:
        return [row for row in self.up.attempts(call.workflow) if row["outcome"] is None]

    def uuids(self, *calls: Held) -> list[UUID]:
        return [uuid_of(call.workflow) for call in calls]

    def until_in_doubt(self, call: Held) -> str:
        """Wait until the only effect of that tool's class in its workflow is in doubt; the effect's id."""
        effect = CATALOGUE[call.tool].effect

        def look() -> list[str]:
            found = self.up.effects(call.workflow)
            return [each["id"] for each in found if (each["effect"], each["state"]) == (effect, "in_doubt")]

        return until(f"{call.tool} {call.tag} is in doubt", look)[0]

    # --- the tools' books ---

    def entries(self, call: Held) -> list[Row]:
        """What the tool wrote down about this call, found by its arguments."""
        tool = CATALOGUE[call.tool]
        return [
            entry
            for entry in self.tools.ledger()
            if entry["tool"] == tool.demo and entry["arguments"].get(tool.mark) == call.tag
        ]

    def executed(self, call: Held) -> int:
        return sum(bool(entry["executed"]) for entry in self.entries(call))

    # --- afterwards ---

    def make_whole(self) -> None:
        self.up.thaw()
        self.tools.forget_rules()
        self.tools.release(drop=True)
        until(
            "every process runs", lambda: all(process.alive(pid) for pid in self.up.ready["pids"].values()), seconds=30
        )

    def check(self) -> None:
        """The laws, for the workflows of this test."""
        mine = set(self.workflows)
        effects: Sequence[Row] = [effect for workflow in self.workflows for effect in self.up.effects(workflow)]
        oracle.check_ledger([entry for entry in self.tools.ledger() if entry["workflow"] in mine], effects)
        oracle.check_rows(self.up.ready["database_url"], [uuid_of(workflow) for workflow in self.workflows])
