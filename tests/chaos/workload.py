"""What is submitted in a run, from its seed: workflows of every kind, what their tools are told, what people do.

`plan(seed, count)` is data: the same seed gives the same plan. When things happen is not repeatable: processes race.
A `Planned` names the definition by kind and variant; the address of the tools is known only when they run.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos import definitions
from tests.chaos.definitions import KINDS

JSON = Any

CHAINS: Final[tuple[tuple[str, ...], ...]] = (
    ("look", "book", "clear", "mail", "post", "book", "look", "book", "book", "mail", "book"),
    ("book", "mail", "book", "post", "clear", "book", "mail", "book", "book", "post"),
    ("post", "book", "clear", "book", "look", "book", "clear", "mail", "book", "book", "mail"),
    ("mail", "mail", "book", "clear", "book", "post", "book", "mail", "book", "mail"),
)
FANS: Final = ("book", "mail", "post", "clear")

WEIGHTS: Final[Mapping[str, int]] = {
    "chain": 32,
    "fan": 16,
    "agent": 12,
    "saga": 14,
    "approval": 8,
    "cancelled": 6,
    "awaited": 5,
    "shared": 4,
    "probed": 3,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    number: int
    kind: str
    variant: int
    tag: str
    key: str
    input: Mapping[str, JSON]
    rules: tuple[Mapping[str, JSON], ...] = ()
    """Posted to the tools just before it is submitted."""
    marks: frozenset[str] = frozenset()
    """Whose tool was told to misbehave so that its outcome may stay unknown."""
    hooked: tuple[str, ...] = ()
    """The events its webhook wants; none: it has no webhook."""
    lose_reply: float | None = None
    """The client hangs up so many seconds after it sent, and asks again with the same key."""
    twice: bool = False
    """Sent again after its 202."""
    cancel_after: float | None = None
    pause_for: float | None = None
    approve: tuple[bool, ...] = (True,)
    """What a person says to its approvals, in order."""
    must: str | None = None
    """How it has to end, unless a doubt of it was abandoned."""

    @property
    def size(self) -> int:
        """Effects, about."""
        return {"fan": len(self.input.get("items", ())) + 1, "shared": 2, "awaited": 3}.get(self.kind, 6)


def document(url: str, planned: Planned) -> dict[str, JSON]:
    """Its definition."""
    match planned.kind:
        case "chain" | "cancelled":
            number = planned.variant % len(CHAINS)
            return definitions.chain(url, names=CHAINS[number], title=f"chain-{number}")
        case "probed":
            return definitions.chain(url, names=("post", "post", "post", "look"), title="probed")
        case "fan":
            return definitions.fan(url, name=FANS[planned.variant % len(FANS)])
    made: dict[str, Callable[[str], dict[str, JSON]]] = {
        "agent": definitions.agent,
        "saga": definitions.saga,
        "approval": definitions.approval,
        "awaited": definitions.awaited,
        "shared": definitions.shared,
    }
    return made[planned.kind](url)


def plan(seed: int, count: int) -> list[Planned]:
    """One of each kind comes first, so that a small run has them all."""
    draw = random.Random(seed)
    kinds = draw.sample(list(WEIGHTS), k=len(WEIGHTS))
    kinds += draw.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=count)
    found: list[Planned] = []
    for kind in kinds:
        if len(found) >= count:
            break
        times = min(draw.randint(2, 3), count - len(found)) if kind == "shared" else 1
        group = f"g{seed}-{len(found)}"
        found += [_Maker(seed, len(found) + each, kind, group=group).made for each in range(times)]
    return found


@dataclass(slots=True)
class _Maker:
    """One workflow, drawn from a stream of its own, so that others may change without it."""

    seed: int
    number: int
    kind: str
    group: str
    draw: random.Random = field(init=False)
    rules: list[Mapping[str, JSON]] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.draw = random.Random(f"{self.seed}/{self.number}")

    @property
    def made(self) -> Planned:
        tag = f"w{self.seed}-{self.number}"
        variant = self.draw.randrange(64)
        given: dict[str, JSON] = {"tag": tag}
        must: str | None = "succeeded"
        match self.kind:
            case "chain" | "cancelled":
                self._misbehave(tag, CHAINS[variant % len(CHAINS)])
            case "probed":
                self._probed(tag)
            case "fan":
                name = FANS[variant % len(FANS)]
                given["items"] = [f"{tag}.i{each}" for each in range(self.draw.randint(11, 17))]
                for item in given["items"]:
                    self._perhaps(name, item)
            case "agent":
                given |= self._agent(tag)
            case "saga":
                self._misbehave(tag, ("book", "authorize", "post", "mail"))
                # By its data and not by a rule: tools that are killed forget what they were told.
                refused = self.draw.random() < 0.7
                given["card"], must = ("tok_device", "failed") if refused else ("tok_visa", "succeeded")
            case "approval":
                self._misbehave(tag, ("book", "mail", "book"))
            case "awaited":
                self._awaited(tag)
            case "shared":
                given["group"] = self.group
                self._misbehave(tag, ("look", "mail"))
        return self._planned(tag, variant, given, must)

    def _planned(self, tag: str, variant: int, given: Mapping[str, JSON], must: str | None) -> Planned:
        cancelled = self.kind == "cancelled"
        return Planned(
            number=self.number,
            kind=self.kind,
            variant=variant,
            tag=tag,
            key=f"k{self.seed}-{self.number}",
            input=given,
            rules=tuple(self.rules),
            marks=frozenset(self.marks),
            hooked=self.draw.choice([("*",), ("workflow.*", "effect.*"), ("agent.step.*",), (), ()]),
            lose_reply=self.draw.uniform(0.001, 0.03) if self.number % 12 == 5 else None,
            twice=self.draw.random() < 0.05,
            cancel_after=self.draw.uniform(0.1, 4.0) if cancelled else None,
            pause_for=self.draw.uniform(0.3, 2.0) if self.kind == "chain" and self.draw.random() < 0.06 else None,
            approve=tuple(self.draw.random() < 0.7 for _ in range(2)),
            must=None if cancelled else must,
        )

    # --- what the tools are told ---

    def _rule(self, name: str, mark: str, **rule: JSON) -> None:
        kind = KINDS[name]
        self.rules.append({"tool": kind.demo, "where": {kind.mark: mark}, **rule})

    def _misbehave(self, tag: str, names: tuple[str, ...]) -> None:
        for number, name in enumerate(names):
            self._perhaps(name, f"{tag}.{number}")

    def _perhaps(self, name: str, mark: str) -> None:
        """Most calls are slow enough to be hit; some are answered badly, in a way that its class has to bear."""
        chance = self.draw.random()
        if chance < 0.35:
            self._rule(
                name, mark, do="delay", ms=self.draw.randint(20, 700), when=self.draw.choice(["before", "after"])
            )
        elif chance < 0.40:
            self._unknown(name, mark, do="drop_reply", reset=self.draw.random() < 0.5)
        elif chance < 0.415:
            self._unknown(name, mark, do="drop_request")
        elif chance < 0.43:
            self._unknown(name, mark, do="status", status=self.draw.choice([500, 502, 504]), when="after")
        elif chance < 0.44:
            self._unknown(name, mark, do="status", status=503, when="before")
        elif chance < 0.455:
            self._rule(name, mark, do="status", status=429, headers={"Retry-After": "1"})

    def _unknown(self, name: str, mark: str, **rule: JSON) -> None:
        self._rule(name, mark, **rule)
        self.marks.add(mark)

    def _probed(self, tag: str) -> None:
        """Found; absent, then there after all (it was on its way); absent, and sent again after the quarantine."""
        self._unknown("post", f"{tag}.0", do="drop_reply")
        # Longer than its timeout and well within timeout plus settle time: asked about while it is on its way.
        self._unknown("post", f"{tag}.1", do="delay", ms=5500, when="before")
        self._unknown("post", f"{tag}.2", do="drop_request")

    def _awaited(self, tag: str) -> None:
        for number in range(2):
            mark, how = {"title": f"{tag}.{number}"}, self.draw.choice(["", "delay", "drop_reply"])
            rule: dict[str, JSON] = {"tool": "reports.result", "where": mark, "do": how, "when": "after"}
            if how == "delay":
                rule["ms"] = self.draw.randint(100, 3000)
            if how:
                self.rules.append(rule)
                self.marks.add(mark["title"])
        self._perhaps("mail", f"{tag}.2")

    def _agent(self, tag: str) -> dict[str, str]:
        """Two or three turns with effects, perhaps the same one asked for again; and a model that has its moods."""
        booked = {"name": "book", "input": KINDS["book"].arguments(f"{tag}.0")}
        mailed = {"name": "mail", "input": KINDS["mail"].arguments(f"{tag}.1")}
        looked = {"name": "look", "input": KINDS["look"].arguments(f"{tag}.2")}
        turns: list[dict[str, JSON]] = [{"tools": [looked, booked]}, {"tools": [mailed]}]
        if self.draw.random() < 0.4:
            turns.append({"tools": [{"name": "book", "input": KINDS["book"].arguments(f"{tag}.0")}]})
        turns.append({"tools": [{"name": "mail", "input": KINDS["mail"].arguments(f"{tag}.3")}]})
        turns.append({"text": "Done."})
        for turn in turns:
            if self.draw.random() < 0.35:
                turn["fail"] = [self._mood() for _ in range(self.draw.randint(1, 2))]
            turn["latency_ms"] = self.draw.randint(20, 600)
        self._misbehave(tag, ("book", "mail", "look", "mail"))
        answers: list[dict[str, JSON]] = [{"json": {"found": True}, "fail": [self._mood()][: self.draw.randint(0, 1)]}]
        if self.draw.random() < 0.5:
            answers.insert(0, {"text": '{"found": tru'})
        return {"question": scripted(answers), "script": scripted(turns)}

    def _mood(self) -> dict[str, JSON]:
        return self.draw.choice(
            [
                {"status": 429, "retry_after": 1},
                {"status": 529},
                {"status": 500},
                {"cut_after": 120, "reset": True},
                {"bad_chunk": True},
                {"empty": True},
                {"html": True},
            ]
        )


def scripted(turns: list[dict[str, JSON]]) -> str:
    """A prompt that tells the scripted model what to answer."""
    return f"[[scripted: {json.dumps({'turns': turns})}]]"
