"""Every line at which a process may die, in one table: where it is, how it is reached, what must hold after it.

    Boundary    a name, the point in the program (`points.py`), the scene that leads there (`scenes.py`), and for each
                fault the word for what must hold then (`endings.py`)
    FAULTS      what happens at the line: kill, freeze, coma, raise, postgres

A point is reached by all calls of a scene together, one for each kind of effect: each of them is a case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

KILL, FREEZE, COMA, RAISE, POSTGRES = "kill", "freeze", "coma", "raise", "postgres"

FAULTS: Final[Mapping[str, str]] = {
    KILL: "SIGKILL on itself; its parent has waited for it and says so",
    FREEZE: "SIGSTOP on itself for longer than its lease; SIGCONT when others have taken over",
    COMA: "SIGSTOP on itself; SIGCONT when everything is over, doubts included",
    RAISE: "an exception at that line",
    POSTGRES: "Postgres stops at once (no checkpoint) and starts again while it stands at that line",
}

CLASSES: Final = ("look", "clear", "book", "post", "mail")
"""The tool of each effect class in `tests/e2e/catalogue.py`: read_only, idempotent, keyed, checkable, at_most_once."""
MODEL: Final = "model"
EVERY: Final = (*CLASSES, MODEL)
EFFECTS: Final = ("clear", "book", "post", "mail")
"""What changes nothing neither undoes anything nor is ever in doubt."""
MAILS: Final = ("post", "post")
SENDING: Final = ("call", "follow")
"""Scenes in which a call is at its line, or the one before it: what a frozen process would still send is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    name: str
    says: str
    """The line, in words."""
    point: str
    scene: str
    cases: tuple[str, ...]
    after: Mapping[str, str]
    """Fault → the word for what must hold (`endings.ENDINGS`). A fault that is not listed makes no sense there."""
    hold: str | None = None
    """The tool keeps the request (`before` it executes) or the answer (`after`) back."""
    then: str = "drop"
    """What becomes of what the tool keeps back, after the fault: `drop`, or `release` (it takes effect late)."""
    locks: bool = False
    """Inside a transaction: a frozen process holds its locks until it is thawed, and nobody can take over."""
    beside: bool = False
    """Its calls do not stand at the line: they may be inside a transaction just then, which a frozen process holds open
    as at a line that `locks`."""


def _line(
    name: str,
    at: str,
    words: str,
    says: str,
    *,
    scene: str,
    cases: tuple[str, ...],
    hold: str | None = None,
    then: str = "drop",
    locks: bool = False,
    beside: bool = False,
) -> Boundary:
    """`words`: after kill, freeze, raise and postgres; `-`: no such case."""
    after = {
        fault: word for fault, word in zip((KILL, FREEZE, RAISE, POSTGRES), words.split(), strict=True) if word != "-"
    }
    if scene in SENDING and KILL in after and not locks:
        after[COMA] = after[KILL]  # nobody knows that it is frozen: as good as dead, only later
    return Boundary(
        name=name,
        says=says,
        point=at,
        scene=scene,
        cases=cases,
        after=after,
        hold=hold,
        then=then,
        locks=locks,
        beside=beside,
    )


SAME: Final = "untouched untouched untouched untouched"
"""Nothing was begun, or everything is committed: whatever happens there, nobody notices."""

_call = partial(_line, scene="call", cases=EVERY)
_follow = partial(_line, scene="follow", cases=EVERY)
_sweep = partial(_line, scene="sweep", cases=EVERY)
_probe = partial(_line, scene="probe", cases=MAILS)
_undo = partial(_line, scene="undo", cases=EFFECTS)
_deliver = partial(_line, scene="deliver", cases=CLASSES, beside=True)


def _request(scene: str, what: str, *, purpose: str, cases: tuple[str, ...]) -> tuple[Boundary, ...]:
    """The lines of a request that changes something, in the API's process."""
    line = partial(_line, scene=scene, cases=cases)
    # What is in flight elsewhere when Postgres goes away may lose its lease with it.
    same = SAME if purpose == "submit" else "untouched untouched untouched any"
    return (
        line(f"{scene}.begin", f"{purpose}.begin", same, f"{what}: before its transaction"),
        line(f"{scene}.written", f"{purpose}.applied", same, f"{what}: written, before COMMIT", locks=True),
        line(f"{scene}.committed", f"{purpose}.committed", same, f"{what}: committed, before the answer"),
        line(f"{scene}.reply_lost", f"{purpose}.reply_lost", "- - untouched -", f"{what}: the reply of COMMIT is lost"),
    )


