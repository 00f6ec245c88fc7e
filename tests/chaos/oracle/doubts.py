"""S5: a doubt is honest and rare: each one was caused by a fault, settled as the world says, and none is left.

A doubt is explained when the process that made an attempt without an answer was killed or frozen, when the tool was
told to misbehave with those arguments, or when everybody was cut off while the attempt was open. So there are never
more doubts than attempts that faults hit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from tests.chaos.oracle import snapshot
from tests.chaos.oracle.ledgers import Fault, Ledgers, Resolution, ToolEntry
from tests.chaos.oracle.snapshot import Row, Snapshot
from tests.chaos.oracle.verdicts import Checked, Violation

SLACK: Final = timedelta(seconds=5)
"""What a busy machine may lie between a fault and the driver's note of it."""

_DOUBTS: Final = """
SELECT c.workflow_id, c.id, c.tool, c.state, c.request->'arguments' AS arguments, c.resolved, c.settle_ms, a.n,
  a.outcome, a.lost_at, a.intended_at, coalesce(a.settled_at, a.lost_at, a.send_deadline) AS over, k.pid
FROM (SELECT DISTINCT e.workflow_id, e.call_id FROM events e JOIN workflows w ON w.id = e.workflow_id
  WHERE {ours} AND e.type = 'effect.in_doubt') d
JOIN calls c ON c.workflow_id = d.workflow_id AND c.id = d.call_id
LEFT JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id
LEFT JOIN workers k ON k.id = a.worker
ORDER BY c.workflow_id, c.id, a.n"""


def honest(ledgers: Ledgers, rows: Snapshot, *, all_settled: bool = True) -> Checked:
    """`all_settled`: at the end of a run nothing is in doubt any more. Without faults, no causes are asked for."""
    by_call: dict[Any, list[Row]] = defaultdict(list)
    for row in rows(_DOUBTS):
        by_call[row["id"]].append(row)
    ran = {entry.call for entry in ledgers.tools if entry.done}
    told = {each.effect: each for each in ledgers.resolutions if each.status == 200}
    found: list[Violation] = []
    for attempts in by_call.values():
        found += _one(attempts, faults=ledgers.faults, ran=ran, told=told, all_settled=all_settled)
    found += _liars(ledgers.resolutions, ran, ledgers.tools)
    return Checked(
        law="S5", says="doubts are honest, explained and settled", count=len(by_call), of="doubts", violations=found
    )


def _one(
    attempts: Sequence[Row],
    *,
    faults: Sequence[Fault],
    ran: set[str | None],
    told: Mapping[str, Resolution],
    all_settled: bool,
) -> Iterator[Violation]:
    call = attempts[0]
    name, workflow = snapshot.call(call["id"]), snapshot.wf(call["workflow_id"])
    if not any(each["outcome"] in (None, "unknown") or each["lost_at"] is not None for each in attempts):
        words = f"{call['tool']} was in doubt, yet no attempt of it was unknown or lost"
        yield Violation(law="S5", workflow=workflow, call=name, words=words)
    if faults and not any(caused(fault, each) for fault in faults for each in attempts):
        opened = ", ".join(f"#{each['n']} {each['intended_at']:%H:%M:%S}–{each['over']:%H:%M:%S}" for each in attempts)
        words = f"{call['tool']} was in doubt and no fault hit it ({opened}, pids {[each['pid'] for each in attempts]})"
        yield Violation(law="S5", workflow=workflow, call=name, words=words)
    if all_settled and call["state"] in ("in_doubt", "probing"):
        yield Violation(law="S5", workflow=workflow, call=name, words=f"{call['tool']} is still {call['state']}")
    person = (call["resolved"] or {}).get("by") not in (None, "evidence", "effect_keys")
    if person and name in told and call["state"] == "succeeded" and name not in ran:
        words = f"{call['tool']} succeeded after {told[name].outcome}, the tool did not do it"
        yield Violation(law="S5", workflow=workflow, call=name, words=words)


def caused(fault: Fault, attempt: Row) -> bool:
    """Whether that fault may be why nobody knew what came of this attempt."""
    if attempt["intended_at"] is None:
        return False
    if fault.marks:
        return bool(fault.marks & {str(value) for value in (attempt["arguments"] or {}).values()})
    if fault.pids and attempt["pid"] not in fault.pids:
        return False
    settle = timedelta(milliseconds=attempt["settle_ms"] or 0)
    began, over = attempt["intended_at"] - SLACK, (attempt["over"] or attempt["intended_at"]) + settle + SLACK
    return bool(began <= fault.until and fault.at <= over)


def _liars(said: Sequence[Resolution], ran: set[str | None], entries: Sequence[ToolEntry]) -> Iterator[Violation]:
    """The operator's own word, checked against the ledger at the end: what did not happen did not, even later."""
    times: dict[str | None, int] = defaultdict(int)
    for entry in entries:
        times[entry.call] += entry.executed and entry.kind not in (None, "idempotent", "keyed")
    for each in said:
        if each.status == 200 and each.outcome == "did_not_happen" and times[each.effect] > 1:
            words = "the operator saw that it had not happened; then it happened more than once"
            yield Violation(law="S5", call=each.effect, words=words)
        if each.status == 200 and each.outcome == "happened" and each.effect not in ran:
            yield Violation(
                law="S5", call=each.effect, words="the operator said that it happened; the tool never did it"
            )
