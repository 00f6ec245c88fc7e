"""After the fault: wait until every workflow has ended; where a person is asked, look into the tools' books and say.

The person believes the books, not us: executed means `happened`; not executed means `did_not_happen`, and that is
said only when the quarantine is over.
"""

from __future__ import annotations

import http.client
from typing import Any, Final

from app.domain import ids
from tests.chaos.matrix.lane import Answer
from tests.chaos.matrix.round import Round
from tests.chaos.oracle.ledgers import Resolution
from tests.e2e.catalogue import CATALOGUE
from tests.e2e.driver import Row, until, uuid_of

NOTE: Final = "looked into the tool's books"

END_WITHIN: Final = 45.0
"""Seconds from the fault to the end of every workflow: lease, deadline, quarantine, and patience for a busy machine."""

_OPEN: Final = "SELECT FROM workflows WHERE id = ANY(%(workflows)s) AND ended_at IS NULL"
_UNDELIVERED: Final = "SELECT FROM deliveries WHERE workflow_id = ANY(%(workflows)s) AND state = 'open'"
_DOUBTS: Final = """
SELECT c.id, c.request->'arguments' AS arguments, c.tool, c.not_before <= clock_timestamp() AS quiet
FROM calls c WHERE c.workflow_id = ANY(%(workflows)s) AND c.state = 'in_doubt'"""
_NOT_UNDONE: Final = "SELECT id FROM calls WHERE workflow_id = ANY(%(workflows)s) AND undo = 'failed'"


def bring_to_end(round_: Round) -> None:
    workflows = [uuid_of(workflow) for workflow in round_.workflows]

    def ended() -> bool:
        for doubt in round_.lane.rows(_DOUBTS, workflows=workflows):
            _settle(round_, doubt)
        for effect in round_.lane.rows(_NOT_UNDONE, workflows=workflows):
            _say(round_, f"/v1/effects/{ids.encode('call', effect['id'])}/compensation", {"action": "retry"})
        return not round_.lane.there(_OPEN, workflows=workflows) and not round_.lane.there(
            _UNDELIVERED, workflows=workflows
        )

    until("every workflow has ended (L1)", ended, seconds=END_WITHIN)


def _settle(round_: Round, doubt: Row) -> None:
    done = [entry for entry in _entries(round_, doubt) if entry["executed"] or entry["status"] == 200]
    if not done and not doubt["quiet"]:
        return
    outcome = "happened" if done else "did_not_happen"
    body: Row = {"outcome": outcome}
    if done:
        body["result"] = done[0].get("result") or {}
    effect = ids.encode("call", doubt["id"])
    answer = _say(round_, f"/v1/effects/{effect}/resolve", body)
    if answer is not None and answer.status == 200:
        round_.resolutions.append(Resolution(effect=effect, outcome=outcome, status=answer.status))


def _say(round_: Round, path: str, body: Row) -> Answer | None:
    """None: there was no answer; it is said again at the next look."""
    try:
        return round_.lane.post(path, {"note": NOTE, **body})
    except (OSError, http.client.HTTPException):
        return None


def _entries(round_: Round, doubt: Row) -> list[dict[str, Any]]:
    tool = CATALOGUE[doubt["tool"]]
    mark = doubt["arguments"][tool.mark]
    return [
        entry
        for entry in round_.lane.tools.ledger()
        if entry["tool"] == tool.demo and entry["arguments"].get(tool.mark) == mark
    ]
