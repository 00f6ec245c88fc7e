"""What steps and definitions say about undoing, unknown outcomes and points of no return; what a plan holds of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain.canonical import digest
from app.domain.definition.compiling import compile_plan
from app.domain.plan import Plan
from tests.domain.definition_cases import CHECKABLE, KEYED, READ, SEARCH, TOOL, checked, found

AGENT: dict[str, Any] = {"agent": {"model": "fast"}, "prompt": "hi"}
DELETE: dict[str, Any] = {**TOOL, "input_schema": {"id": {"type": "string"}}}
UNDO: dict[str, Any] = {"tool": "delete", "with": {"id": "${{ output.id }}"}}
TOOLS: dict[str, Any] = {
    "book": {**KEYED, "input_schema": {"title": {"type": "string"}}},
    "send": CHECKABLE,
    "search": SEARCH,
    "look": READ,
    "delete": DELETE,
}
BOOK: dict[str, Any] = {"tool": "book", "with": {"title": "x"}}
SEND: dict[str, Any] = {"tool": "send", "with": {"to": "a", "subject": "b"}}


def plan_of(steps: Any, **top: Any) -> Plan:
    result = checked(steps, **{"tools": TOOLS, **top})
    assert result.faults == ()
    assert result.plan_body is not None
    return compile_plan(result.plan_body)


@pytest.mark.parametrize(
    ("step", "code", "pointer"),
    [
        ({**BOOK, "compensate": {**UNDO, "tool": "delet"}}, "unknown_tool", "/compensate/tool"),
        ({**BOOK, "compensate": {"tool": "look"}}, "read_only_tool", "/compensate/tool"),
        ({**BOOK, "compensate": {"tool": "delete"}}, "invalid_argument", "/compensate"),
        ({**BOOK, "compensate": {**UNDO, "with": {"id": 5}}}, "invalid_argument", "/compensate/with/id"),
        ({**BOOK, "compensate": {**UNDO, "with": {"id": "${{ item }}"}}}, "bad_expression", "/compensate/with/id"),
        (
            {**BOOK, "compensate": {**UNDO, "with": {"id": "${{ arguments.id }}"}}},
            "unknown_field",
            "/compensate/with/id",
        ),
        ({**BOOK, "compensate": {**UNDO, "with": {"id": "${{ input.nope }}"}}}, "unknown_field", "/compensate/with/id"),
        ({**BOOK, "compensate": True}, "wrong_type", "/compensate"),
        ({"tool": "look", "compensate": UNDO}, "misplaced_key", "/compensate"),
        ({**AGENT, "compensate": UNDO}, "misplaced_key", "/compensate"),
        ({"set": {}, "compensate": UNDO}, "misplaced_key", "/compensate"),
        ({**BOOK, "on_unknown_outcome": "retry"}, "unknown_value", "/on_unknown_outcome"),
        ({**BOOK, "on_unknown_outcome": "probe"}, "misplaced_key", "/on_unknown_outcome"),
        ({"tool": "look", "on_unknown_outcome": "ask"}, "misplaced_key", "/on_unknown_outcome"),
        ({"tool": "look", "on_unknown_outcome": "abandon"}, "misplaced_key", "/on_unknown_outcome"),
        ({**AGENT, "on_unknown_outcome": "ask"}, "misplaced_key", "/on_unknown_outcome"),
        ({"approval": {"title": "ok?"}, "on_unknown_outcome": "ask"}, "misplaced_key", "/on_unknown_outcome"),
        ({**BOOK, "pivot": "yes"}, "wrong_type", "/pivot"),
        ({"set": {}, "pivot": 1}, "wrong_type", "/pivot"),
        ({"approval": {"title": "ok?", "approver": "bo"}}, "unknown_value", "/approval/approver"),
    ],
)
def test_check_points_at_what_a_step_says_wrongly_about_its_effect(step: Any, code: str, pointer: str) -> None:
    result = checked({"a": step}, tools=TOOLS, input={"who": {"type": "string"}})

    assert found(result) == [(code, f"/steps/a{pointer}")]
    assert result.faults[0].fix


def test_check_sends_an_agents_undo_to_its_tools() -> None:
    (fault,) = checked({"a": {**AGENT, "compensate": UNDO}}, tools=TOOLS).faults

    assert "on the tools" in fault.fix


def test_check_does_not_advise_for_each_where_an_item_is_never_known() -> None:
    step = {**BOOK, "for_each": [1], "compensate": {**UNDO, "with": {"id": "${{ item }}"}}}

    (fault,) = checked({"a": step}, tools=TOOLS).faults

    assert "`item` is not known here" in fault.detail
    assert "arguments" in fault.fix


@pytest.mark.parametrize(
    ("top", "code", "pointer"),
    [
        ({"compensate_on": "failure"}, "wrong_type", "/compensate_on"),
        ({"compensate_on": ["failure", "cancelled"]}, "unknown_value", "/compensate_on/1"),
        ({"compensate_on": [["cancel"]]}, "unknown_value", "/compensate_on/0"),
        ({"on_failure": "undo"}, "unknown_value", "/on_failure"),
        ({"on_failure": ["hold"]}, "unknown_value", "/on_failure"),
    ],
)
def test_check_points_at_what_a_definition_says_wrongly_about_undoing(top: Any, code: str, pointer: str) -> None:
    assert found(checked({"a": {"set": {}}}, **top)) == [(code, pointer)]


@pytest.mark.parametrize(
    ("written", "when"),
    [
        (None, {"failure", "cancel"}),
        (["failure"], {"failure"}),
        (["cancel", "failure", "cancel"], {"failure", "cancel"}),
        ([], set()),
    ],
)
def test_plan_says_when_effects_are_undone(written: Any, when: set[str]) -> None:
    assert plan_of({"a": {"set": {}}}, compensate_on=written).compensate_on == when


def test_plan_compensates_a_failure_unless_the_definition_holds_it() -> None:
    assert plan_of({"a": {"set": {}}}).on_failure == "compensate"
    assert plan_of({"a": {"set": {}}}, on_failure="hold").on_failure == "hold"


def test_a_steps_own_undo_stands_before_its_tools() -> None:
    tools = {**TOOLS, "book": {**TOOLS["book"], "compensate": UNDO}, "cancel": DELETE}
    own = {"tool": "cancel", "with": {"id": "${{ arguments.title }}-${{ output.id }}"}}

    plan = plan_of({"a": {**BOOK, "compensate": own}, "b": BOOK, "c": SEND}, tools=tools)

    mine, tools_own, none = (plan.steps[name].compensate for name in "abc")
    assert mine is not None
    assert tools_own is not None
    assert (mine.tool, tools_own.tool, none) == ("cancel", "delete", None)
    assert mine.arguments.render({"arguments": {"title": "x"}, "output": {"id": "7"}}) == {"id": "x-7"}
    assert tools_own == plan.tools["book"].compensate


def test_plan_marks_pivots_and_what_tightens_an_unknown_outcome() -> None:
    steps = {
        "a": {**SEND, "on_unknown_outcome": "probe", "pivot": True},
        "b": {**BOOK, "on_unknown_outcome": "ask", "pivot": False},
        "c": {**BOOK, "on_unknown_outcome": "abandon"},
        "d": {"set": {}, "pivot": True},
    }

    plan = plan_of(steps)

    assert [step.on_unknown_outcome for step in plan.steps.values()] == ["probe", "ask", "abandon", None]
    assert [step.pivot for step in plan.steps.values()] == [True, False, False, True]


def test_plan_holds_what_a_tool_declares_about_its_answers() -> None:
    declared = {
        **TOOL,
        "on_5xx": "not_executed",
        "on_3xx": "not_executed",
        "on_408": "not_executed",
        "on_repeat_status": {"404": "succeeded", "409": "failed"},
        "on_202": "wait",
        "result_within": "2h",
        "approve": "when_tainted",
        "approver": "other_than_submitter",
        "approval_expires": "1h",
        "trusted_output": True,
    }

    tool = plan_of({"a": {"set": {}}}, tools={"t": declared}).tools["t"]

    assert (tool.on_5xx, tool.on_3xx, tool.on_408) == ("not_executed", "not_executed", "not_executed")
    assert tool.on_repeat_status == {404: "succeeded", 409: "failed"}
    assert (tool.on_202, tool.result_within) == ("wait", timedelta(hours=2))
    assert (tool.approve, tool.approver, tool.approval_expires) == (
        "when_tainted",
        "other_than_submitter",
        timedelta(hours=1),
    )
    assert tool.trusted_output is True


def test_plan_holds_the_careful_answer_to_everything_a_tool_does_not_declare() -> None:
    tool = plan_of({"a": {"set": {}}}, tools={"t": TOOL}).tools["t"]

    assert (tool.on_5xx, tool.on_3xx, tool.on_408, tool.on_202) == ("unknown", "unknown", "unknown", "succeeded")
    assert tool.on_repeat_status == {}
    assert (tool.result_within, tool.approval_expires) == (timedelta(minutes=10), timedelta(days=1))
    assert (tool.approve, tool.approver, tool.trusted_output) == ("never", "anyone", False)
    assert (tool.probe, tool.compensate) == (None, None)


def test_plan_compiles_a_probe() -> None:
    plan = plan_of({"a": SEND})

    probe = plan.tools["send"].probe
    assert probe is not None
    assert (probe.tool, probe.result, probe.deadline) == ("search", None, timedelta(minutes=5))
    seen = {"arguments": {"to": "a@x.io", "subject": "hi"}, "input": None, "key": None}
    assert probe.arguments.render(seen) == {"to": "a@x.io"}
    assert probe.found.evaluate({**seen, "output": {"messages": [{"subject": "hi"}]}}) is True
    assert probe.found.evaluate({**seen, "output": {"messages": []}}) is False


def test_a_tools_digest_changes_with_whatever_its_declaration_says() -> None:
    def digest_of(**more: Any) -> str:
        return plan_of({"a": {"set": {}}}, tools={"t": {**TOOL, **more}}).tools["t"].digest

    plain = digest_of()
    others = [digest_of(on_5xx="not_executed"), digest_of(description="x"), digest_of(trusted_output=True)]

    assert plain.startswith("sha256:")
    assert digest_of(approve="never") == plain
    assert len({plain, *others}) == 4


def test_a_tools_digest_is_that_of_its_form_in_the_plan_body() -> None:
    body = checked({"a": SEND}, tools=TOOLS).plan_body
    assert body is not None

    tools = compile_plan(body).tools

    assert {name: tool.digest for name, tool in tools.items()} == {
        name: digest(form) for name, form in body["tools"].items()
    }


def test_an_approval_says_who_may_decide() -> None:
    approval = plan_of({"a": {"approval": {"title": "ok?", "approver": "other_than_submitter"}}}).steps["a"].approval

    assert approval is not None
    assert approval.approver == "other_than_submitter"
