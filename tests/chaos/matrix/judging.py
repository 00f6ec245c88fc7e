"""The verdict on a round: the oracle's laws by the world's ledgers, the table's word for each case, and the story.

judge    → {tag: what is wrong}, and how each case ended
story    everything known about one case, for a person at 2 AM: rows, events, the tools' books
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.domain import ids
from tests.chaos.matrix.boundaries import COMA, FREEZE
from tests.chaos.matrix.endings import Ending, ending_of, wrong
from tests.chaos.matrix.round import Round
from tests.chaos.matrix.scenes import SCENES
from tests.chaos.matrix.workloads import Case
from tests.chaos.oracle import judge as every_law
from tests.chaos.oracle.ledgers import Ledgers, Receipt, tool_entries
from tests.chaos.oracle.snapshot import at_one_instant
from tests.chaos.oracle.verdicts import Violation, violations
from tests.e2e.driver import uuid_of

UNSENT: Final = ("claim.committed", "send.before", "write.before")
"""Points where nothing of the request has left."""
HALF_SENT: Final = ("calendar.create_event", "email.send")
"""Requests with a body, which is a piece of its own: after the first one (`write.after`) nothing can have happened."""

REST: Final = 10.0
"""Seconds within which something may be being done at this instant."""


@dataclass(kw_only=True)
class Verdict:
    endings: dict[str, Ending] = field(default_factory=dict)
    """By tag."""
    wrong: dict[str, list[str]] = field(default_factory=dict)


def judge(round_: Round) -> Verdict:
    found = Verdict()
    scene = SCENES[round_.boundary.scene]
    word = round_.boundary.after[round_.fault]
    for case in round_.cases:
        ending = ending_of(round_.lane, case, kinds=scene.judged)
        found.endings[case.tag] = ending
        against = wrong(word, case, ending, statuses=scene.statuses, ways=scene.ways)
        found.wrong[case.tag] = [] if against is None else [against]
    for call, words in _sent_by_zombies(round_):
        for case in round_.cases:
            if case.workflow == call:
                found.wrong[case.tag].append(words)
    for violation in _laws(round_):
        for case in round_.cases:
            if violation.workflow in (None, case.workflow):
                found.wrong[case.tag].append(str(violation))
    return found


_BEFORE: Final = """
SELECT a.workflow_id, a.call_id, a.n FROM attempts a JOIN workers w ON w.id = a.worker
JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
WHERE a.workflow_id = ANY(%(workflows)s) AND w.pid = ANY(%(pids)s) AND a.intended_at <= %(at)s
  AND c.kind = ANY(%(kinds)s)"""


def _sent_by_zombies(round_: Round) -> Iterator[tuple[str, str]]:
    """The self-fence: what a worker had not sent when it was frozen, it never sends; its lease is over."""
    point = round_.boundary.point
    if round_.fault not in (FREEZE, COMA) or point not in (*UNSENT, "write.after"):
        return
    received = {
        (entry["call"], str(entry["attempt"]))
        for entry in _books(round_)
        if point in UNSENT or entry["tool"] in HALF_SENT
    }
    workflows = [uuid_of(workflow) for workflow in round_.workflows]
    kinds = list(SCENES[round_.boundary.scene].kinds)
    for fault in [fault for fault in round_.given if fault.kind == FREEZE]:
        found = round_.lane.rows(_BEFORE, workflows=workflows, pids=list(fault.pids), at=fault.at, kinds=kinds)
        for row in found:
            if (ids.encode("call", row["call_id"]), str(row["n"])) in received:
                yield ids.encode("wf", row["workflow_id"]), f"attempt {row['n']} was sent by a zombie: no self-fence"


def _laws(round_: Round) -> list[Violation]:
    workflows = [uuid_of(workflow) for workflow in round_.workflows]
    ledgers = Ledgers(
        tools=tool_entries(_books(round_)),
        submissions=list(round_.submissions.values()),
        resolutions=round_.resolutions,
        receipts=list(_receipts(round_)),
        faults=round_.given,
    )
    secret = round_.lane.webhook_secret if round_.boundary.scene == "deliver" else None
    with at_one_instant(round_.lane.url, workflows=workflows) as rows:
        return violations(every_law(ledgers, rows, secret=secret, seconds=REST))


def _books(round_: Round, case: Case | None = None) -> list[dict[str, Any]]:
    """The tools' entries with a tag of this round in their arguments, whoever sent them."""
    tags = [each.tag for each in round_.cases] if case is None else [case.tag]
    return [
        entry
        for entry in round_.lane.tools.ledger()
        if any(isinstance(value, str) and value.endswith(tuple(tags)) for value in entry["arguments"].values())
        or entry["workflow"] in {each.workflow for each in round_.cases if case in (None, each)}
    ]


