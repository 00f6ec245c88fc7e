"""Does an agent get anywhere? The same tools, arguments and results again and again are no progress.

    at_end    looks at the turn that ended: a note to the model, then the step fails, by the policy of `no_progress`

Kept on the step are a digest of the last turn, one of the turn before it, and how often they came again: as much at
turn 2 as at turn 200. Two turns in alternation are a circle as well. Whatever is new sets everything back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from app.domain import changing, recovery
from app.domain.aggregate import Call, StepRow
from app.domain.conversation import wire_name
from app.domain.notes import Verdict
from app.domain.outcomes import Failure
from app.domain.plan import Step
from app.domain.recovery_table import CHANGES, Action
from app.domain.states import FailureKind
from app.domain.transition import Draft

LAST: Final = "turn_last"
BEFORE: Final = "turn_before"
"""Counters on an agent step: digests of its last turn and of the one before."""
SAME: Final = "turns_same"
"""How many turns in a row were like the last."""
CIRCLE: Final = "turns_in_circle"
"""How many turns in a row were like the one before the last, and not like the last."""
_DIGEST_BYTES: Final = 6
"""48 bits: a number that JSON keeps exact; by chance two of a thousand turns are alike once in 500 million steps."""


def at_end(draft: Draft, row: StepRow, step: Step, calls: Sequence[Call], results: Sequence[bytes]) -> Verdict:
    """`results`: a digest of what the model saw of each call."""
    turn = _digest(calls, results)
    last, before = row.counters.get(LAST), row.counters.get(BEFORE)
    same = row.counters.get(SAME, 1) + 1 if turn == last else 1
    circle = row.counters.get(CIRCLE, 0) + 1 if turn == before and turn != last else 0
    counters = {**row.counters, LAST: turn, SAME: same, CIRCLE: circle}
    if turn != last:
        counters[BEFORE] = last if last is not None else turn
    if turn not in (last, before):
        counters.pop(FailureKind.NO_PROGRESS, None)
    row.counters = counters
    draft.touch(row)
    allowed = recovery.in_a_row(step, FailureKind.NO_PROGRESS)
    # A circle of two that was gone round as many times is two turns longer than what is new in it.
    if same >= allowed:
        return _stuck(draft, row, step, calls, f"{_names(calls)} {same} times in a row")
    if circle >= 2 * allowed - 2:
        return _stuck(draft, row, step, calls, f"the same two turns {allowed} times each, {_names(calls)} last")
    return Verdict()


def _stuck(draft: Draft, row: StepRow, step: Step, calls: Sequence[Call], what: str) -> Verdict:
    used = row.counters.get(FailureKind.NO_PROGRESS, 0)
    policy = recovery.changed(step, FailureKind.NO_PROGRESS, used=used)
    if policy is None or not changing.affordable(draft):
        return Verdict(failure=failed(f"The agent did {what}, with the same arguments and the same results"))
    row.counters = {**row.counters, FailureKind.NO_PROGRESS: used + 1, SAME: 0, CIRCLE: 0}
    note = (
        f"You have done {what}, with the same arguments and the same result: doing it again will change nothing. "
        "Try something else, or give your final answer with what you have."
    )
    record = recovery.record(
        FailureKind.NO_PROGRESS,
        policy,
        change=CHANGES[Action.NOTE],
        diff=[f"+ note: {note}"],
        message=f"The agent did {what}, with the same arguments and the same results.",
        used=used + 1,
    )
    changing.told(draft, calls[-1], record)
    return Verdict(notes=(note,), records=(record,))


def failed(what: str) -> Failure:
    return Failure(
        kind=FailureKind.NO_PROGRESS,
        message=f"{what}: it went in circles.",
        fix="Say in its instructions when to stop, let the tool say what to do instead, or give the agent "
        "`finish: gracefully`.",
    )


def _digest(calls: Sequence[Call], results: Sequence[bytes]) -> int:
    whole = hashlib.sha256()
    for call, result in zip(calls, results, strict=True):
        whole.update(f"{call.tool}\x1f{call.args_sha256}\x1f".encode("utf-8", "surrogatepass") + result)
    return int.from_bytes(whole.digest()[:_DIGEST_BYTES])


def _names(calls: Sequence[Call]) -> str:
    return " and ".join(dict.fromkeys(wire_name(call.tool or "") for call in calls))
