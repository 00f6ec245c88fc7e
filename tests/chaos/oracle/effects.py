"""S3 no duplicate effect, S4 no phantom, U1 what failed is undone: the tool server's ledger against the calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tests.chaos.oracle import snapshot
from tests.chaos.oracle.ledgers import UNDONE_BY, ToolEntry
from tests.chaos.oracle.snapshot import Row, Snapshot
from tests.chaos.oracle.verdicts import Checked, Violation

# --- S3 ------------------------------------------------------------------------------------------------------------


def no_duplicates(entries: Sequence[ToolEntry]) -> Checked:
    """S3: by tool and arguments, whoever asked: executed once, unless it was undone in between; keyed once per key.

    Each effect of a workload has arguments of its own. Only what the tools wrote down is looked at.
    """
    effects = [entry for entry in entries if entry.kind is not None]
    undone = _undone(effects)
    found = [v for same in _grouped(effects, by="bytes") for v in _executed_again(same, undone)]
    found += [v for same in _grouped(effects, by="key") for v in _same_key(same)]
    found += [v for same in _grouped(effects, by="call") for v in _other_bytes(same)]
    count = sum(entry.executed for entry in effects)
    return Checked(law="S3", says="no effect happened twice", count=count, of="effects executed", violations=found)


def _grouped(entries: Iterable[ToolEntry], *, by: str) -> Iterable[list[ToolEntry]]:
    groups: dict[tuple[str, str], list[ToolEntry]] = defaultdict(list)
    for entry in entries:
        name = getattr(entry, by)
        if name is not None:
            groups[entry.tool, name].append(entry)
    return groups.values()


def _executed_again(same: Sequence[ToolEntry], undone: set[tuple[str, str]]) -> Iterator[Violation]:
    """An idempotent one may be repeated: that its bytes were the same is the law about its call."""
    done = [entry for entry in same if entry.executed]
    if same[0].kind == "idempotent" or len(done) < 2:
        return
    lasting = [entry for entry in done if not _was_undone(entry, undone)]
    if len(lasting) > 1:
        calls = ", ".join(f"{entry.call}#{entry.attempt} at {entry.at:%H:%M:%S.%f}" for entry in lasting)
        words = f"{same[0].tool} {dict(same[0].arguments)} was executed {len(lasting)} times: {calls}"
        yield Violation(law="S3", workflow=same[0].workflow, call=same[0].call, words=words)


def _undone(effects: Sequence[ToolEntry], *, answered: bool = False) -> set[tuple[str, str]]:
    """(the tool that undid, the id it was given). `answered`: also where nothing was left to undo (what was refunded
    need not be released as well)."""
    return {
        (entry.tool, str(value))
        for entry in effects
        if entry.executed or (answered and entry.done)
        for value in entry.arguments.values()
        if isinstance(value, str)
    }


def _was_undone(entry: ToolEntry, undone: set[tuple[str, str]]) -> bool:
    if entry.tool not in UNDONE_BY or not isinstance(entry.result, Mapping):
        return False
    tool, field = UNDONE_BY[entry.tool]
    return (tool, str(entry.result.get(field))) in undone


def _same_key(same: Sequence[ToolEntry]) -> Iterator[Violation]:
    times = sum(entry.executed for entry in same)
    if same[0].kind == "keyed" and times > 1:
        words = f"{same[0].tool} was executed {times} times under the key {same[0].key}"
        yield Violation(law="S3", workflow=same[0].workflow, call=same[0].call, words=words)


def _other_bytes(same: Sequence[ToolEntry]) -> Iterator[Violation]:
    """Every attempt of one call sends the same bytes, and the same key."""
    if len({(entry.bytes, entry.key) for entry in same}) > 1:
        words = f"{same[0].tool} was asked for with different bytes: {sorted({entry.bytes for entry in same})}"
        yield Violation(law="S3", workflow=same[0].workflow, call=same[0].call, words=words)


# --- S4 ------------------------------------------------------------------------------------------------------------

_CALLS: Final = """
SELECT c.workflow_id, c.id, c.tool, c.state, c.target, c.kind, c.resolved->>'outcome' AS said
FROM calls c JOIN workflows w ON w.id = c.workflow_id
WHERE {ours} AND c.kind IN ('tool', 'compensation') AND c.effect <> 'read_only'"""

_DENIED: Final = """
SELECT a.workflow_id, a.call_id, a.n, a.outcome FROM attempts a
JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id JOIN workflows w ON w.id = a.workflow_id
WHERE {ours} AND a.outcome IN ('not_sent', 'failed') AND c.kind IN ('tool', 'compensation')
  AND c.effect <> 'read_only'"""


def no_phantoms(entries: Sequence[ToolEntry], rows: Snapshot) -> Checked:
    """S4: succeeded: the tool did it; failed, cancelled, not_sent: it did not; and what it did has a call of ours."""
    by_call: dict[str, list[ToolEntry]] = defaultdict(list)
    for entry in entries:
        if entry.kind is not None and entry.call is not None:
            by_call[entry.call].append(entry)
    calls = {snapshot.call(row["id"]): row for row in rows(_CALLS)}
    found = [v for name, row in calls.items() for v in _call_phantoms(name, row, by_call)]
    for row in rows(_DENIED):
        name = snapshot.call(row["call_id"])
        found += _attempt_phantoms(name, row, [each for each in by_call.get(name, []) if each.attempt == row["n"]])
    mine = {snapshot.wf(row["workflow_id"]) for row in calls.values()}
    found += [
        Violation(law="S4", workflow=each[0].workflow, call=name, words=f"{each[0].tool} ran; no row knows that call")
        for name, each in by_call.items()
        if name not in calls and each[0].workflow in mine and any(entry.executed for entry in each)
    ]
    return Checked(
        law="S4", says="what is said happened, and nothing else", count=len(calls), of="effects", violations=found
    )


def _call_phantoms(name: str, row: Row, by_call: Mapping[str, Sequence[ToolEntry]]) -> Iterator[Violation]:
    workflow = snapshot.wf(row["workflow_id"])
    owner = snapshot.call(row["target"]) if row["said"] == "attached" and row["target"] else name
    entries = by_call.get(owner, [])
    if row["state"] == "succeeded" and not any(entry.done for entry in entries):
        words = f"{row['tool']} succeeded, the tool knows nothing of it ({len(entries)} requests seen)"
        yield Violation(law="S4", workflow=workflow, call=name, words=words)
    if row["state"] in ("failed", "cancelled") and any(entry.executed for entry in entries):
        yield Violation(
            law="S4", workflow=workflow, call=name, words=f"{row['tool']} is {row['state']}, the tool did it"
        )


def _attempt_phantoms(name: str, row: Row, entries: Sequence[ToolEntry]) -> Iterator[Violation]:
    workflow = snapshot.wf(row["workflow_id"])
    if row["outcome"] == "not_sent" and entries:
        words = f"attempt {row['n']} was not sent, the tool has received it"
        yield Violation(law="S4", workflow=workflow, call=name, words=words)
    if row["outcome"] == "failed" and any(entry.executed for entry in entries):
        words = f"attempt {row['n']} failed for certain, the tool did it"
        yield Violation(law="S4", workflow=workflow, call=name, words=words)


# --- U1 ------------------------------------------------------------------------------------------------------------

_ENDED_BADLY: Final = """
SELECT c.id FROM calls c JOIN workflows w ON w.id = c.workflow_id
WHERE {ours} AND w.status IN ('failed', 'cancelled') AND c.kind = 'tool' AND c.state <> 'abandoned'
  AND c.tool = ANY(%(undoable)s)"""


def nothing_left_done(entries: Sequence[ToolEntry], rows: Snapshot, *, undoable: Sequence[str]) -> Checked:
    """U1: of a workflow that failed or was cancelled nothing is left in the world that it could undo.

    `undoable`: the tools, as the definitions call them, that declare what undoes them, with no pivot after them.
    """
    ended = {snapshot.call(row["id"]) for row in rows(_ENDED_BADLY, undoable=list(undoable))}
    undone = _undone([entry for entry in entries if entry.kind is not None], answered=True)
    mine = [entry for entry in entries if entry.executed and entry.call in ended and entry.tool in UNDONE_BY]
    found = [
        Violation(
            law="U1", workflow=entry.workflow, call=entry.call, words=f"{entry.tool} is still done: {entry.result}"
        )
        for entry in mine
        if not _was_undone(entry, undone)
    ]
    return Checked(law="U1", says="what failed is undone in the world", count=len(mine), of="effects", violations=found)
