"""Surefoot and its peers in one run, on this machine: `make bench`.

    python -m bench.side_by_side [--quick] [--only dbos,celery]

1. Surefoot, ten-step chains of an in-process Python tool that does nothing (`bench/hot_path.py`).
2. Every peer with the same chain (`bench/peers`), its own recommended settings and, where they differ, its defaults.
3. Surefoot again, so that a machine which became slower meanwhile shows.
4. Surefoot with each step an HTTP call to a local server.

Ratios are of the mean of the two runs to the better of a peer's settings. Each ran with the whole machine to itself,
two processes that execute steps, hundreds of workflows in flight, each step counted exactly once. Exits 1 if a target
was missed, a peer could not be run, or anything was lost or done twice by anybody.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench import hot_path, measures, stack, verdicts
from bench.hot_path import FULL, QUICK, Measured
from bench.peers import known, measuring, table
from bench.peers.measuring import PeerResult
from bench.verdicts import Line


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    title: str
    least: float
    """Times its steps a second."""
    slower: bool = False
    """Whether ours has to be quicker than it on an idle system."""


RIVALS: Final[Mapping[str, Rival]] = {
    "dbos": Rival(title="DBOS", least=5, slower=True),
    "celery": Rival(title="a Celery chain", least=5, slower=True),
    "langgraph": Rival(title="LangGraph", least=2.5),
    "restate": Rival(title="Restate", least=1),
    "temporal": Rival(title="Temporal's dev server", least=5, slower=True),
}
"""By product: peers of one product are named `product` or `product-settings`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description="Surefoot and its peers.")
    parser.add_argument("--quick", action="store_true", help="short windows; for a look, not for a record")
    parser.add_argument("--only", default=",".join(RIVALS), help=f"of {','.join(RIVALS)}; empty: no peer")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name]
    plan = QUICK if options.quick else FULL
    first = hot_path.measure(stack.IN_PROCESS, plan)
    peers = [_peer(peer.name, quick=options.quick) for peer in known.PEERS if _product(peer.name) in chosen]
    again = hot_path.measure(stack.IN_PROCESS, plan) if peers else first
    over_http = hot_path.measure(stack.OVER_HTTP, plan)
    lines = [
        *(line for line in hot_path.lines(again, least=hot_path.STEPS_PER_SECOND)),
        Line("durable steps a second, both runs", f"{first.loaded.rate:,.0f}, {again.loaded.rate:,.0f}"),
        Line("durable steps a second, each an HTTP call", over_http.loaded.rate, least=hot_path.HTTP_STEPS_PER_SECOND),
        *(line for name in chosen for line in ratios(name, _of(name, peers), first=first, again=again)),
    ]
    missing = [f"{peer.title} was not run: {peer.not_run}" for peer in peers if peer.not_run is not None]
    wrong = [f"{peer.title}: {fault}" for peer in peers for fault in peer.faults]
    faults = [*first.faults, *again.faults, *over_http.faults, *missing, *wrong]
    code = verdicts.report("Surefoot beside its peers", lines, faults=faults, context=again.context)
    if peers:
        table.show(peers, command="python -m bench.side_by_side")
    return code


def ratios(name: str, peers: Sequence[PeerResult], *, first: Measured, again: Measured) -> list[Line]:
    """Against the best of a product's settings, for each of the two measures by itself."""
    rival = RIVALS[name]
    rates = [peer.steps_per_second for peer in peers if peer.steps_per_second]
    latencies = [peer.idle_p50_ms for peer in peers if peer.idle_p50_ms is not None]
    if not rates or not latencies:
        return [Line(f"× {rival.title}, steps a second", "no number")]
    ours = statistics.mean((first.loaded.rate, again.loaded.rate))
    waited = measures.percentile(again.idle.outside, 0.5)
    found = [Line(f"× {rival.title} ({max(rates):,.0f} steps/s)", ours / max(rates), least=rival.least)]
    label = f"one idle workflow for its client, p50, part of {rival.title}'s {min(latencies):.0f} ms"
    found.append(Line(label, waited / min(latencies), most=1 if rival.slower else None))
    return found


def _peer(name: str, *, quick: bool) -> PeerResult:
    return measuring.run(name, seconds=5 if quick else 20, singles=20 if quick else 60)


def _product(name: str) -> str:
    return name.partition("-")[0]


def _of(name: str, peers: Sequence[PeerResult]) -> list[PeerResult]:
    return [peer for peer in peers if _product(peer.peer) == name]


if __name__ == "__main__":
    raise SystemExit(main())
