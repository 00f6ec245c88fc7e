"""S1 no loss, S2 one workflow per key, H2 status is monotone: the client's ledger against the workflows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tests.chaos.oracle import snapshot
from tests.chaos.oracle.ledgers import Sighting, Submission
from tests.chaos.oracle.snapshot import Row, Snapshot
from tests.chaos.oracle.verdicts import Checked, Violation

FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
_ENDING: Final = frozenset({"failing", "cancelling", "compensating"})

_WORKFLOWS: Final = "SELECT w.id, w.idempotency_key AS key, w.input->>'tag' AS tag FROM workflows w WHERE {ours}"
_KEPT: Final = """
SELECT k.key, k.workflow_id FROM idempotency_keys k JOIN workflows w ON w.id = k.workflow_id WHERE {ours}"""


def no_loss(submissions: Sequence[Submission], rows: Snapshot) -> Checked:
    """S1: every 202 the client saw has that workflow, made of what that client sent."""
    known = {snapshot.wf(row["id"]): row for row in rows(_WORKFLOWS)}
    found = [violation for each in submissions for violation in _lost(each, known)]
    return Checked(
        law="S1",
        says="every 202 has its workflow",
        count=sum(len(each.accepted) for each in submissions),
        of="accepted",
        violations=found,
    )


def _lost(submission: Submission, known: dict[str, Row]) -> Iterator[Violation]:
    for name in {reply.workflow for reply in submission.accepted if reply.workflow}:
        row = known.get(name)
        if row is None:
            words = f"the client has a 202 for the key {submission.key}, there is no such workflow"
            yield Violation(law="S1", workflow=name, words=words)
        elif (row["key"], row["tag"]) != (submission.key, submission.tag):
            words = f"it holds {row['key']}/{row['tag']}, the client sent {submission.key}/{submission.tag}"
            yield Violation(law="S1", workflow=name, words=words)


def one_per_key(submissions: Sequence[Submission], rows: Snapshot) -> Checked:
    """S2: one workflow for each key the client used, also where replies were lost; and no workflow of no client."""
    by_key: dict[str, list[str]] = {}
    for row in rows(_WORKFLOWS):
        by_key.setdefault(row["key"], []).append(snapshot.wf(row["id"]))
    kept = {row["key"]: snapshot.wf(row["workflow_id"]) for row in rows(_KEPT)}
    found: list[Violation] = []
    for each in submissions:
        made, told = by_key.pop(each.key, []), {reply.workflow for reply in each.accepted}
        if len(made) > 1 or len(told) > 1:
            words = f"the key {each.key} made {made}; the client was told {sorted(map(str, told))}"
            found.append(Violation(law="S2", words=words))
        if made and kept.get(each.key) != made[0]:
            words = f"the key {each.key} points at {kept.get(each.key)}"
            found.append(Violation(law="S2", workflow=made[0], words=words))
    found += [
        Violation(law="S2", workflow=made[0], words=f"no client has sent its key {key}") for key, made in by_key.items()
    ]
    return Checked(
        law="S2",
        says="one workflow per key",
        count=len(submissions),
        of="keys",
        violations=found if submissions else (),
    )


def monotone(sightings: Sequence[Sighting], *, reopened: frozenset[str] = frozenset()) -> Checked:
    """H2: who was final stays what it was; who is on the way to its end does not turn back; revisions only grow.

    In the order in which one client read them. `reopened`: workflows that a person has retried.
    """
    last: dict[str, Sighting] = {}
    found: list[Violation] = []
    for now in sightings:
        before = last.get(now.workflow)
        last[now.workflow] = now
        if before is None or now.workflow in reopened:
            continue
        back = before.status in FINAL and now.status != before.status
        turned = before.status in _ENDING and now.status not in _ENDING | FINAL
        older = None not in (before.revision, now.revision) and (now.revision or 0) < (before.revision or 0)
        if back or turned or older:
            words = f"the client read {before.status} (revision {before.revision}), later {now.status} ({now.revision})"
            found.append(Violation(law="H2", workflow=now.workflow, words=words))
    return Checked(law="H2", says="a status never goes back", count=len(sightings), of="readings", violations=found)
