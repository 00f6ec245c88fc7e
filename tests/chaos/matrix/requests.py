"""Scenes in an API process: clients whose requests stand at the line, and who repeat them afterwards, as clients must.

    submit    POST /v1/workflows        cancel    while the tool keeps the answers of what is in flight
    resolve   a doubt: it happened      approve   what waits for a person

The victim is another API over the same database; the rescuer is at work from the beginning. After the fault every
client asks the lane's own API until it is told yes: the same key, or the same word, must never count twice.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from app.domain import ids
from app.embedded import listening
from tests.chaos.matrix import workloads
from tests.chaos.matrix.lane import Answer
from tests.chaos.matrix.ordering import order_for
from tests.chaos.matrix.round import REACH_WITHIN, Invalid, Round
from tests.chaos.matrix.stack import Process
from tests.chaos.matrix.workloads import Case
from tests.chaos.oracle.ledgers import Resolution
from tests.e2e.driver import Row, until, uuid_of

YES: Final = (200, 202)
INSIST_WITHIN: Final = 30.0

Ask = Callable[[Case, Any], Answer]
"""One request of the client of a case, to the API that listens there (None: the lane's own)."""


def submit(round_: Round) -> Process:
    round_.lane.rescue(on=True)

    def ask(case: Case, listener: Any) -> Answer:
        document = workloads.single(round_.lane.tools.url, case.effect, timeout=round_.timeout, settle=round_.settle)
        body = {"definition": document, "input": {"tag": case.tag}}
        try:
            answer = round_.lane.post("/v1/workflows", body, key=case.key, listener=listener)
        except (OSError, http.client.HTTPException):
            round_.accepted(case, None, status=None)
            raise
        round_.accepted(case, answer.json["id"] if answer.status in YES else None, status=answer.status)
        return answer

    return _at_the_line(round_, ask)


def cancel(round_: Round) -> Process:
    round_.lane.rescue(on=True)
    for case in round_.cases:
        round_.lane.tools.behave(tool=case.demo, where=dict(case.where), do="hold", when="after")
        _submit(round_, case)
    round_.lane.ring_through()
    until("the tools hold the answers", lambda: round_.all_held)

    def ask(case: Case, listener: Any) -> Answer:
        return round_.lane.post(f"/v1/workflows/{case.workflow}/cancel", {}, listener=listener)

    return _at_the_line(round_, ask)


def resolve(round_: Round) -> Process:
    round_.lane.rescue(on=True)
    effects: dict[str, str] = {}
    for case in round_.cases:
        round_.lane.tools.behave(tool=case.demo, where=dict(case.where), do="drop_reply")
        _submit(round_, case, on_unknown_outcome="ask")
    round_.lane.ring_through()
    wanted = "SELECT id FROM calls WHERE workflow_id = %(workflow)s AND state = 'in_doubt'"
    for case in round_.cases:
        found = until("it is in doubt", lambda case=case: round_.lane.rows(wanted, workflow=uuid_of(case.workflow)))
        effects[case.tag] = ids.encode("call", found[0]["id"])

    def ask(case: Case, listener: Any) -> Answer:
        effect = effects[case.tag]
        body = {"outcome": "happened", "note": "looked into the tool's books", "result": {"seen": case.tag}}
        answer = round_.lane.post(f"/v1/effects/{effect}/resolve", body, listener=listener)
        round_.resolutions.append(Resolution(effect=effect, outcome="happened", status=answer.status))
        return answer

    round_.note("drop_reply", marks=[case.tag for case in round_.cases])
    return _at_the_line(round_, ask)


def approve(round_: Round) -> Process:
    round_.lane.rescue(on=True)
    asked: dict[str, Row] = {}
    for case in round_.cases:
        round_.submit(
            case, workloads.gated(round_.lane.tools.url, case.effect, timeout=round_.timeout, settle=round_.settle)
        )
    wanted = "SELECT id, revision FROM approvals WHERE workflow_id = %(workflow)s AND status = 'open'"
    for case in round_.cases:
        found = until("a person is asked", lambda case=case: round_.lane.rows(wanted, workflow=uuid_of(case.workflow)))
        asked[case.tag] = found[0]

    def ask(case: Case, listener: Any) -> Answer:
        approval = asked[case.tag]
        body = {"decision": "approve", "revision": approval["revision"]}
        return round_.lane.post(f"/v1/approvals/{ids.encode('apr', approval['id'])}/decision", body, listener=listener)

    return _at_the_line(round_, ask)


def _submit(round_: Round, case: Case, **step: Any) -> None:
    tools = round_.lane.tools.url
    round_.submit(case, workloads.single(tools, case.effect, timeout=round_.timeout, settle=round_.settle, **step))


# --- clients -------------------------------------------------------------------------------------------------------


def _at_the_line(round_: Round, ask: Ask) -> Process:
    """Every client's request stands at the line in the victim; `round_.insist` is what they do afterwards."""
    listener = listening.listen("127.0.0.1", 0)
    victim = round_.lane.victim_api(order_for(round_.boundary, count=len(round_.cases)), listener)
    round_.victims.append(victim)
    clients = [threading.Thread(target=_once, args=(ask, case, listener), daemon=True) for case in round_.cases]
    for client in clients:
        client.start()

    def insist() -> None:
        for case in round_.cases:
            _insist(ask, case)

    def leave() -> None:
        listener.close()
        for client in clients:
            client.join(INSIST_WITHIN)

    round_.insist, round_.leave = insist, leave
    try:
        told = victim.channel.hear(within=REACH_WITHIN)
    except (TimeoutError, EOFError) as error:
        raise Invalid(f"{victim.name} never came to its line ({type(error).__name__}); its log: {victim.log}") from None
    if len(told["calls"]) != len(round_.cases):
        raise Invalid(f"{len(told['calls'])} of {len(round_.cases)} requests came to {told['reached']}")
    return victim


def _once(ask: Ask, case: Case, listener: Any) -> None:
    try:
        ask(case, listener)
    except (OSError, http.client.HTTPException):
        return  # nobody knows whether it was accepted: asked again


def _insist(ask: Ask, case: Case) -> None:
    end, last = time.monotonic() + INSIST_WITHIN, ""
    pause = threading.Event()
    while time.monotonic() < end:
        try:
            answer = ask(case, None)
            if answer.status in YES:
                return
            last = f"{answer.status} {answer.text.decode()[:300]}"
        except (OSError, http.client.HTTPException) as error:
            last = f"{type(error).__name__}: {error}"
        pause.wait(0.2)
    raise AssertionError(f"the client of {case.tag} was never told yes: {last}")


__all__: Sequence[str] = ("approve", "cancel", "resolve", "submit")
