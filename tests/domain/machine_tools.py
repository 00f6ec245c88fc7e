"""The world outside, as honest as it can be and no more: requests that land late, replies that are lost, tools that
remember keys for a day, probes that tell the truth about the moment they were asked.

    Tools.depart       a claimed attempt has left; whether and when it lands is the machine's to draw
    Tools.land         it takes effect: possible until its sender is silent and its tool's settle time is over
    Tools.outcomes     what its sender may hear of it, given what has become of it
    Tools.judge        the promises, by what the tools know: nothing done twice, no success guessed, no failure untrue

The tools' ledger is the oracle; the rows are what is judged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from app.domain.aggregate import Attempt, Call
from app.domain.outcomes import Evidence, Failure, Outcome, Usage
from app.domain.plan import Plan
from app.domain.states import ACCEPTED, AttemptOutcome, CallKind, FailureKind
from tests.domain.machine_memory import Flight
from tests.domain.machine_plans import CLASSES, KEY_HOURS, RESULT_MINUTES, SETTLE_SECONDS
from tests.domain.machine_store import Store, attempt_of

ONCE: Final = ("checkable", "at_most_once", "keyed")
"""Classes whose effects are never done twice, unless somebody said of the first that it was not done."""
HONEST_FAILURES: Final = ("refused", "not_sent", "rate_limited", "fenced")
"""What is said only of a request that did nothing, and never will."""


@dataclass(kw_only=True)
class Airborne:
    """One attempt, as the world has it."""

    flight: Flight
    there: bool = False
    """Of a probe: what was true when it was asked."""
    grounded: bool = False
    """It did nothing and never will: the tool said so, or it never left."""
    landed: bool = False
    told: list[Outcome] = field(default_factory=list)
    """What its sender has told of it."""


@dataclass(kw_only=True)
class Tools:
    flights: list[Airborne] = field(default_factory=list)
    elapsed: timedelta = timedelta(0)
    """How much time has passed, for those who remember keys."""
    remembered: dict[tuple[str | None, str], timedelta] = field(default_factory=dict)
    executed: Counter[UUID] = field(default_factory=Counter)
    """Call → how often the world changed by it."""
    landings: Counter[UUID] = field(default_factory=Counter)
    denied: Counter[UUID] = field(default_factory=Counter)
    """Call → how often a person said that it did not happen: if that is wrong, it is their word."""
    uses: int = 0

    # --- what happens --------------------------------------------------------------------------------------------

    def depart(self, flight: Flight, *, target: UUID | None) -> Airborne:
        there = target is not None and self.landings[target] > 0
        made = Airborne(flight=flight, there=there)
        self.flights.append(made)
        return made

    def land(self, airborne: Airborne) -> None:
        flight = airborne.flight
        airborne.landed = True
        self.landings[flight.call_id] += 1
        if flight.key is not None:
            place, lifetime = (flight.tool, flight.key), timedelta(hours=KEY_HOURS)
            if place in self.remembered and self.elapsed - self.remembered[place] < lifetime:
                return  # the tool knows it did that
            self.remembered[place] = self.elapsed
        self.executed[flight.call_id] += 1

    def may_land(self, store: Store, now: datetime) -> list[Airborne]:
        """Effects that have left and can still arrive."""
        return [a for a in self._effects() if not a.landed and not a.grounded and now <= _latest(store, a)]

    def open(self) -> list[Airborne]:
        """Whose sender has not said the last word."""
        return [a for a in self.flights if not any(not told.pending for told in a.told)]

    def _effects(self) -> Iterator[Airborne]:
        for airborne in self.flights:
            if airborne.flight.effect != "read_only":
                yield airborne

    # --- what is heard -------------------------------------------------------------------------------------------

    def outcomes(self, airborne: Airborne, plan: Plan) -> list[str]:
        """Words for what may be heard of it now; the usual first."""
        flight = airborne.flight
        if flight.kind == CallKind.MODEL:
            return ["says", "uses", "uses", "garbage", "unknown", "rate_limited", "not_sent", "fenced"]
        if flight.kind == CallKind.PROBE:
            return ["there", "there", "vague", "unknown", "refused", "not_sent"]
        if flight.effect == "read_only":
            return ["ok", "unknown", "refused", "not_sent", "rate_limited", "fenced"]
        waits = ["accepted"] if plan.tools[flight.tool or ""].on_202 == "wait" and not airborne.told else []
        if airborne.landed:
            return ["ok", "ok", "unknown", *waits]
        return ["unknown", "unknown", *HONEST_FAILURES, *waits]

    def hear(self, airborne: Airborne, word: str, *, asked: int = 0) -> Outcome:
        """`asked`: which tools a model wants, as a number."""
        if word in HONEST_FAILURES:
            airborne.grounded = True
        outcome = self._outcome(airborne, word, asked)
        airborne.told.append(outcome)
        return outcome

    def _outcome(self, airborne: Airborne, word: str, asked: int) -> Outcome:
        match word:
            case "ok":
                return ok({"n": 1})
            case "there":
                return ok({"there": airborne.there})
            case "vague":
                return ok({"there": "?"})
            case "says":
                return _message([{"type": "text", "text": "done"}], "end_turn")
            case "garbage":
                return _message([], "max_tokens")
            case "uses":
                return self._uses(asked)
            case _:
                return _FAILURES[word]

    def _uses(self, asked: int) -> Outcome:
        content: list[dict[str, Any]] = []
        for ordinal in range(1 + asked % 2):
            self.uses += 1
            name, n = CLASSES[::-1][(asked // 2 + ordinal) % len(CLASSES)], (asked // 10) % 2
            content.append({"type": "tool_use", "id": f"toolu_{self.uses}", "name": f"do_{name}", "input": {"n": n}})
        return _message(content, "tool_use")

    # --- the promises --------------------------------------------------------------------------------------------

    def judge(self, calls: Iterator[Call], contradicted: Mapping[UUID, bool]) -> Iterator[str]:
        for call in calls:
            if call.kind not in (CallKind.TOOL, CallKind.COMPENSATION) or call.effect == "read_only":
                continue
            said = f"{call.kind} {call.tool} of {call.step}#{call.n} ({call.effect}, {call.state})"
            times, word = self.executed[call.id], self.denied[call.id]
            if call.effect in ONCE and times > 1 + word:
                yield f"S3: {said} was done {times} times; {word} times somebody had said that it was not"
            by = (call.resolved or {}).get("by")
            believed = call.state == "succeeded" and call.attempts > 0 and by in (None, "probe")
            if believed and not self.landings[call.id] and not _settled_by_repeat(call):
                yield f"S4: {said} succeeded and the tool never did it"
            ended = call.state in ("failed", "cancelled") and not word and not contradicted.get(call.id)
            if ended and self.landings[call.id]:
                yield f"S4: {said} is over as not done, and the tool did it"


def _settled_by_repeat(call: Call) -> bool:
    """A keyed tool that remembers another call's business key answers with what it did then."""
    return call.business_key


