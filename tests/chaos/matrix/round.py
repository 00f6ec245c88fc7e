"""One round: all cases of one boundary and one fault, from the submission to the verdict.

Round     what it works with: lane, boundary, fault, cases, and the client's own ledger
lead      a scene brings the victim to the line (`scenes.py`), with exactly these calls, or the round is INVALID
strike    the fault (`striking.py`)
end       others take over; a person settles doubts by looking into the tools' books (`operator.py`)
judge     the table (`endings.py`) and the oracle, case by case (`judging.py`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from tests.chaos.matrix.boundaries import COMA, RAISE, SENDING, Boundary
from tests.chaos.matrix.lane import Lane
from tests.chaos.matrix.stack import Process
from tests.chaos.matrix.workloads import Case
from tests.chaos.oracle.ledgers import Fault, Reply, Resolution, Submission
from tests.e2e.driver import Row

PATIENT: Final = "20s"
"""Of one attempt: no machine is so busy that it ends by itself."""
SHORT: Final = "4s"
"""Where its end is waited for: a sender of whom nobody knows that it is dead or silent may send until then."""

SETTLE: Final = "600ms"
SETTLE_LATE: Final = "4s"
"""Where what was sent takes effect late: the quarantine must be longer than that takes here."""

REACH_WITHIN: Final = 15.0
"""Seconds for all calls to come to the line: it takes 0.1 s, on a busy machine 2."""


class Invalid(Exception):
    """The line was not reached, or not by these calls: nothing was tested."""


@dataclass(kw_only=True)
class Round:
    lane: Lane
    boundary: Boundary
    fault: str
    cases: Sequence[Case]
    submissions: dict[str, Submission] = field(default_factory=dict)
    resolutions: list[Resolution] = field(default_factory=list)
    given: list[Fault] = field(default_factory=list)
    victims: list[Process] = field(default_factory=list)
    """Every process that was started for it: those that still live are ended with it."""
    insist: Callable[[], None] | None = None
    """What the clients of requests do after the fault."""
    leave: Callable[[], None] | None = None
    """Wait for the answers they never got."""

    @classmethod
    def of(cls, lane: Lane, boundary: Boundary, fault: str, *, effects: Sequence[str]) -> Round:
        cases = []
        for effect in effects:
            name = uuid4().hex[:10]
            tag = f"{boundary.name}-{fault}-{effect}-{name}"
            cases.append(Case(effect=effect, tag=tag, key=name))
        return cls(lane=lane, boundary=boundary, fault=fault, cases=cases)

    @property
    def timeout(self) -> str:
        waited_for = self.fault in (COMA, RAISE) and self.boundary.after[self.fault] == "lost"
        return SHORT if waited_for and self.boundary.scene in SENDING else PATIENT

    @property
    def settle(self) -> str:
        return SETTLE_LATE if self.boundary.then == "release" else SETTLE

    @property
    def workflows(self) -> list[str]:
        return [case.workflow for case in self.cases]

    @property
    def all_held(self) -> bool:
        """Whether the tools keep something back for each case."""
        held = {
            value for each in self.lane.tools.held() for value in each["arguments"].values() if isinstance(value, str)
        }
        return held >= {case.tag for case in self.cases}

    def now(self) -> datetime:
        """By the clock that stamps attempts."""
        found: datetime = self.lane.rows("SELECT clock_timestamp() AS now")[0]["now"]
        return found

    def note(
        self, kind: str, *, pids: Sequence[int] = (), marks: Sequence[str] = (), since: datetime | None = None
    ) -> None:
        """A fault into the ledger; without pids and marks it hit everybody."""
        now = self.now()
        fault = Fault(kind=kind, at=since or now, until=now, pids=frozenset(pids), marks=frozenset(marks))
        self.given.append(fault)

    def submit(self, case: Case, document: Row, **rest: Any) -> None:
        """To the lane's own API, which nobody hits."""
        body = {"definition": document, "input": {"tag": case.tag}, **rest}
        answer = self.lane.post("/v1/workflows", body, key=case.key)
        if answer.status != 202:
            raise Invalid(f"the submission was answered {answer.status}: {answer.text.decode()[:500]}")
        self.accepted(case, answer.json["id"], status=202)

    def accepted(self, case: Case, workflow: str | None, *, status: int | None) -> None:
        """Into the client's ledger."""
        known = self.submissions.setdefault(case.key, Submission(key=case.key, tag=case.tag))
        known.replies.append(Reply(status=status, workflow=workflow))
        if workflow is not None:
            case.workflow = workflow
