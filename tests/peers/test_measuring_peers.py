"""The bench of the peers finds out what a peer loses or repeats, says why one cannot run, and leaves nothing behind.

The peer is a program of the test that speaks the peers' protocol (`bench/peers/programs/talk.py`); none is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.embedded import process
from bench.peers import PEERS, PeerResult, measure
from bench.peers.environments import LOCKS, CannotRun
from bench.peers.known import Clients, Peer
from bench.peers.room import PROGRAMS, Room

PATIENCE = 4.0
"""Seconds: longer than a busy machine stalls, short enough to wait for in the two tests in which something is lost."""

PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[2])
import talk
from ledger import Ledger

ledger, ended = Ledger(sys.argv[1]), 0

def run(steps):
    global ended
    for n in range(steps):
        ledger.step(n)
    ended += 1

talk.say({"ready": {"fake": "1"}})
for order in talk.orders():
    if order["do"] == "submit":
        for number in range(order["first"], order["first"] + order["count"]):
            run(%(steps)s)
        time.sleep(0.01)
    elif order["do"] == "single":
        run(10)
        talk.say({"ms": 7.0})
    else:
        talk.say({"ended": ended - %(lost)s, "faults": []})
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., tuple[Peer, list[int]]]:
    """A peer whose workflows have so many steps under load, and that forgets so many of them at the end."""

    def make(*, steps: str = "10", lost: int = 0) -> tuple[Peer, list[int]]:
        script, pids = tmp_path / "fake.py", list[int]()
        script.write_text(PROGRAM % {"steps": steps, "lost": lost})

        def start(room: Room) -> Clients:
            child = room.server("fake", (sys.executable, str(script), str(room.ledger), str(PROGRAMS)))
            room.heard([child])
            pids.append(child.pid)
            return [child]

        return Peer(name="fake", title="Fake", start=start, levels=(4,), settings="s", promises="p"), pids

    return make


def measured(peer: Peer) -> PeerResult:
    return measure(peer, seconds=0.5, singles=3, patience=PATIENCE)


def test_bench_gives_numbers_without_faults_when_every_step_was_executed_once(
    fake: Callable[..., tuple[Peer, list[int]]],
) -> None:
    peer, pids = fake()

    result = measured(peer)

    assert (result.not_run, result.faults) == (None, ())
    assert sum(result.slices) > 0
    assert (result.idle_p50_ms, result.idle_p99_ms, result.in_flight) == (7.0, 7.0, 4)
    assert result.versions == {"fake": "1"}
    assert [process.alive(pid) for pid in pids] == [False]


@pytest.mark.parametrize("steps", ["10 + (number == 12)", "10 - (number == 12)"])
def test_bench_says_so_when_a_peer_executes_a_step_twice_or_never(
    fake: Callable[..., tuple[Peer, list[int]]], steps: str
) -> None:
    peer, _ = fake(steps=steps)

    result = measured(peer)

    assert [re.sub(r"\d+", "N", fault) for fault in result.faults] == ["steps executed: N, expected N"]


def test_bench_says_so_when_a_peer_forgets_a_workflow(fake: Callable[..., tuple[Peer, list[int]]]) -> None:
    peer, _ = fake(lost=1)

    result = measured(peer)

    assert [re.sub(r"\d+", "N", fault) for fault in result.faults] == [
        "workflows that ended well by its own records: N, submitted N"
    ]
    assert any(note.startswith("WRONG") for note in result.notes)


def test_bench_says_why_when_a_peer_fails_under_load(fake: Callable[..., tuple[Peer, list[int]]]) -> None:
    peer, pids = fake(steps="1 // (number < 9)")

    result = measured(peer)

    assert result.steps_per_second is None
    assert "ZeroDivisionError" in (result.not_run or "")
    assert [process.alive(pid) for pid in pids] == [False]


def test_bench_says_why_when_a_peer_cannot_be_installed() -> None:
    def refuse(_: Room) -> Clients:
        raise CannotRun("there is no wheel for this machine")

    result = measured(Peer(name="fake", title="Fake", start=refuse, levels=(4,), settings="s", promises="p"))

    assert result.not_run == "there is no wheel for this machine"


def test_every_product_has_a_program_and_a_lock_whose_packages_all_have_hashes() -> None:
    products = {peer.name.partition("-")[0] for peer in PEERS}

    assert {path.stem for path in LOCKS.glob("*.lock")} == products
    assert {path.name.removesuffix("_chain.py") for path in PROGRAMS.glob("*_chain.py")} == products
    for product in products:
        entries = re.split(r"\n(?=\S)", (LOCKS / f"{product}.lock").read_text().strip())
        assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