def _latest(store: Store, airborne: Airborne) -> datetime:
    """Until when the attempt may take effect: its sender is silent then, and its tool has settled."""
    call = store.calls[airborne.flight.workflow_id][airborne.flight.call_id]
    attempt = attempt_of(call, airborne.flight.attempt_id)
    settle = timedelta(seconds=SETTLE_SECONDS)
    return max(_silent(store, attempt), _accepted_until(attempt)) + settle


def _silent(store: Store, attempt: Attempt) -> datetime:
    if attempt.outcome is not None and attempt.settled_at is not None:
        return min(attempt.settled_at, attempt.send_deadline)
    sender = store.workers[attempt.worker]
    return attempt.send_deadline if sender.reaped_at is None else min(sender.reaped_at, attempt.send_deadline)


def _accepted_until(attempt: Attempt) -> datetime:
    if attempt.status_code != ACCEPTED:
        return attempt.intended_at
    return (attempt.received_at or attempt.intended_at) + timedelta(minutes=RESULT_MINUTES)


# --- outcomes ------------------------------------------------------------------------------------------------------


def ok(value: Any, *, usage: Usage | None = None) -> Outcome:
    return Outcome(
        certainty=AttemptOutcome.SUCCEEDED,
        evidence=Evidence(body=json.dumps(value).encode(), media_type="application/json"),
        status_code=200,
        sent_after=0.001,
        received_after=0.002,
        usage=usage,
    )


def _message(content: list[dict[str, Any]], stop_reason: str) -> Outcome:
    message = {"type": "message", "role": "assistant", "content": content, "stop_reason": stop_reason}
    return ok(message, usage=Usage(input_tokens=10, output_tokens=5, model="claude-haiku-5-5", cost_microusd=100))


def failed(certainty: AttemptOutcome, kind: FailureKind, *, status: int | None = None, **more: Any) -> Outcome:
    failure = Failure(kind=kind, message=f"{kind} {status or ''}", status_code=status, **more)
    return Outcome(certainty=certainty, failure=failure, status_code=status, sent_after=0.001, received_after=0.002)


_FAILURES: Final[Mapping[str, Outcome]] = {
    "unknown": failed(AttemptOutcome.UNKNOWN, FailureKind.TIMEOUT),
    "refused": failed(AttemptOutcome.FAILED, FailureKind.TOOL_ERROR, status=404),
    "not_sent": failed(AttemptOutcome.NOT_SENT, FailureKind.NETWORK),
    "fenced": failed(AttemptOutcome.NOT_SENT, FailureKind.WORKER_LOST),
    "rate_limited": failed(
        AttemptOutcome.FAILED, FailureKind.RATE_LIMITED, status=429, retry_after=timedelta(seconds=2)
    ),
    "accepted": Outcome(
        certainty=AttemptOutcome.UNKNOWN,
        failure=Failure(
            kind=FailureKind.TIMEOUT, message="accepted (202)", status_code=ACCEPTED, detail={"pending": True}
        ),
        evidence=Evidence(body=b"{}", media_type="application/json"),
        status_code=ACCEPTED,
        sent_after=0.001,
        received_after=0.002,
        pending=True,
    ),
}
