"""Probes, ownership, undoing and results that come later, with real processes, judged by the tools' own books."""

from __future__ import annotations

import pytest

from tests.e2e import oracle
from tests.e2e.driver import REPOSITORY, Row, until, uuid_of
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

MEETING = REPOSITORY / "examples" / "meeting-scheduler.yaml"
PAYMENT = REPOSITORY / "examples" / "payment.yaml"


# --- probes --------------------------------------------------------------------------------------------------------


def test_checkable_mail_is_found_by_its_probe_when_its_worker_is_killed_after_it_was_sent(scene: Scene) -> None:
    mail = scene.submit_held("post", when="after", settle="20s")
    until("the mail is sent, its answer is not", lambda: scene.executed(mail) == 1)

    scene.up.kill(scene.worker_of(mail))

    scene.up.until_status(mail.workflow, "succeeded")
    assert scene.executed(mail) == 1
    (sent,) = scene.entries(mail)
    assert scene.up.step(mail.workflow, "post")["output"] == {"message_id": sent["result"]["message_id"]}
    assert _probes(scene, mail) == ["found"]


def test_checkable_mail_is_sent_again_only_after_the_quarantine_when_it_never_arrived(scene: Scene) -> None:
    mail = scene.submit_held("post", when="before", settle="4s")
    scene.until_held(mail)

    scene.up.kill(scene.worker_of(mail))
    until("the probe has looked in vain", lambda: "absent" in _probes(scene, mail))
    assert [row["state"] for row in _attempts(scene, mail)] == ["probing"]
    scene.tools.release(drop=True)

    scene.up.until_status(mail.workflow, "succeeded")
    first, second = _attempts(scene, mail)
    (row,) = scene.up.rows("SELECT not_before FROM calls WHERE id = %s", first["call_id"])
    assert second["intended_at"] >= row["not_before"]
    assert scene.executed(mail) == 1


def test_late_mail_settles_its_call_when_it_arrives_within_the_quarantine(scene: Scene) -> None:
    mail = scene.submit_held("post", when="before", settle="30s")
    scene.until_held(mail)
    scene.up.kill(scene.worker_of(mail))
    until("the probe has looked in vain", lambda: "absent" in _probes(scene, mail))

    scene.tools.release()

    scene.up.until_status(mail.workflow, "succeeded")
    assert scene.executed(mail) == 1
    assert len(_attempts(scene, mail)) == 1


def _attempts(scene: Scene, call: Held) -> list[Row]:
    """Of the call itself, without its probes."""
    return [row for row in scene.up.attempts(call.workflow) if row["tool"] == call.tool]


def _probes(scene: Scene, call: Held) -> list[str]:
    told = (
        "SELECT data->>'verdict' AS verdict FROM events WHERE workflow_id = %s AND type = 'effect.probed' ORDER BY seq"
    )
    return [row["verdict"] for row in scene.up.rows(told, uuid_of(call.workflow))]


# --- ownership -----------------------------------------------------------------------------------------------------


def test_ten_workflows_with_one_business_key_book_once_and_share_the_result(scene: Scene) -> None:
    tag = scene.tag()
    workflows = [_book(scene, tag) for _ in range(10)]

    outputs = {scene.up.until_status(each, "succeeded")["output"]["event_id"] for each in workflows}

    booked = [entry for entry in scene.tools.ledger() if entry["arguments"].get("title") == tag and entry["executed"]]
    assert len(booked) == 1
    assert outputs == {booked[0]["result"]["event_id"]}
    totals = [scene.up.workflow(each)["effects"] for each in workflows]
    assert sum(each["done"] for each in totals) == 1
    assert sum(each["duplicates_prevented"] for each in totals) == 9
    oracle.check_rows(scene.up.ready["database_url"], [uuid_of(each) for each in workflows])


def _book(scene: Scene, tag: str) -> str:
    step = {
        "tool": "calendar.create_event",
        "idempotency_key": "meeting:${{ input.tag }}",
        "with": {"title": "${{ input.tag }}", "start": "2026-12-01T10:00:00Z", "attendees": ["ana@x.io"]},
    }
    document = {
        "name": "one-key",
        "input": {"tag": {"type": "string"}},
        "steps": {"book": step},
        "output": {"event_id": "${{ steps.book.output.event_id }}"},
    }
    return scene.up.submit(document, input={"tag": tag})


# --- undoing -------------------------------------------------------------------------------------------------------


def test_payment_moves_money_once_when_everything_goes_well(scene: Scene) -> None:
    workflow = _pay(scene)

    found = scene.up.until_status(workflow, "succeeded")

    assert found["output"]["balanced"] is True
    assert _done(scene, workflow) == ["payments.authorize", "payments.settle"]
    assert found["effects"]["done"] == 2
    _expect_rows_in_order(scene, workflow)


def test_payment_is_voided_when_a_fraud_check_refuses_it(scene: Scene) -> None:
    workflow = _pay(scene, card="tok_sanctions")

    found = scene.up.until_status(workflow, "failed")

    assert (found["failure"]["step"], found["compensation"]) == ("sanctions", "done")
    assert _done(scene, workflow) == ["payments.authorize", "payments.void"]
    assert (found["effects"]["done"], found["effects"]["undone"]) == (1, 1)
    _expect_rows_in_order(scene, workflow)


