"""What may have become of a case, for each word in the boundary table, and what did.

    Ending     how one case ended, read from its rows: status, attempts, probes, doubts
    ENDINGS    word → (statuses, for each kind of effect the ways it may have ended)

A way: `once` (one attempt sufficed), `again` (repeated by the rules), `probed` (the tool was asked what it had done),
`doubt` (a person was asked). What the world says about it is the oracle's; this says that the *right* rule was used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.matrix.lane import Lane
from tests.chaos.matrix.workloads import Case
from tests.e2e.driver import uuid_of

ONCE, AGAIN, PROBED, DOUBT = "once", "again", "probed", "doubt"
WAYS: Final = (ONCE, AGAIN, PROBED, DOUBT)

Allowed = Mapping[str, frozenset[str]]


def _ways(*, safe: str, post: str, mail: str) -> Allowed:
    """`safe`: read_only, idempotent, keyed and model calls."""
    told = {"look": safe, "clear": safe, "book": safe, "model": safe, "post": post, "mail": mail}
    return {effect: frozenset(ways.split()) for effect, ways in told.items()}


def _each(**ways: str) -> Allowed:
    return {effect: frozenset(told.split()) for effect, told in ways.items()}


_DONE: Final = frozenset({"succeeded"})

ENDINGS: Final[Mapping[str, tuple[frozenset[str], Allowed]]] = {
    # nobody was in its way, or what stood there was harmless: one attempt, and everything is known
    "untouched": (_DONE, _ways(safe=ONCE, post=ONCE, mail=ONCE)),
    # its sender is gone, and nobody can know what it had sent: the class decides
    "lost": (_DONE, _ways(safe=AGAIN, post=PROBED, mail=DOUBT)),
    # a harmless call is made again; what comes after it was never begun
    "again": (_DONE, _ways(safe=AGAIN, post=AGAIN, mail=AGAIN)),
    # a zombie comes back: it stops itself, or its answer counts, or somebody was quicker
    "any": (_DONE, _ways(safe="once again", post="once again probed", mail="once again doubt")),
    # a defect of ours before the first byte: nothing happened, for certain, and the step says so
    "refused": (frozenset({"failed"}), _ways(safe=ONCE, post=ONCE, mail=ONCE)),
    # a defect of ours after the tool may have acted: what changes nothing fails, for the rest the doubt is honest
    "lost-here": (
        frozenset({"succeeded", "failed"}),
        _each(look="once", clear="doubt", book="doubt", post="probed", mail="doubt", model="once"),
    ),
    # the same where something is undone: an undo that fails is on the work-list, and is tried again by a person
    "undo-refused": (_DONE, _ways(safe="once again", post="once again", mail="once again")),
    "undo-lost-here": (
        _DONE,
        _each(look="once again", clear="doubt", book="doubt", post="probed", mail="doubt", model="once"),
    ),
    # the tool's probe is asked, until it has told
    "probed": (_DONE, _each(post="probed")),
    # the connection broke after the request had left
    "cut": (_DONE, _ways(safe=AGAIN, post=PROBED, mail=DOUBT)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    status: str
    attempts: int
    probes: tuple[str, ...]
    doubts: int

    @property
    def way(self) -> str:
        if self.doubts:
            return DOUBT
        if self.probes:
            return PROBED
        return AGAIN if self.attempts > 1 else ONCE

    def __str__(self) -> str:
        probes = f", probed {'/'.join(self.probes)}" if self.probes else ""
        doubts = ", in doubt" if self.doubts else ""
        return f"{self.status} after {self.attempts} attempts{probes}{doubts}"


_ENDING: Final = """
SELECT w.status,
  (SELECT coalesce(max(c.attempts), 0) FROM calls c
    WHERE c.workflow_id = w.id AND c.kind = ANY(%(kinds)s)) AS attempts,
  ARRAY(SELECT e.data->>'verdict' FROM events e
    WHERE e.workflow_id = w.id AND e.type = 'effect.probed' ORDER BY e.seq) AS probes,
  (SELECT count(*) FROM events e WHERE e.workflow_id = w.id AND e.type = 'effect.in_doubt') AS doubts
FROM workflows w WHERE w.id = %(workflow)s"""


def ending_of(lane: Lane, case: Case, *, kinds: tuple[str, ...]) -> Ending:
    """`kinds`: of the call that the case is about."""
    row: dict[str, Any] = lane.rows(_ENDING, workflow=uuid_of(case.workflow), kinds=list(kinds))[0]
    return Ending(
        status=row["status"], attempts=row["attempts"], probes=tuple(row["probes"] or ()), doubts=row["doubts"]
    )


def wrong(
    word: str,
    case: Case,
    ending: Ending,
    *,
    statuses: frozenset[str] | None = None,
    ways: frozenset[str] | None = None,
) -> str | None:
    """What is not as the table says, in words. `statuses`, `ways`: of a scene that ends in another way."""
    expected, by_effect = ENDINGS[word]
    if ending.status not in (statuses or expected):
        return f"it is {ending.status}, expected {' or '.join(sorted(statuses or expected))} ({ending})"
    allowed = ways or by_effect[case.effect]
    if ending.way not in allowed:
        return f"it ended by {ending.way}, “{word}” means {' or '.join(sorted(allowed))} ({ending})"
    return None