def _receipts(round_: Round) -> Iterator[Receipt]:
    began = datetime.now(UTC)
    for number, each in enumerate(list(round_.lane.receiver.received)):
        if each.event["data"]["workflow_id"] in round_.workflows:
            at = began + timedelta(microseconds=number)
            yield Receipt(id=each.id, body=each.body, headers=each.headers, status=each.status, at=at)


# --- the story -----------------------------------------------------------------------------------------------------

_WAITING: Final = """
SELECT pid, application_name, state, clock_timestamp() - xact_start AS open_for, pg_blocking_pids(pid) AS blocked_by,
  left(replace(query, E'\\n', ' '), 160) AS query
FROM pg_stat_activity WHERE datname = current_database() AND xact_start < clock_timestamp() - interval '1 second'"""

_TABLES: Final = {
    "workflow": "SELECT status, failure, open_calls, held, doubts, attention FROM workflows WHERE id = %(workflow)s",
    "calls": "SELECT id, step, kind, tool, effect, state, attempts, attempt_id, not_before, resolved, failure "
    "FROM calls WHERE workflow_id = %(workflow)s ORDER BY id",
    "attempts": "SELECT a.call_id, a.id, a.n, k.name AS worker, k.pid, a.intended_at, a.send_deadline, a.outcome, "
    "a.lost_at, a.status_code, a.failure FROM attempts a JOIN workers k ON k.id = a.worker "
    "WHERE a.workflow_id = %(workflow)s ORDER BY a.intended_at",
    "dues": "SELECT kind, ref, due_at, ring_at, rung FROM dues WHERE workflow_id = %(workflow)s",
    "breakers that are not closed": "SELECT scope, state, until, canary FROM breakers WHERE state <> 'closed'",
    "workers": "SELECT name, pid, started_at, beat_at, lease_until, lost_at, reaped_at, stopped_at FROM workers "
    "ORDER BY started_at DESC LIMIT 4",
    "events": "SELECT seq, at, type, step, from_state, to_state, data FROM events "
    "WHERE workflow_id = %(workflow)s ORDER BY seq",
}


def unended(round_: Round) -> list[Case]:
    """Those that have not come to their end first."""
    told = [case for case in round_.cases if case.workflow]
    open_ = "SELECT FROM workflows WHERE id = %(workflow)s AND ended_at IS NULL"
    return sorted(told, key=lambda case: not round_.lane.there(open_, workflow=uuid_of(case.workflow)))


def story(round_: Round, case: Case) -> Iterator[str]:
    yield f"{round_.boundary.name} × {round_.fault} × {case.effect}: {round_.boundary.says}"
    yield f"{case.workflow} {case.tag}"
    if case.workflow:
        for name, sql in _TABLES.items():
            yield f"--- {name}"
            for row in round_.lane.rows(sql, workflow=uuid_of(case.workflow)):
                yield "  " + "  ".join(f"{column}={value}" for column, value in row.items() if value is not None)
    yield "--- who waits for whom in Postgres"
    for row in round_.lane.rows(_WAITING):
        yield "  " + "  ".join(f"{column}={value}" for column, value in row.items() if value is not None)
    yield "--- the tools' books"
    for entry in _books(round_, case):
        yield f"  {entry}"
    yield f"--- faults: {round_.given}"
    yield f"--- logs: {', '.join(str(victim.log) for victim in round_.victims)}, {round_.lane.rescuer.log}"