def test_payment_is_refunded_once_when_the_worker_is_killed_after_the_bank_did_it(scene: Scene) -> None:
    scene.tools.behave(tool="payments.reconcile", do="status", status=422, times=None)
    workflow = _pay(scene)
    held = until("it is held", lambda: _attends(scene, workflow, "failure_held"))
    assert held["status"] == "failing"
    scene.tools.behave(tool="payments.refund", do="hold", when="after")
    decided = scene.up.http.post(
        f"/v1/workflows/{workflow}/compensate", json={"mode": "undo", "note": "customer asked"}
    )
    assert decided.status_code == 202, decided.text
    until("the refund is done, its answer is not", lambda: "payments.refund" in _done(scene, workflow))

    (refund,) = [row for row in scene.up.attempts(workflow) if row["outcome"] is None]
    scene.up.kill(refund["worker_name"])

    found = scene.up.until_status(workflow, "failed", seconds=40)
    assert found["compensation"] == "done"
    assert _done(scene, workflow).count("payments.refund") == 1
    asked = [entry["tool"] for entry in scene.tools.ledger() if entry["workflow"] == workflow]
    assert asked[-1] == "payments.void", "refunded first; nothing was reserved any more, and void says so"
    assert asked.count("payments.void") == 1
    assert found["effects"]["undone"] == 2
    _expect_rows_in_order(scene, workflow)


def _pay(scene: Scene, *, card: str = "tok_visa") -> str:
    reference = scene.tag()
    body = {
        "definition_text": PAYMENT.read_text(encoding="utf-8"),
        "source_name": PAYMENT.name,
        "input": {"payment_id": reference, "amount": 4200, "card": card},
    }
    posted = scene.up.http.post("/v1/workflows", json=body, headers={"Idempotency-Key": reference})
    assert posted.status_code == 202, posted.text
    return str(posted.json()["id"])


def _attends(scene: Scene, workflow: str, what: str) -> Row | None:
    found = scene.up.workflow(workflow)
    return found if what in found["attention"] else None


def _done(scene: Scene, workflow: str) -> list[str]:
    """What its effects' tools executed, in order."""
    effects = ("payments.authorize", "payments.settle", "payments.void", "payments.refund")
    mine = [entry for entry in scene.tools.ledger() if entry["workflow"] == workflow and entry["executed"]]
    return [entry["tool"] for entry in mine if entry["tool"] in effects]


def _expect_rows_in_order(scene: Scene, workflow: str) -> None:
    oracle.check_rows(scene.up.ready["database_url"], [uuid_of(workflow)])


def test_booked_meeting_is_taken_out_again_when_its_invitations_are_refused(scene: Scene) -> None:
    tag = scene.tag()
    scene.tools.behave(tool="email.send", where={"to": f"bo-{tag}@x.io"}, do="status", status=422, times=None)
    body = {
        "definition_text": MEETING.read_text(encoding="utf-8"),
        "source_name": MEETING.name,
        "input": {
            "meeting_id": tag,
            "organizer": "kim@x.io",
            "request": f"30 min with ana-{tag}@x.io and bo-{tag}@x.io on Tuesday afternoon",
        },
    }
    posted = scene.up.http.post("/v1/workflows", json=body, headers={"Idempotency-Key": tag})
    assert posted.status_code == 202, posted.text
    workflow = posted.json()["id"]

    found = scene.up.until_status(workflow, "failed", seconds=40)

    mine = [entry for entry in scene.tools.ledger() if entry["workflow"] == workflow and entry["executed"]]
    (event,) = [entry for entry in mine if entry["tool"] == "calendar.create_event"]
    (undone,) = [entry for entry in mine if entry["tool"] == "calendar.delete_event"]
    assert undone["arguments"] == {"event_id": event["result"]["event_id"]}
    assert (found["failure"]["step"], found["effects"]["undone"]) == ("invite", 1)
    assert found["compensation"] == "partial", "a mail that was sent cannot be taken back, and nothing says it was"
    _expect_rows_in_order(scene, workflow)


# --- results that come later ---------------------------------------------------------------------------------------


def test_report_is_rendered_once_when_its_result_comes_after_a_202(scene: Scene) -> None:
    title = scene.tag()
    steps = {"report": {"tool": "reports.render", "with": {"title": "${{ input.title }}", "rows": []}}}
    document = {"name": "later", "input": {"title": {"type": "string"}}, "steps": steps}

    workflow = scene.up.submit(document, input={"title": title})

    scene.up.until_status(workflow, "succeeded")
    mine = [entry for entry in scene.tools.ledger() if entry["workflow"] == workflow]
    assert [entry["executed"] for entry in mine if entry["tool"] == "reports.render"] == [True]
    accepted = "SELECT count(*) AS n FROM events WHERE workflow_id = %s AND type = 'effect.accepted'"
    assert scene.up.rows(accepted, uuid_of(workflow)) == [{"n": 1}]
    _expect_rows_in_order(scene, workflow)
