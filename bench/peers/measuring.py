"""One peer, measured: `run(name, seconds=…, singles=…)` gives its steps a second and its idle latency.

1. Idle: single workflows one after another on the fresh system, each as its client sees it: submitted, waited for,
   result checked. A few before that are not counted.
2. Load: each of the peer's levels (workflows in flight) for a short time, then the best of them for `seconds`. The
   bench keeps the number in flight constant; what is counted are steps executed, from the ledger (`programs/ledger`).
3. Everything drains; then the peer's own records must say that every workflow ended well, and the ledger that every
   step was executed exactly once. A number of a run with faults is not a number.

What fails, at installation, start or in the middle, is the result: `not_run` says why. Only a programming error of
ours raises.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.embedded.refusal import CannotStart
from bench.load import STEPS
from bench.peers import cpu, known, room
from bench.peers.children import Child
from bench.peers.environments import CannotRun
from bench.peers.known import Peer
from bench.peers.programs import ledger
from bench.peers.room import Room

SLICES: Final = 5
"""Parts of the window whose rates are kept: a steady state has equal ones."""

WARM_SINGLES: Final = 5
"""First calls import, connect and prepare; they are not what an idle system does."""

TOP_UP: Final = 0.02
"""Seconds between two looks at how many are open."""

PROBE_SHARE: Final = 0.2
PROBE_AT_LEAST: Final = 1.0
"""A level is tried for this part of the window, at least so many seconds, after as long to settle."""

SINGLE_WITHIN: Final = 60.0
PATIENCE: Final = 30.0
"""Seconds without a single step while work is open, until the peer has lost it; and from the last step to the last
record of it: results and indexes are written behind."""
CHECK_WITHIN: Final = 120.0
SETTLE_POLL: Final = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerResult:
    peer: str
    title: str
    settings: str
    promises: str
    not_run: str | None = None
    """Why there are no numbers; everything below is empty then."""
    steps_per_second: float | None = None
    slices: tuple[float, ...] = ()
    """Steps a second in each fifth of the window."""
    in_flight: int = 0
    """The level that was best, and measured."""
    probed: tuple[tuple[int, float], ...] = ()
    """Every level with its short measurement."""
    cpu_ms_per_step: float | None = None
    """Of all its processes, its database included."""
    idle_p50_ms: float | None = None
    idle_p99_ms: float | None = None
    workflows: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    """What was lost or done twice, by its own records and by the ledger."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for a caption: settings, promises, what went wrong."""
        tried = ", ".join(f"{level}: {rate:.0f}" for level, rate in self.probed)
        told = (f"{self.settings}.", f"{self.promises}.", f"In flight tried (steps/s): {tried}." if tried else "")
        return tuple(line for line in (*told, *(f"WRONG: {fault}." for fault in self.faults)) if line)


def run(peer: str, *, seconds: float, singles: int) -> PeerResult:
    """Measure one peer in a room of its own. `peer` is a name of `known.PEERS`, else KeyError."""
    return measure(known.named(peer), seconds=seconds, singles=singles)


def measure(peer: Peer, *, seconds: float, singles: int, patience: float = PATIENCE) -> PeerResult:
    try:
        with room.opened() as place:
            _tell(peer, "starting")
            load = Load(clients=peer.start(place), place=place, patience=patience)
            return _measured(peer, load, seconds=seconds, singles=singles)
    except (CannotRun, CannotStart) as error:
        _tell(peer, "not run")
        return PeerResult(
            peer=peer.name, title=peer.title, settings=peer.settings, promises=peer.promises, not_run=str(error)
        )


def _measured(peer: Peer, load: Load, *, seconds: float, singles: int) -> PeerResult:
    idle = _idle(peer, load, singles)
    probed = _probe(peer, load, seconds=max(PROBE_AT_LEAST, seconds * PROBE_SHARE))
    best = max(probed, key=lambda tried: tried[1])[0] if probed else peer.levels[0]
    _tell(peer, f"measuring {seconds:g} s with {best} in flight")
    load.sink_to(best)
    load.keep(best, seconds=max(PROBE_AT_LEAST, seconds * PROBE_SHARE))
    used = cpu.seconds(load.place.roots())
    slices = [load.keep(best, seconds=seconds / SLICES) for _ in range(SLICES)]
    used = cpu.seconds(load.place.roots()) - used
    steps = sum(part.steps for part in slices)
    faults = load.finish()
    rate = steps / sum(part.seconds for part in slices)
    _tell(peer, f"{rate:.0f} steps/s" + "".join(f"; WRONG: {fault}" for fault in faults))
    return PeerResult(
        peer=peer.name,
        title=peer.title,
        settings=peer.settings,
        promises=peer.promises,
        steps_per_second=rate,
        slices=tuple(part.rate for part in slices),
        in_flight=best,
        probed=tuple(probed),
        cpu_ms_per_step=used * 1000 / steps if steps else None,
        idle_p50_ms=_percentile(idle, 50),
        idle_p99_ms=_percentile(idle, 99),
        workflows=load.submitted,
        versions=dict(load.place.versions),
        faults=tuple(faults),
    )


