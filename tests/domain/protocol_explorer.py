"""Walks through every state of the protocol's model, breadth first: the first broken promise has the shortest story.

`explore(…)` gives an `Exploration`: every world once, how it was reached, what led where; a broken promise ends it with
a story that can be read. `cannot_reach(…)` asks for progress, `guesses(…)` whether the ledger claims to know what it
cannot know, or doubts what it could; `findings(…)` is all of it, made once for each class and each set of rules. What
the steps are is the model's business (`protocol_model.py`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.domain.protocol_model import steps
from tests.domain.protocol_rules import FINAL, READ_ONLY, Rules
from tests.domain.protocol_world import World, broken

GOOD: Final = Rules()
"""The protocol as it is, with every protection."""
KNOWS: Final = {"succeeded": {True}, "failed": {False}, "cancelled": {False}, "in_doubt": {True, False}}
"""What the ledger's word means: whether it happened, in all the worlds that look the same to the ledger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exploration:
    effect: str
    worlds: list[World]
    came: list[tuple[int, str]]
    """For each world: the number of the one before it on a shortest way, and the step between."""
    edges: list[list[tuple[str, int]]]
    """For each world: which step leads to which. Complete unless a promise was broken."""
    harm: str
    """The broken promise, or nothing."""

    @property
    def story(self) -> list[str]:
        """With harm: the steps of a shortest way to it. Without: nothing to tell."""
        return [step for step, _ in self._way(len(self.worlds) - 1)] if self.harm else []

    @property
    def happenings(self) -> frozenset[str]:
        return frozenset(step for edges in self.edges for step, _ in edges)

    def told(self, number: int | None = None) -> str:
        """The way to one world (without a number, the last one found), a line a step: who did what, and how things
        stand in the ledger and in truth."""
        way = self._way(len(self.worlds) - 1 if number is None else number)
        width = max((len(step) for step, _ in way), default=0)
        lines = [f"{n:>3}  {step:<{width}}  {_standing(world)}" for n, (step, world) in enumerate(way, start=1)]
        return "\n".join([f"{self.effect}: {self.harm or 'no harm'}", *lines])

    def _way(self, number: int) -> list[tuple[str, World]]:
        way = []
        while number:
            before, step = self.came[number]
            way.append((step, self.worlds[number]))
            number = before
        return way[::-1]


def explore(rules: Rules, effect: str) -> Exploration:
    """Every world that can be reached, or those up to the first broken promise."""
    start = World()
    numbers = {start: 0}
    worlds, came, names = [start], [(0, "")], dict[str, str]()
    edges: list[list[tuple[str, int]]] = []
    for at, here in enumerate(worlds):  # grows meanwhile
        leads_to: list[tuple[str, int]] = []
        edges.append(leads_to)
        for step, world in steps(rules, effect, here):
            name = names.setdefault(step, step)  # one copy of each name: there are hundreds of thousands of steps
            number = numbers.get(world)
            if number is None:
                number = numbers[world] = len(worlds)
                worlds.append(world)
                came.append((at, name))
                harm = broken(effect, world)
                if harm:
                    return Exploration(effect=effect, worlds=worlds, came=came, edges=edges, harm=harm)
            leads_to.append((name, number))
    return Exploration(effect=effect, worlds=worlds, came=came, edges=edges, harm="")


def cannot_reach(explored: Exploration, goal: Callable[[World], bool], *, by: tuple[str, ...]) -> list[int]:
    """Worlds from which the steps of these alone (first words of their names) do not lead to the goal."""
    behind: dict[int, list[int]] = defaultdict(list)
    for number, leads_to in enumerate(explored.edges):
        for step, to in leads_to:
            if step.startswith(by):
                behind[to].append(number)
    reached = {number for number, world in enumerate(explored.worlds) if goal(world)}
    frontier = list(reached)
    while frontier:
        for number in behind[frontier.pop()]:
            if number not in reached:
                reached.add(number)
                frontier.append(number)
    return [number for number in range(len(explored.worlds)) if number not in reached]


def guesses(explored: Exploration) -> dict[str, str]:
    """What the ledger shows where it says more, or less, than can be known from it. Worlds that look the same to the
    ledger are put side by side: `succeeded` must mean that it happened in each of them, `failed` in none, `in_doubt`
    in some and not in others. A person's mistake is that person's; a read_only call that fails may have been answered.
    """
    truths: dict[tuple[object, ...], set[bool]] = defaultdict(set)
    for world in explored.worlds:
        if world.call in KNOWS and not world.mistaken and explored.effect != READ_ONLY:
            attempts = tuple((attempt.key, attempt.outcome, attempt.lost) for attempt in world.attempts)
            truths[world.call, world.verdict, world.vouched, world.life, attempts].add(world.executed > 0)
    return {
        str(view): f"it happened: {sorted(truth)}" for view, truth in truths.items() if truth != KNOWS[str(view[0])]
    }


def final(world: World) -> bool:
    return world.call in FINAL


def settled(world: World) -> bool:
    return final(world) or world.call == "in_doubt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What is kept of an exploration: a hundred thousand worlds are not."""

    worlds: int
    harm: str
    told: str
    story: tuple[str, ...]
    happenings: frozenset[str]
    stuck: str
    """The way to a world from which the ledger alone settles nothing."""
    endless: str
    """The way to a world which even a person cannot bring to an end."""
    guesses: dict[str, str]
    cpu: float


@cache
def findings(effect: str, rules: Rules = GOOD) -> Findings:
    began = time.process_time()
    explored = explore(rules, effect)
    stuck, endless, guessed = "", "", {}
    if not explored.harm:
        ledger = ("ledger", "probe", "time")
        stuck = _first(explored, cannot_reach(explored, settled, by=ledger))
        endless = _first(explored, cannot_reach(explored, final, by=(*ledger, "person")))
        guessed = guesses(explored)
    return Findings(
        worlds=len(explored.worlds),
        harm=explored.harm,
        told=explored.told(),
        story=tuple(explored.story),
        happenings=explored.happenings,
        stuck=stuck,
        endless=endless,
        guesses=guessed,
        cpu=time.process_time() - began,
    )


def _first(explored: Exploration, numbers: list[int]) -> str:
    return explored.told(numbers[0]) if numbers else ""


def _standing(world: World) -> str:
    truth = f"done {world.executed}×" if world.executed else "not done"
    on_its_way = f", {len(world.flights)} on its way" if world.flights else ""
    return f"call {world.call}; at the tool: {truth}{on_its_way}"
