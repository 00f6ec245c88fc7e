"""Running rounds: lanes side by side, the restarts of Postgres one after the other at the end, as they hit everybody.

    plan     which rounds: boundaries × faults, filtered, in an order that follows from the seed
    run      yields what came of each round as it ends; a round whose line was not reached is tried again, then INVALID

One thread for each lane; processes are started by the nursery, so that none depends on the thread that asked.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import psycopg

from tests.chaos.matrix.boundaries import BOUNDARIES, COMA, POSTGRES, Boundary
from tests.chaos.matrix.judging import Verdict, judge, story, unended
from tests.chaos.matrix.lane import Lane
from tests.chaos.matrix.operating import bring_to_end
from tests.chaos.matrix.round import Invalid, Round
from tests.chaos.matrix.scenes import SCENES
from tests.chaos.matrix.stack import Stack
from tests.chaos.matrix.striking import strike, wake
from tests.e2e.driver import uuid_of

TRIES: Final = 3
"""A busy machine may stall a worker for longer than its lease before it comes to its line; not three times."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    boundary: Boundary
    fault: str
    effects: tuple[str, ...]


@dataclass(kw_only=True)
class Done:
    planned: Planned
    seconds: float
    verdict: Verdict
    cases: int
    invalid: int = 0
    """Tries in which the line was not reached."""
    why: str | None = None
    """What broke the round as a whole."""
    story: list[str] = field(default_factory=list)
    """Of the first case that failed."""

    @property
    def reason(self) -> str | None:
        """The first, in a line."""
        found = [self.why] if self.why else [words for wrong in self.verdict.wrong.values() for words in wrong]
        return found[0] if found else None

    @property
    def failed(self) -> int:
        if self.why is not None:
            return self.cases
        return sum(bool(wrong) for wrong in self.verdict.wrong.values())


def plan(
    *,
    only: Sequence[str] = (),
    faults: Sequence[str] = (),
    effects: Sequence[str] = (),
    seed: int = 0,
    times: int = 1,
) -> list[Planned]:
    """`only`: names of boundaries, or what they begin with."""
    chance = random.Random(seed)
    found = []
    for boundary in BOUNDARIES:
        if only and not boundary.name.startswith(tuple(only)):
            continue
        wanted = [effect for effect in boundary.cases if not effects or effect in effects]
        chance.shuffle(wanted)
        found += [
            Planned(boundary=boundary, fault=fault, effects=tuple(wanted))
            for fault in boundary.after
            if wanted and (not faults or fault in faults)
        ]
    found *= times
    chance.shuffle(found)
    return found


def run(stack: Stack, planned: Sequence[Planned], *, lanes: int) -> Iterator[Done]:
    """In the order in which they end."""
    apart = [one for one in planned if one.fault != POSTGRES]
    exclusive = [one for one in planned if one.fault == POSTGRES]
    ready = [Lane(stack, number) for number in range(min(lanes, max(1, len(apart))))]
    try:
        yield from _side_by_side(ready, apart)
        for one in exclusive:
            yield play(ready[0], one)
    finally:
        for lane in ready:
            lane.stop()


def _side_by_side(lanes: Sequence[Lane], planned: Sequence[Planned]) -> Iterator[Done]:
    waiting: queue.SimpleQueue[Planned] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Done | BaseException] = queue.SimpleQueue()
    for one in planned:
        waiting.put(one)

    def work(lane: Lane) -> None:
        try:
            while True:
                try:
                    one = waiting.get_nowait()
                except queue.Empty:
                    return
                ended.put(play(lane, one))
        except BaseException as error:  # told to the main thread, which raises it
            ended.put(error)

    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    for _ in planned:
        done = ended.get()
        if isinstance(done, BaseException):
            raise done
        yield done
    for thread in threads:
        thread.join()


def play(lane: Lane, one: Planned) -> Done:
    """One round, and again if its line was not reached."""
    began, invalid = time.monotonic(), 0
    while True:
        round_ = Round.of(lane, one.boundary, one.fault, effects=one.effects)
        why, verdict = None, Verdict()
        try:
            _begin(round_)
            victim = SCENES[one.boundary.scene].lead(round_)
            strike(round_, victim)
            bring_to_end(round_)
            if one.fault == COMA:
                wake(round_, victim)
            _finish(round_)
            verdict = judge(round_)
        except Invalid as error:
            invalid += 1
            why = f"INVALID: {error}"
        except AssertionError as error:
            why = str(error)
        told = [] if why is None and not any(verdict.wrong.values()) else _story(round_, verdict, why)
        _finish(round_)
        if told:
            _forget(round_)
        if why is None or not why.startswith("INVALID") or invalid == TRIES:
            break
    seconds = time.monotonic() - began
    return Done(
        planned=one, seconds=seconds, verdict=verdict, cases=len(one.effects), invalid=invalid, why=why, story=told
    )


def _begin(round_: Round) -> None:
    """No doorbell of an earlier round, and no breaker that its troubles have opened: a call would be held, or go alone
    as the canary, and never come to its line."""
    round_.lane.silence()
    round_.lane.rows("DELETE FROM breakers RETURNING scope")


def _finish(round_: Round) -> None:
    """Nothing of it is left: no victim, no rule, nothing kept back; the rescuer rests."""
    round_.lane.rescue(on=False)
    while round_.victims:
        round_.lane.end(round_.victims.pop())
    round_.lane.tools.forget_rules()
    round_.lane.tools.release(drop=True)


def _forget(round_: Round) -> None:
    """What did not end must not stand in the way of the next round: nothing wakes it any more."""
    workflows = [uuid_of(case.workflow) for case in round_.cases if case.workflow]
    round_.lane.rows("DELETE FROM dues WHERE workflow_id = ANY(%(workflows)s) RETURNING ref", workflows=workflows)


def _story(round_: Round, verdict: Verdict, why: str | None) -> list[str]:
    wrong = [case for case in round_.cases if verdict.wrong.get(case.tag)] or unended(round_)
    told = [why] if why else []
    for case in wrong[:1]:
        told += verdict.wrong.get(case.tag, [])
        try:
            told += story(round_, case)
        except psycopg.Error as error:
            told.append(f"its rows cannot be read: {error}")
    for victim in round_.victims:
        told.append(f"--- the last words of {victim.name}")
        told += victim.log.read_text(errors="replace").splitlines()[-25:]
    return told