def _idle(peer: Peer, load: Load, singles: int) -> list[float]:
    for _ in range(WARM_SINGLES):
        load.single()
    _tell(peer, f"{singles} single workflows")
    return [load.single() for _ in range(singles)]


def _probe(peer: Peer, load: Load, *, seconds: float) -> list[tuple[int, float]]:
    if len(peer.levels) == 1:
        return []
    found = []
    for level in peer.levels:
        load.keep(level, seconds=seconds)
        rate = load.keep(level, seconds=seconds).rate
        _tell(peer, f"{level} in flight: {rate:.0f} steps/s")
        found.append((level, rate))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A stretch of time under constant load."""

    steps: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.steps / self.seconds


@dataclass(kw_only=True)
class Load:
    """Keeps workflows in flight, by counting what was ordered against what the ledger says was done."""

    clients: Sequence[Child]
    place: Room
    patience: float = PATIENCE
    submitted: int = 0

    def single(self) -> float:
        """Milliseconds of one workflow alone, as its client saw it."""
        self.submitted += 1
        order = {"do": "single", "number": self.submitted}
        return float(self.clients[0].ask(order, seconds=SINGLE_WITHIN)["ms"])

    def open(self) -> int:
        return self.submitted - self.steps() // STEPS

    def sink_to(self, level: int) -> None:
        """Order nothing until no more than these are open: what a higher level has left behind is not measured."""
        progressed, last = time.monotonic(), self.steps()
        while self.open() > level:
            if (done := self.steps()) != last:
                progressed, last = time.monotonic(), done
            self._raise_if_stalled(time.monotonic() - progressed)
            time.sleep(TOP_UP)

    def keep(self, level: int, *, seconds: float) -> Part:
        began, before = time.monotonic(), self.steps()
        progressed, last = began, before
        while (now := time.monotonic()) < began + seconds:
            done = self.steps()
            if done != last:
                progressed, last = now, done
            self._raise_if_stalled(now - progressed)
            self._order(level - (self.submitted - done // STEPS))
            time.sleep(TOP_UP)
        return Part(steps=self.steps() - before, seconds=time.monotonic() - began)

    def finish(self) -> list[str]:
        """Wait until nothing is open; what was lost or done twice."""
        progressed, last = time.monotonic(), self.steps()
        while last < self.submitted * STEPS and time.monotonic() - progressed < self.patience:
            time.sleep(TOP_UP)
            if (done := self.steps()) != last:
                progressed, last = time.monotonic(), done
        until = time.monotonic() + self.patience
        while True:
            told = [client.ask({"do": "check"}, seconds=CHECK_WITHIN) for client in self.clients]
            faults = list(self._faults(told))
            if not faults or time.monotonic() > until:
                return faults
            time.sleep(SETTLE_POLL)

    def steps(self) -> int:
        return ledger.total(self.place.ledger)

    def _faults(self, told: Sequence[dict[str, Any]]) -> Iterator[str]:
        ended, executed = sum(said["ended"] for said in told), self.steps()
        if ended != self.submitted:
            yield f"workflows that ended well by its own records: {ended}, submitted {self.submitted}"
        if executed != self.submitted * STEPS:
            yield f"steps executed: {executed}, expected {self.submitted * STEPS}"
        # Every client looks at the same records and says the same.
        yield from dict.fromkeys(fault for said in told for fault in said["faults"])

    def _order(self, wanted: int) -> None:
        """To each client its share; the numbers of workflows go round, so that both halves stay equal."""
        share, rest = divmod(max(0, wanted), len(self.clients))
        for n, client in enumerate(self.clients):
            count = share + (n < rest)
            if count:
                client.tell({"do": "submit", "first": self.submitted + 1, "count": count})
                self.submitted += count

    def _raise_if_stalled(self, still: float) -> None:
        for child in self.place.children:
            if not child.alive():
                raise CannotRun(child.last_words("ended in the middle of the load"))
        if still > self.patience:
            raise CannotRun(f"no step was executed for {self.patience:.0f} s under load")


def _percentile(values: Sequence[float], share: int) -> float | None:
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else None


def _tell(peer: Peer, line: str) -> None:
    sys.stderr.write(f"{peer.name}: {line}\n")
