"""Non-vacuity: how often the run really met what it is about. A counter that must not be 0 and is makes it INVALID.

Read from the rows, the events and the ledgers. What each of them counts is its sentence in the report.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.chaos.oracle.ledgers import Ledgers
from tests.chaos.oracle.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Counter:
    name: str
    says: str
    count: int
    needed: bool

    @property
    def line(self) -> str:
        missing = "  ← needed" if self.needed and not self.count else ""
        return f"{self.count:>8}  {self.says}{missing}"


SQL: Final[Mapping[str, tuple[str, str]]] = {
    "killed_between": (
        "attempts killed between intent and commit",
        """SELECT count(*) FROM attempts a JOIN workers k ON k.id = a.worker
           WHERE k.reaped_at IS NOT NULL AND a.lost_at IS NOT NULL AND a.outcome IS NULL""",
    ),
    "killed_effects": (
        "… of them effects (not reads, not model calls)",
        """SELECT count(*) FROM attempts a JOIN workers k ON k.id = a.worker
           JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
           WHERE k.reaped_at IS NOT NULL AND a.lost_at IS NOT NULL AND a.outcome IS NULL
             AND c.effect <> 'read_only' AND c.kind IN ('tool', 'compensation')""",
    ),
    "fenced": (
        "fenced commits: told after another attempt stood at the fence",
        """SELECT count(*) FROM attempts a JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
           WHERE a.lost_at IS NOT NULL AND a.outcome IS NOT NULL AND c.attempt_id IS DISTINCT FROM a.id""",
    ),
    "late": (
        "late evidence accepted after the attempt was called lost",
        "SELECT count(*) FROM attempts WHERE lost_at IS NOT NULL AND outcome IS NOT NULL AND settled_at > lost_at",
    ),
    "late_settled": (
        "… of it successes that settled their call",
        """SELECT count(*) FROM attempts a JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
           WHERE a.lost_at IS NOT NULL AND a.outcome = 'succeeded' AND c.attempt_id = a.id AND c.state = 'succeeded'""",
    ),
    "self_fenced": (
        "sends stopped by the worker's own fence",
        """SELECT count(*) FROM attempts a WHERE a.outcome = 'not_sent' AND a.failure->>'kind' = 'worker_lost'""",
    ),
    "leases_ended": (
        "leases of living workers that were ended (zombies, cuts)",
        "SELECT count(*) FROM workers WHERE lost_at IS NOT NULL AND (reaped_at IS NULL OR lost_at < reaped_at)",
    ),
    "doubts": ("doubts", "SELECT count(*) FROM events WHERE type = 'effect.in_doubt'"),
    "doubts_settled": (
        "doubts settled, by a person or by late evidence",
        "SELECT count(*) FROM events WHERE type = 'effect.resolved' AND from_state = 'in_doubt'",
    ),
    "probes_found": (
        "probes that found it",
        "SELECT count(*) FROM events WHERE type = 'effect.probed' AND data->>'verdict' = 'found'",
    ),
    "absent_then_found": (
        "probes that said absent, then found (the request was on its way)",
        """SELECT count(DISTINCT e.call_id) FROM events e JOIN events f ON f.workflow_id = e.workflow_id
           AND f.call_id = e.call_id AND f.seq > e.seq AND f.type = 'effect.probed' AND f.data->>'verdict' = 'found'
           WHERE e.type = 'effect.probed' AND e.data->>'verdict' = 'absent'""",
    ),
    "absent_then_sent": (
        "probes that said absent until the quarantine was over, then sent again",
        """SELECT count(*) FROM calls c WHERE c.kind = 'tool' AND c.effect = 'checkable' AND c.attempts > 1
           AND c.state = 'succeeded' AND EXISTS (SELECT FROM events e WHERE e.workflow_id = c.workflow_id
             AND e.call_id = c.id AND e.type = 'effect.probed' AND e.data->>'verdict' = 'absent')""",
    ),
    "left_open": (
        "attempts nobody will tell about: their worker died after the call was settled otherwise",
        """SELECT count(*) FROM attempts a JOIN workers k ON k.id = a.worker AND k.lost_at IS NOT NULL
           JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id AND c.ended_at IS NOT NULL
           WHERE a.outcome IS NULL AND a.lost_at IS NULL""",
    ),
    "repeated": (
        "calls made again after a loss, a lost reply or a refusal",
        "SELECT count(*) FROM events WHERE type = 'agent.step.retried'",
    ),
    "attached": (
        "calls that took another workflow's effect for their own (business keys)",
        "SELECT count(*) FROM calls WHERE resolved->>'outcome' = 'attached'",
    ),
    "compensated": ("effects undone", "SELECT count(*) FROM events WHERE type = 'compensation.succeeded'"),
    "awaited": ("202s waited for", "SELECT count(*) FROM events WHERE type = 'effect.accepted'"),
    "decided": ("approvals decided", "SELECT count(*) FROM events WHERE type = 'approval.decided'"),
    "asked_again": (
        "effects that a model asked for twice, held and refused",
        "SELECT count(*) FROM events WHERE type = 'effect.repeated'",
    ),
    "cancelled": ("workflows cancelled", "SELECT count(*) FROM workflows WHERE status = 'cancelled'"),
    "paused": ("workflows paused and resumed", "SELECT count(*) FROM events WHERE type = 'workflow.paused'"),
    "model_failures": (
        "model calls that failed and were made again",
        """SELECT count(*) FROM events WHERE type = 'agent.model.called'
           AND data->>'outcome' IN ('failed', 'unknown')""",
    ),
}

NEEDED: Final = frozenset(
    {
        *("killed_between", "killed_effects", "fenced", "late", "leases_ended", "doubts", "doubts_settled"),
        *("probes_found", "absent_then_found", "absent_then_sent", "repeated", "attached", "compensated", "awaited"),
        *("decided", "asked_again", "cancelled", "model_failures", "rung_again", "tool_replays", "api_replays"),
        *("redeliveries", "lost_replies"),
    }
)
"""Of a full run: without any of these it has not tried what it says it proves."""

NEEDED_IN_SMALL: Final = frozenset(
    {
        *("killed_between", "probes_found", "absent_then_sent", "repeated", "compensated", "decided"),
        *("model_failures", "rung_again", "lost_replies"),
    }
)
"""Of a run of some forty workflows: what its plan brings about however the processes race."""


def count(
    ledgers: Ledgers, rows: Snapshot, *, rung_again: int, api_replays: int, needed: frozenset[str]
) -> list[Counter]:
    found = {name: (says, rows.count(sql)) for name, (says, sql) in SQL.items()}
    replays = sum(each.kind == "keyed" and not each.executed and 200 <= each.status < 300 for each in ledgers.tools)
    seen = Tally(receipt.id for receipt in ledgers.receipts)
    found["rung_again"] = ("duplicate doorbells, rung for what was due, in flight or over", rung_again)
    found["tool_replays"] = ("keys that a tool recognised (nothing was done again)", replays)
    found["api_replays"] = ("submissions repeated with their key and answered with the same workflow", api_replays)
    found["lost_replies"] = ("submissions whose reply was lost", sum(each.lost for each in ledgers.submissions))
    found["redeliveries"] = ("webhooks delivered again", sum(seen.values()) - len(seen))
    found["executed"] = (
        "effects executed, by the tools' ledger",
        sum(bool(e.executed and e.kind) for e in ledgers.tools),
    )
    return [
        Counter(name=name, says=says, count=number, needed=name in needed) for name, (says, number) in found.items()
    ]