BOUNDARIES: Final[tuple[Boundary, ...]] = (
    *_request("submit", "a submission", purpose="submit", cases=EVERY),
    # what a worker does with a call
    _call("ring.received", "perform", SAME, "the doorbell has been heard, nothing is claimed"),
    _call("claim.before", "claim.begin", "untouched any untouched any", "before the claim's statement"),
    _call(
        "claim.committed",
        "claim.committed",
        "lost any lost any",
        "the intent is committed, the worker does not know it",
    ),
    _call(
        "claim.reply_lost",
        "claim.reply_lost",
        "- - untouched -",
        "the intent is committed, the reply of its COMMIT is lost",
    ),
    _call("send.before", "send.before", "lost any refused any", "the request is made, no connection yet"),
    _call(
        "send.connected",
        "write.before",
        "lost any refused any",
        "connected, before the self-fence and the first byte",
        cases=CLASSES,
    ),
    _call("send.first_byte", "write.after", "lost any lost-here any", "the first bytes have left", cases=CLASSES),
    _call(
        "tool.asked",
        "read.before",
        "lost any lost-here cut",
        "in the tool, before it executes; it never takes effect",
        cases=CLASSES,
        hold="before",
    ),
    _call(
        "tool.late",
        "read.before",
        "lost any lost-here untouched",
        "in the tool, before it executes; it takes effect late",
        cases=CLASSES,
        hold="before",
        then="release",
    ),
    _call(
        "tool.executed",
        "read.before",
        "lost any lost-here cut",
        "in the tool, executed, before its reply",
        cases=CLASSES,
        hold="after",
    ),
    _call("reply.received", "send.after", "lost any lost-here any", "the reply is here, known to nobody else"),
    _call("record.before", "record.before", "lost any lost any", "the outcome is known, not yet handed in"),
    _call("record.begin", "record.begin", "lost any untouched untouched", "before the record's transaction"),
    _call(
        "record.locked",
        "record.locked",
        "lost any untouched untouched",
        "the workflows are locked, nothing is written",
        locks=True,
    ),
    _call(
        "record.applied",
        "record.applied",
        "lost any untouched untouched",
        "everything is written, before COMMIT",
        locks=True,
    ),
    _call("record.committed", "record.committed", SAME, "committed, before anybody is told"),
    _call("record.reply_lost", "record.reply_lost", "- - untouched -", "committed, the reply of COMMIT is lost"),
    # the record that claims the next call of its workflow
    _follow(
        "follow.locked",
        "record.locked",
        "again any untouched untouched",
        "the workflow is locked, the outcome is not written",
        locks=True,
    ),
    _follow(
        "follow.applied",
        "record.applied",
        "again any untouched untouched",
        "the outcome is written, its next call not yet claimed",
        locks=True,
    ),
    _follow(
        "follow.committed",
        "record.committed",
        "lost any untouched any",
        "the outcome and the intent of the next call are committed, the worker does not know it",
    ),
    _follow(
        "follow.reply_lost",
        "record.reply_lost",
        "- - untouched -",
        "the outcome and the intent of the next call are committed, the reply of COMMIT is lost",
    ),
    # the sweep, after another worker died with all of them in flight
    _sweep("sweep.taken", "sweep.taken", "lost lost lost lost", "lost attempts are taken, nothing is decided"),
    _sweep(
        "sweep.locked",
        "sweep.locked",
        "lost lost lost lost",
        "their workflows are locked, nothing is decided",
        locks=True,
    ),
    _sweep("sweep.decided", "sweep.applied", "lost lost lost lost", "the class has decided, before COMMIT", locks=True),
    _sweep("sweep.committed", "sweep.committed", "lost lost lost lost", "decided and committed, nobody is told"),
    # the probe of two mails, one of which was sent
    _probe("probe.before", "send.before", "probed probed probed probed", "the probe is claimed, not asked"),
    _probe("probe.first_byte", "write.after", "probed probed probed probed", "the probe's first bytes have left"),
    _probe("probe.answered", "send.after", "probed probed probed probed", "the probe has told, nobody knows it"),
    _probe(
        "probe.recorded",
        "record.applied",
        "probed probed probed probed",
        "what the probe told is written, before COMMIT",
        locks=True,
    ),
    _probe("probe.committed", "record.committed", "probed probed probed probed", "what the probe told is committed"),
    # a compensation
    _undo("undo.before", "send.before", "lost any undo-refused any", "the compensation is claimed, not sent"),
    _undo("undo.first_byte", "write.after", "lost any undo-lost-here any", "the compensation's first bytes have left"),
    _undo(
        "undo.executed", "read.before", "lost any undo-lost-here cut", "undone, before the tool's reply", hold="after"
    ),
    _undo(
        "undo.answered", "send.after", "lost any undo-lost-here any", "undone, the reply is here, known to nobody else"
    ),
    _undo(
        "undo.recorded",
        "record.applied",
        "lost any untouched untouched",
        "the undo is written, before COMMIT",
        locks=True,
    ),
    _undo("undo.committed", "record.committed", SAME, "the undo is committed, before anybody is told"),
    # webhooks: a delivery stands at the line while the call of its workflow is anywhere; a record may just have locked
    # the workflows, and a frozen process keeps all of them
    _deliver("deliver.before", "deliver.before", "any any untouched any", "the delivery is taken, not sent"),
    _deliver(
        "deliver.answered", "deliver.after", "any any untouched any", "the receiver has said 2xx, nobody knows it"
    ),
    _deliver(
        "deliver.recorded",
        "deliver.applied",
        "any any untouched any",
        "delivered and written, before COMMIT",
        locks=True,
    ),
    _deliver(
        "deliver.committed",
        "deliver.committed",
        "any any untouched any",
        "delivered and committed, the next one is not rung for",
    ),
    *_request("cancel", "a cancel", purpose="operate", cases=CLASSES),
    *_request("resolve", "a person's word about a doubt", purpose="operate", cases=EFFECTS),
    *_request("approve", "a person's yes", purpose="operate", cases=CLASSES),
)
BY_NAME: Final[Mapping[str, Boundary]] = {boundary.name: boundary for boundary in BOUNDARIES}
