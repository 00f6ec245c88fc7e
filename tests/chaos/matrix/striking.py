"""The fault, at the line: what is done to the victim, to the tools it talked to, and when a frozen one goes on.

After `strike` the victim is dead, or goes on; the rescuer works. What the tools had kept back is gone, or has taken
effect late.
"""

from __future__ import annotations

import signal
from datetime import datetime
from pathlib import Path
from typing import Final

from tests.chaos.matrix.boundaries import FREEZE, KILL, POSTGRES, RAISE
from tests.chaos.matrix.round import Round
from tests.chaos.matrix.stack import Process
from tests.e2e.driver import until

TAKEN_OVER_WITHIN: Final = 25.0
"""Seconds until the lease of a frozen worker has been ended and what may be repeated was: a lease and two sweeps."""

ZOMBIE_BEATS: Final = 3
"""Heartbeats of the zombie under its new name: a second in which it would have sent what it stood before."""

_BEATING: Final = "SELECT FROM workers WHERE pid = %(pid)s AND lost_at IS NULL AND beat_at > %(since)s"
_LOST: Final = "SELECT FROM workers WHERE pid = %(pid)s AND lost_at IS NOT NULL"
_OPEN_SINCE: Final = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'surefoot %%' AND xact_start < %(frozen)s"""
_STILL_ITS: Final = """
SELECT FROM calls c JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = c.attempt_id
JOIN workers w ON w.id = a.worker
WHERE w.pid = %(pid)s AND c.state = 'intended' AND c.effect IN ('read_only', 'idempotent', 'keyed')"""


def strike(round_: Round, victim: Process) -> None:
    """The fault; then the clients who were hit ask again."""
    _hit(round_, victim)
    if round_.insist is not None:
        round_.insist()
    if round_.leave is not None:
        round_.leave()
    round_.lane.tools.release()


def _hit(round_: Round, victim: Process) -> None:
    match round_.fault:
        case "kill":
            _kill(round_, victim)
        case "freeze":
            _freeze(round_, victim)
        case "coma":
            began = round_.now()
            victim.channel.say(do="stop")
            until("it is frozen", lambda: frozen(victim.pid))
            round_.note(FREEZE, pids=[victim.pid], since=began)
            _let_go(round_)
            round_.lane.rescue(on=True)
        case "raise":
            round_.note(RAISE, pids=[victim.pid])
            # Where a reply is lost, the point itself does what the transaction's helper would.
            victim.channel.say(do="go" if round_.boundary.point.endswith("reply_lost") else "raise")
            _let_go(round_)
            round_.lane.rescue(on=True)
        case "postgres":
            began = round_.now()
            round_.lane.stack.restart_postgres()
            victim.channel.say(do="go")
            round_.note(POSTGRES, since=began)
            _let_go(round_)
            round_.lane.rescue(on=True)


def _kill(round_: Round, victim: Process) -> None:
    round_.note(KILL, pids=[victim.pid])
    victim.channel.say(do="kill")
    round_.lane.bury(victim)
    round_.victims.remove(victim)
    victim.channel.close()
    round_.lane.rescue(on=True)
    if round_.boundary.then == "release" and any(case.effect == "post" for case in round_.cases):
        until("a probe has looked in vain", lambda: _probed(round_))
    _let_go(round_)


def _probed(round_: Round) -> bool:
    marks = {case.tag for case in round_.cases}
    return any(
        entry["tool"] == "email.search" and entry["arguments"].get("subject") in marks
        for entry in round_.lane.tools.ledger()
    )


def _freeze(round_: Round, victim: Process) -> None:
    began = round_.now()
    victim.channel.say(do="stop")
    until("it is frozen", lambda: frozen(victim.pid))
    if round_.insist is not None:
        _thaw_api(round_, victim)
        return
    stopped = round_.now()
    _let_go(round_)
    round_.lane.rescue(on=True)
    until("its lease was ended", lambda: round_.lane.there(_LOST, pid=victim.pid), seconds=TAKEN_OVER_WITHIN)
    if not _holds_open(round_, frozen_at=stopped):
        until(
            "others have taken over what may be repeated",
            lambda: not round_.lane.there(_STILL_ITS, pid=victim.pid),
            seconds=TAKEN_OVER_WITHIN,
        )
    victim.signal(signal.SIGCONT)
    round_.note(FREEZE, pids=[victim.pid], since=began)


def _holds_open(round_: Round, *, frozen_at: datetime) -> bool:
    """Whether a frozen process keeps others from taking over: by the line itself, or, where its calls are anywhere, by
    a transaction that was open when it was frozen and still is, a lease later. (Postgres ends it after a minute, as
    `tests/engine/test_standing_still.py` shows; here nobody waits for that.)"""
    if round_.boundary.locks:
        return True
    return round_.boundary.beside and round_.lane.there(_OPEN_SINCE, frozen=frozen_at)


def wake(round_: Round, victim: Process) -> None:
    """Everything is over, and the zombie comes back: what it still does, it does before its second heartbeat."""
    victim.signal(signal.SIGCONT)
    for _ in range(ZOMBIE_BEATS):
        _await_beat(round_, victim, since=round_.now())


def _await_beat(round_: Round, victim: Process, *, since: datetime) -> None:
    until(
        "the zombie's next heartbeat",
        lambda: round_.lane.there(_BEATING, pid=victim.pid, since=since),
        seconds=TAKEN_OVER_WITHIN,
    )


def _thaw_api(round_: Round, victim: Process) -> None:
    """An API has no lease: frozen until its clients have asked elsewhere, or stand before what it has locked."""
    if round_.insist is not None and not round_.boundary.locks:
        round_.insist()
    victim.signal(signal.SIGCONT)


def frozen(pid: int) -> bool:
    """Linux: every thread of it stands still."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return stat.rpartition(b")")[2].split()[0] == b"T"


def _let_go(round_: Round) -> None:
    """What the tool keeps back: the connection breaks, or it takes effect after all."""
    if round_.boundary.hold is not None:
        round_.lane.tools.release(drop=round_.boundary.then == "drop")
