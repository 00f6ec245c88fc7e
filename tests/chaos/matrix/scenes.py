"""How a victim is brought to its line: one function for each scene, from an idle lane to “all are there”.

    call      workers: a tool or model call of each kind
    undo      the same for compensations            probe     the probe of two mails: one was sent, one was not
    sweep     a first worker has died with all of them in flight; the second, which sweeps, is the victim
    follow    workers: a call whose record is at the line, with the next one of its workflow to be claimed by it
    deliver   webhooks, one stream each

What API processes do is in `requests.py`. Each returns the victim, standing at the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.matrix import requests, workloads
from tests.chaos.matrix.ordering import order_for
from tests.chaos.matrix.round import REACH_WITHIN, Invalid, Round
from tests.chaos.matrix.stack import Process
from tests.chaos.matrix.standstill import TOOLS_AND_MODELS, Order
from tests.e2e.driver import Row, until, uuid_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    lead: Callable[[Round], Process]
    kinds: tuple[str, ...] = TOOLS_AND_MODELS
    """Of the call that stands at the line."""
    judged: tuple[str, ...] = TOOLS_AND_MODELS
    """Of the call whose attempts are counted."""
    statuses: frozenset[str] | None = None
    """How its workflows end, if not as the table says."""
    ways: frozenset[str] | None = None
    """How its cases end, if not as the table says."""


# --- workers -------------------------------------------------------------------------------------------------------


def call(round_: Round) -> Process:
    victim = _victim(round_, kinds=TOOLS_AND_MODELS)
    _keep_back(round_)
    for case in round_.cases:
        round_.submit(case, _single(round_, case.effect))
    _until_reached(round_, victim)
    _until_kept_back(round_)
    return victim


def follow(round_: Round) -> Process:
    victim = _victim(round_, kinds=TOOLS_AND_MODELS)
    for case in round_.cases:
        document = workloads.following(round_.lane.tools.url, case.effect, timeout=round_.timeout, settle=round_.settle)
        round_.submit(case, document)
    _until_reached(round_, victim)
    if round_.boundary.point in _INTENT_COMMITTED:
        _require_intents(round_)
    return victim


def undo(round_: Round) -> Process:
    victim = _victim(round_, kinds=("compensation",))
    _keep_back(round_)
    for case in round_.cases:
        round_.submit(
            case,
            workloads.undoing(round_.lane.tools.url, case.effect, timeout=round_.timeout, settle=round_.settle),
        )
    _until_reached(round_, victim)
    _until_kept_back(round_)
    return victim


def probe(round_: Round) -> Process:
    """The first half of the mails was sent and its answer lost, the rest never arrived."""
    first = round_.lane.victim(Order(point="read.before", count=len(round_.cases)))
    round_.victims.append(first)
    half = len(round_.cases) // 2
    for number, case in enumerate(round_.cases):
        _hold(round_, case, when="after" if number < half else "before")
        round_.submit(case, _single(round_, case.effect))
    _until_reached(round_, first)
    until("the tool holds them", lambda: round_.all_held)
    return _second(round_, first, kinds=("probe",))


def sweep(round_: Round) -> Process:
    first = round_.lane.victim(Order(point="send.after", count=len(round_.cases)))
    round_.victims.append(first)
    for case in round_.cases:
        round_.submit(case, _single(round_, case.effect))
    _until_reached(round_, first)
    return _second(round_, first, kinds=TOOLS_AND_MODELS)


def deliver(round_: Round) -> Process:
    victim = _victim(round_, kinds=TOOLS_AND_MODELS)
    hook = {"url": round_.lane.receiver.url, "events": ["workflow.*"]}
    for case in round_.cases:
        round_.submit(case, _single(round_, case.effect), webhook=hook)
    _until_reached(round_, victim, streams=True)
    return victim


SCENES: Final[Mapping[str, Scene]] = {
    "call": Scene(lead=call),
    "follow": Scene(lead=follow),
    "undo": Scene(lead=undo, kinds=("compensation",), judged=("compensation",), statuses=frozenset({"failed"})),
    "probe": Scene(lead=probe, kinds=("probe",)),
    "sweep": Scene(lead=sweep),
    "deliver": Scene(lead=deliver),
    "submit": Scene(lead=requests.submit),
    "cancel": Scene(lead=requests.cancel, statuses=frozenset({"cancelled"})),
    "resolve": Scene(lead=requests.resolve, ways=frozenset({"doubt"})),
    "approve": Scene(lead=requests.approve),
}

_INTENT_COMMITTED: Final = ("record.committed", "record.reply_lost")
"""Points at which the next call has been claimed with the record."""
_INTENDED: Final = "SELECT FROM calls WHERE workflow_id = %(workflow)s AND step = %(step)s AND state = 'intended'"

# --- inside --------------------------------------------------------------------------------------------------------


def _victim(round_: Round, *, kinds: tuple[str, ...]) -> Process:
    victim = round_.lane.victim(order_for(round_.boundary, count=len(round_.cases), kinds=kinds))
    round_.victims.append(victim)
    return victim


def _second(round_: Round, first: Process, *, kinds: tuple[str, ...]) -> Process:
    """The second is at work when the first dies, so that it finds all of what is lost in one sweep."""
    second = _victim(round_, kinds=kinds)
    first.channel.say(do="kill")
    round_.lane.stack.nursery.reap(first.pid)
    round_.victims.remove(first)
    first.channel.close()
    round_.lane.tools.release(drop=True)
    round_.note("kill", pids=[first.pid])
    round_.lane.prove_dead(first.pid)
    _until_reached(round_, second)
    return second


def _single(round_: Round, effect: str) -> Row:
    return workloads.single(round_.lane.tools.url, effect, timeout=round_.timeout, settle=round_.settle)


def _keep_back(round_: Round) -> None:
    if round_.boundary.hold is not None:
        for case in round_.cases:
            _hold(round_, case, when=round_.boundary.hold)


def _hold(round_: Round, case: workloads.Case, *, when: str) -> None:
    round_.lane.tools.behave(tool=case.demo, where=dict(case.where), do="hold", when=when)


def _until_kept_back(round_: Round) -> None:
    if round_.boundary.hold is not None:
        until("the tool holds them", lambda: round_.all_held)


def _until_reached(round_: Round, victim: Process, *, streams: bool = False) -> None:
    """The victim stands at its line, with the calls of exactly these workflows."""
    try:
        told = victim.channel.hear(within=REACH_WITHIN)
    except (TimeoutError, EOFError) as error:
        raise Invalid(f"{victim.name} never came to its line ({type(error).__name__}); its log: {victim.log}") from None
    if streams:
        return
    wanted = {str(uuid_of(workflow)) for workflow in round_.workflows}
    for ids in (told["calls"], told["batch"]):
        if ids and (found := _workflows_of(round_, ids)) != wanted:
            raise Invalid(
                f"{len(found & wanted)} of {len(wanted)} cases came to {told['reached']}, {len(found - wanted)} others"
            )


def _require_intents(round_: Round) -> None:
    """A machine so busy that the calls have had their turn in their places claims nothing with a record."""
    for case in round_.cases:
        if not round_.lane.there(_INTENDED, workflow=uuid_of(case.workflow), step=case.effect):
            raise Invalid(f"the next call of {case.tag} was not claimed with the record of the one before")


def _workflows_of(round_: Round, ids: Sequence[str]) -> set[str]:
    """Of calls or workflows."""
    rows: list[dict[str, Any]] = round_.lane.rows(
        "SELECT id FROM workflows WHERE id = ANY(%(ids)s::uuid[]) UNION "
        "SELECT workflow_id FROM calls WHERE id = ANY(%(ids)s::uuid[])",
        ids=list(ids),
    )
    return {str(row["id"]) for row in rows}
