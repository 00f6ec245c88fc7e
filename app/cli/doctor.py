"""`surefoot doctor`: is everything there, and does anything wait for somebody? Every red line says what to do.

Asks only the API (`/readyz`, `/metrics`, lists), so that it judges the installation that clients see. Exit codes: 0 all
is well, 2 something is broken, 3 nothing is broken but somebody is waited for, 5 the API does not answer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import next_commands, printing
from app.cli.client import Problem
from app.cli.exits import FAILED, OK, WAITS
from app.cli.session import client_of
from app.domain.amounts import counted, took
from app.domain.outcomes import JSON
from app.domain.plain import plain

if TYPE_CHECKING:
    from app.cli.client import Client

GOOD: Final = "good"
LOOK: Final = "look"
"""Works, and somebody should look."""
PERSON: Final = "person"
"""Works, and waits for somebody."""
BROKEN: Final = "broken"
_GLYPHS: Final = {GOOD: "✓", LOOK: "?", PERSON: "⏸", BROKEN: "✗"}
_COLOURS: Final = {GOOD: "32", LOOK: printing.YELLOW, PERSON: printing.YELLOW, BROKEN: printing.RED}

SKEW: Final = 5.0
"""Seconds between two clocks: leases and timers do not mind (only the database's clock judges), but times in logs no
longer fit, and receivers refuse signatures that seem minutes old."""
OLD: Final = timedelta(days=1)
"""A doubt nobody has settled in a day is one nobody has seen."""
LOOKED_AT: Final = 100
"""Workflows of each kind of trouble; beyond it the first say enough."""
SHOWN: Final = 3
Wait = Mapping[str, JSON]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    name: str
    state: str
    says: str
    fix: str | None = None


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The checks as JSON.")] = False,
) -> None:
    """Check the API, the database, Redis, workers, clocks, and whether anything is forgotten or waits for somebody."""
    with client_of(ctx) as client:
        checks = list(examine(client))
    if as_json:
        printing.as_json({"checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            _print(check)
    states = {check.state for check in checks}
    raise typer.Exit(FAILED if BROKEN in states else WAITS if PERSON in states else OK)


def examine(client: Client) -> Iterator[Check]:
    """What is asked later is left out if the database does not answer: it would only say so again."""
    version = client.get("/version")
    yield Check(name="api", state=GOOD, says=f"{client.target.url} answers, version {version['version']}")
    ready = _ready(client)
    yield from _database(ready)
    yield _redis(ready)
    if ready["status"] == "unavailable":
        return
    began = time.time()
    numbers = _numbers(str(client.get("/metrics")))
    here = (began + time.time()) / 2
    yield _workers(numbers)
    yield _clocks(numbers, here=here)
    yield _orphans(numbers)
    yield from _people(client, numbers)
    yield from _switches(client)


def _ready(client: Client) -> Mapping[str, JSON]:
    ready: Mapping[str, JSON]
    try:
        ready = client.get("/readyz")
    except Problem as refused:  # 503: its body says what is missing
        ready = refused.document
    return {"status": "unavailable", "database": "unreachable", "redis": "away", "detail": "", "attention": [], **ready}


def _database(ready: Mapping[str, JSON]) -> Iterator[Check]:
    fixes = {
        "unreachable": "Start Postgres, or correct SUREFOOT_DATABASE_URL of the API.",
        "not_migrated": "surefoot migrate",
        "restored": "surefoot recover --since WHEN --dry-run    (docs/restore.md)",
    }
    state = str(ready["database"])
    if state != "ok":
        fix = fixes.get(state, "Look at GET /readyz and the log of the API.")
        yield Check(name="database", state=BROKEN, says=str(ready["detail"]) or state, fix=fix)
    else:
        yield Check(name="database", state=GOOD, says="Postgres answers and is migrated")
    for sentence in ready["attention"]:
        fix = (
            "surefoot recover --since WHEN --dry-run" if "recover" in str(sentence) else "docs/operations.md says why."
        )
        yield Check(name="database", state=LOOK, says=str(sentence), fix=fix)


def _redis(ready: Mapping[str, JSON]) -> Check:
    if ready["redis"] == "ok":
        return Check(name="redis", state=GOOD, says="Redis answers")
    says = "Redis is away: calls start at the next sweep instead of at once; nothing is lost"
    return Check(name="redis", state=LOOK, says=says, fix="Start Redis, or correct SUREFOOT_REDIS_URL of the API.")


def _workers(numbers: Mapping[str, float]) -> Check:
    alive, backlog = int(numbers.get("surefoot_workers", 0)), int(numbers.get("surefoot_backlog", 0))
    oldest = timedelta(seconds=numbers.get("surefoot_oldest_due_seconds", 0))
    waiting = f"; {counted(backlog, 'call')} due, the oldest for {took(oldest)}" if backlog else ""
    if alive:
        return Check(name="workers", state=GOOD, says=f"{counted(alive, 'worker')} alive{waiting}")
    return Check(name="workers", state=BROKEN, says=f"No worker is alive{waiting}", fix="surefoot worker")


def _clocks(numbers: Mapping[str, float], *, here: float) -> Check:
    there = numbers.get("surefoot_database_time_seconds")
    if there is None:
        return Check(name="clocks", state=LOOK, says="The database's clock is not known", fix="Try again.")
    skew = here - there
    if abs(skew) <= SKEW:
        return Check(name="clocks", state=GOOD, says=f"This machine and the database agree within {SKEW:.0f} s")
    says = f"This machine is {took(timedelta(seconds=abs(skew)))} {'ahead of' if skew > 0 else 'behind'} the database"
    return Check(name="clocks", state=LOOK, says=says, fix="Let NTP keep both clocks: timedatectl set-ntp true")


def _orphans(numbers: Mapping[str, float]) -> Check:
    found = numbers.get("surefoot_orphans")
    if found is None:
        says = "Whether anything is forgotten could not be counted in time"
        return Check(name="orphans", state=LOOK, says=says, fix="Try again when the database has less to do.")
    if not found:
        return Check(name="orphans", state=GOOD, says="Everything that has not ended has something that wakes it")
    says = f"{counted(int(found), 'workflow')} would never go on, or with wrong counters: a fault of Surefoot"
    fix = "The log of the API names them (event orphans); surefoot why wf_… tells more. Please report it."
    return Check(name="orphans", state=BROKEN, says=says, fix=fix)


# --- somebody is waited for ---


def _people(client: Client, numbers: Mapping[str, float]) -> Iterator[Check]:
    yield _doubts(client, numbers)
    failed = list(_waits(client, "compensation_failed", "compensation"))
    yield _asked(
        "undos",
        failed,
        says=f"{counted(len(failed), 'effect')} could not be undone",
        well="Nothing that should be undone is still done",
        commands=lambda one: next_commands.of_undo(str(one["effect"])),
    )
    held = list(_waits(client, "failure_held", "saga"))
    yield _asked(
        "failures",
        held,
        says=f"{counted(len(held), 'failed workflow')} held: undo what was done, or keep it?",
        well="No failure is held for an operator",
        commands=lambda one: next_commands.of_saga(str(one["workflow"])),
    )


def _doubts(client: Client, numbers: Mapping[str, float]) -> Check:
    """One that is old was overlooked; a young one is told, because its workflow waits as long as nobody says."""
    now = numbers.get("surefoot_database_time_seconds")
    found = list(_waits(client, "outcome_unknown", "doubt"))
    old = [] if now is None else [one for one in found if _age(one, now) > OLD]
    if found and not old:
        says = f"{counted(len(found), 'effect')} in doubt: nobody has said yet whether it happened"
        return Check(name="doubts", state=LOOK, says=says, fix="surefoot effects --state in_doubt")
    return _asked(
        "doubts",
        old,
        says=f"{counted(len(old), 'doubt')} older than a day: nobody has said whether the effect happened",
        well="Nothing is in doubt",
        commands=lambda one: next_commands.of_doubt(str(one["effect"])),
    )


def _asked(name: str, waits: list[Wait], *, says: str, well: str, commands: Callable[[Wait], list[str]]) -> Check:
    if not waits:
        return Check(name=name, state=GOOD, says=well)
    lines = [line for one in waits[:SHOWN] for line in commands(one)]
    more = [f"and {len(waits) - SHOWN} more"] if len(waits) > SHOWN else []
    return Check(name=name, state=PERSON, says=says, fix="\n".join([*lines, *more]))


def _waits(client: Client, attention: str, kind: str) -> Iterator[Wait]:
    """What workflows with that word in `attention` wait for, each with the workflow's id."""
    page = client.get("/v1/workflows", query={"attention": attention, "limit": LOOKED_AT})
    for workflow in page["data"]:
        for one in workflow["waiting_on"]:
            if one["kind"] == kind:
                yield {**one, "workflow": workflow["id"]}


def _age(one: Wait, now: float) -> timedelta:
    since = datetime.fromisoformat(str(one["since"]))
    return timedelta(seconds=now - since.timestamp())


def _switches(client: Client) -> Iterator[Check]:
    switches = client.get("/v1/switches")["data"]
    if not switches:
        yield Check(name="switches", state=GOOD, says="Nothing is switched off")
    for switch in switches:
        because = f": {switch['reason']}" if switch["reason"] else ""
        says = f"{switch['scope']} is switched off by {switch['by']} since {switch['created_at']}{because}"
        kind, _, name = str(switch["scope"]).partition(":")
        yield Check(name="switches", state=LOOK, says=says, fix=f"surefoot release {kind} {name}".strip())


def _numbers(text: str) -> dict[str, float]:
    """Samples of Prometheus text that have no labels."""
    pairs = (line.split() for line in text.splitlines() if line and not line.startswith("#") and "{" not in line)
    return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}


def _print(check: Check) -> None:
    glyph = printing.paint(_GLYPHS[check.state], _COLOURS[check.state], sys.stdout)
    printing.out(f"{glyph} {check.name:<10}{plain(check.says)}")
    for line in (check.fix or "").splitlines():
        printing.out(f"    fix     {plain(line)}")
