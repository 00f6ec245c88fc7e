"""The demo tools as declared, and the examples that use them: each promise of the ledger has one to show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check, check_declaration
from app.domain.definition.compiling import compile_plan
from app.domain.definition.source import read_text
from app.domain.plan import Plan
from app.domain.states import EffectClass
from app.embedded.tools import declarations

EXAMPLES = Path(__file__).parents[2] / "examples"
DECLARED = declarations("http://127.0.0.1:1")
CATALOGUE = Catalogue(tools=DECLARED, models={"fast": "claude-fast-1", "smart": "claude-smart-1"})


def plan_of(name: str) -> Plan:
    source = read_text((EXAMPLES / name).read_text())
    checked = check(source.tree, lines=source.lines, source_name=name, catalogue=CATALOGUE)
    assert (checked.faults, checked.warnings) == ((), ())
    assert checked.plan_body is not None
    return compile_plan(checked.plan_body)


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_declared_tool_can_be_registered(name: str) -> None:
    assert check_declaration(name, DECLARED[name], catalogue=Catalogue()) == ()


def test_declared_tools_are_of_every_class_that_promises_something() -> None:
    classes = {tool["effect"] for tool in DECLARED.values()}

    assert classes == {effect.value for effect in EffectClass} - {"at_most_once"}


def test_every_tool_that_a_model_could_use_twice_by_mistake_has_a_probe_or_a_key() -> None:
    for name, tool in DECLARED.items():
        assert tool["effect"] in ("read_only", "idempotent") or "probe" in tool, name


def test_payment_undoes_what_it_did_and_holds_once_money_has_moved() -> None:
    plan = plan_of("payment.yaml")

    undone = {step.id: step.compensate.tool for step in plan.steps.values() if step.compensate is not None}
    assert undone == {"authorize": "payments.void", "settle": "payments.refund"}
    assert [step.id for step in plan.steps.values() if step.pivot] == ["settle"]
    assert plan.compensate_on == {"failure", "cancel"}
    assert not any(step.agent for step in plan.steps.values())


def test_payment_checks_at_once_and_settles_after_every_check() -> None:
    plan = plan_of("payment.yaml")

    checks = {"velocity", "sanctions", "device"}
    assert all(plan.steps[name].needs == {"authorize"} for name in checks)
    assert plan.steps["settle"].needs == checks | {"authorize"}


def test_meeting_takes_its_event_out_again() -> None:
    step = plan_of("meeting-scheduler.yaml").steps["create_event"]

    assert step.compensate is not None
    undo = step.compensate.arguments.render({"arguments": {}, "input": {}, "output": {"event_id": "evt_1"}})
    assert (step.compensate.tool, undo) == ("calendar.delete_event", {"event_id": "evt_1"})


def test_mail_is_looked_for_as_it_was_sent_with_or_without_a_body() -> None:
    mail = plan_of("meeting-scheduler.yaml").tools["email.send"]
    assert mail.probe is not None
    sent = {"to": "ana@x.io", "subject": "Sync"}

    asked = [
        mail.probe.arguments.render({"arguments": one, "input": {}, "key": None})
        for one in (sent, {**sent, "body": "b"})
    ]

    assert asked == [{**sent, "body": "", "mine": True}, {**sent, "body": "b", "mine": True}]
