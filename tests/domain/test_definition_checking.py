"""Checking a definition: everything wrong in one pass, at its place, with a fix; never an exception."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check
from app.domain.definition.source import read_text
from tests.domain.definition_cases import CATALOGUE, EXAMPLES, checked, found

AGENT = {"agent": {"model": "fast"}, "prompt": "hi"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_have_no_faults_and_no_warnings(path: Path) -> None:
    source = read_text(path.read_text())

    result = check(source.tree, lines=source.lines, source_name=path.name, catalogue=CATALOGUE)

    assert result.faults == ()
    assert result.warnings == ()
    assert result.plan_body is not None


@pytest.mark.parametrize(
    ("step", "code", "pointer"),
    [
        ({"set": {"v": "${{ steps.nope.output }}"}}, "unknown_step", "/set/v"),
        ({"set": {}, "needs": ["nope"]}, "unknown_step", "/needs/0"),
        ({"set": {}, "needs": "a"}, "wrong_type", "/needs"),
        ({"set": {}, "tool": "email.send"}, "several_kinds", ""),
        ({"title": "x"}, "missing_kind", ""),
        ("x", "wrong_type", ""),
        ({"set": {"v": "${{ 1 + }}"}}, "bad_expression", "/set/v"),
        ({"set": {"v": "{{ input.x }}"}}, "bad_expression", "/set/v"),
        ({"set": {"v": "${{ item }}"}}, "bad_expression", "/set/v"),
        ({"set": {}, "if": "${{ true }}"}, "bad_expression", "/if"),
        ({"set": {}, "if": 5}, "wrong_type", "/if"),
        ({**AGENT, "prompt": "${{ secrets.key }}"}, "secret_not_allowed", "/prompt"),
        (
            {"tool": "email.send", "with": {"to": "a@x.io", "subject": "${{ secrets.k }}"}},
            "secret_not_allowed",
            "/with/subject",
        ),
        ({"tool": "email.sent"}, "unknown_tool", "/tool"),
        ({"agent": "nobody", "prompt": "x"}, "unknown_agent", "/agent"),
        ({"agent": {"model": "fsat"}, "prompt": "x"}, "unknown_model", "/agent/model"),
        ({"agent": {"model": "fast"}}, "missing_key", ""),
        (
            {"agent": {"model": "fast", "tools": ["calender.free_busy"]}, "prompt": "x"},
            "unknown_tool",
            "/agent/tools/0",
        ),
        ({"agent": {"model": "fast", "max_turns": 10**6}, "prompt": "x"}, "out_of_range", "/agent/max_turns"),
        ({"tool": "calendar.free_busy", "with": {"email": 5}}, "invalid_argument", "/with/email"),
        ({"tool": "calendar.free_busy", "with": {"email": "a@x.io", "b": 1}}, "invalid_argument", "/with"),
        ({"tool": "calendar.free_busy"}, "invalid_argument", ""),
        (
            {"tool": "calendar.free_busy", "with": {"email": "a@x.io"}, "idempotency_key": "k"},
            "key_not_used",
            "/idempotency_key",
        ),
        ({"set": {}, "with": {"a": 1}}, "misplaced_key", "/with"),
        ({"set": {}, "max_parallel": 3}, "misplaced_key", "/max_parallel"),
        ({"set": {}, "for_each": "input.list"}, "wrong_type", "/for_each"),
        ({"set": {}, "for_each": "x ${{ input.list }}"}, "wrong_type", "/for_each"),
        ({"set": {}, "timeout": "5 minutes"}, "bad_duration", "/timeout"),
        ({"set": {}, "on_error": "contine"}, "unknown_value", "/on_error"),
        ({**AGENT, "retry": {"rate_limit": {}}}, "unknown_failure_kind", "/retry/rate_limit"),
        ({**AGENT, "retry": {"max_retries": 3}}, "unknown_failure_kind", "/retry/max_retries"),
        ({**AGENT, "retry": {"unknown_outcome": {"max_retries": 3}}}, "not_retryable", "/retry/unknown_outcome"),
        ({**AGENT, "retry": {"timeout": {"max_retries": -1}}}, "out_of_range", "/retry/timeout/max_retries"),
        ({**AGENT, "retry": {"timeout": {"repair": "format_reminder"}}}, "misplaced_key", "/retry/timeout/repair"),
        ({**AGENT, "retry": {"any": {"switch_model": "smrt"}}}, "unknown_model", "/retry/any/switch_model"),
        (
            {**AGENT, "retry": {"tool_error": {"switch_model": "fast"}}},
            "misplaced_key",
            "/retry/tool_error/switch_model",
        ),
        ({**AGENT, "retry": {"timeout": {"after": 3}}}, "misplaced_key", "/retry/timeout/after"),
        ({**AGENT, "retry": {"no_progress": {"after": 1}}}, "out_of_range", "/retry/no_progress/after"),
        ({**AGENT, "output_schema": {"a": {"$ref": "http://x.io/s"}}}, "remote_ref", "/output_schema/a/$ref"),
        ({**AGENT, "output_schema": {"a": "string"}}, "invalid_schema", "/output_schema/a"),
        ({"approval": {"title": "ok?", "allow": ["approve", "edit"]}}, "unsupported", "/approval/allow/1"),
        ({"approval": {"title": "ok?", "allow": ["reject"]}}, "out_of_range", "/approval/allow"),
        ({"approval": {}}, "missing_key", "/approval"),
        ({"approval": {"title": "ok?", "on_expire": "fail"}}, "misplaced_key", "/approval/on_expire"),
        ({"approval": {"title": "ok?", "assign": "bo"}}, "unsupported", "/approval/assign"),
        ({"set": {"v": "${{ workflow.nam }}"}}, "unknown_field", "/set/v"),
        ({"set": {"v": "${{ input.nope }}"}}, "unknown_field", "/set/v"),
        ({"set": {"v": "${{ steps.a.output }}"}}, "cycle", "/set/v"),
    ],
)
def test_check_points_at_what_is_wrong_with_a_step(step: Any, code: str, pointer: str) -> None:
    result = checked({"a": step}, input={"list": {"type": "array"}})

    assert found(result) == [(code, f"/steps/a{pointer}")]
    assert result.faults[0].fix
    assert result.plan_body is None


@pytest.mark.parametrize(
    "key",
    ["wait", "workflow", "steps", "repeat", "allow_failures"],
)
def test_check_says_unsupported_when_a_step_uses_what_comes_later(key: str) -> None:
    result = checked({"a": {"set": {}, key: {}}})

    assert found(result) == [("unsupported", f"/steps/a/{key}")]
    assert f"`{key}`" in result.faults[0].detail


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("depends_on", "needs"),
        ("when", "if"),
        ("condition", "if"),
        ("foreach", "for_each"),
        ("map", "for_each"),
        ("args", "with"),
        ("params", "with"),
        ("inputs", "with"),
        ("response_format", "output_schema"),
        ("retries", "retry.<kind>.max_retries"),
        ("max_attempts", "retry.<kind>.max_retries"),
        ("timout", "timeout"),
        ("onError", "on_error"),
        ("undo", "compensate"),
        ("rollback", "compensate"),
        ("point_of_no_return", "pivot"),
        ("on_unknown", "on_unknown_outcome"),
    ],
)
def test_check_answers_the_words_people_bring_along(typed: str, meant: str) -> None:
    (fault,) = checked({"a": {"set": {}, typed: 1}}).faults

    assert (fault.code, fault.pointer) == ("unknown_key", f"/steps/a/{typed}")
    assert f"Did you mean `{meant}`?" in fault.detail


@pytest.mark.parametrize(
    ("typed", "meant"), [("uses", "tool"), ("call", "tool"), ("human", "approval"), ("manual", "approval")]
)
def test_check_accuses_only_the_word_when_it_stands_for_the_kind(typed: str, meant: str) -> None:
    (fault,) = checked({"a": {typed: "email.send"}}).faults

    assert (fault.code, fault.pointer) == ("unknown_key", f"/steps/a/{typed}")
    assert f"`{meant}`" in fault.detail


@pytest.mark.parametrize(("typed", "later"), [("sleep", "wait"), ("delay", "wait")])
def test_check_says_unsupported_when_the_meant_word_comes_later(typed: str, later: str) -> None:
    (fault,) = checked({"a": {"set": {}, typed: "1s"}}).faults

    assert fault.code == "unsupported"
    assert f"`{later}`" in fault.detail


@pytest.mark.parametrize("typed", ["jobs", "tasks"])
def test_check_means_steps_when_jobs_were_written(typed: str) -> None:
    (fault,) = check({"name": "x", typed: {}}, catalogue=CATALOGUE).faults

    assert (fault.code, fault.pointer) == ("unknown_key", f"/{typed}")
    assert "`steps`" in fault.detail


def test_check_names_a_cycle_by_its_path() -> None:
    result = checked(
        {
            "a": {"set": {}, "needs": ["c"]},
            "b": {"set": {"v": "${{ steps.a.output.x }}"}},
            "c": {"set": {}, "if": "steps.b.output == 1"},
        }
    )

    cycles = [fault for fault in result.faults if fault.code == "cycle"]
    assert [fault.pointer for fault in cycles] == ["/steps/a"]
    assert "a → b → c → a" in cycles[0].detail


def test_check_reports_every_problem_at_once() -> None:
    result = checked(
        {
            "a": {**AGENT, "depends_on": [], "timeout": "soon", "output_schema": {"title": {"type": "string"}}},
            "b": {"tool": "nope", "needs": ["zzz"]},
            "c": {"set": {"v": "${{ steps.a.output.titel }} ${{ oops }}"}},
        },
        labels={"n": 1},
        output={"v": "${{ steps.d.output }}"},
        extra=1,
    )

    assert set(found(result)) == {
        ("unknown_key", "/extra"),
        ("wrong_type", "/labels/n"),
        ("unknown_key", "/steps/a/depends_on"),
        ("bad_duration", "/steps/a/timeout"),
        ("unknown_tool", "/steps/b/tool"),
        ("unknown_step", "/steps/b/needs/0"),
        ("unknown_output_field", "/steps/c/set/v"),
        ("bad_expression", "/steps/c/set/v"),
        ("unknown_step", "/output/v"),
    }


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("steps.agent.output.title", False),
        ("steps.agent.output.rows[0].n", False),
        ("steps.agent.output.titel", True),
        ("steps.agent.output.rows.n", True),
        ("steps.agent.output.rows[0].m", True),
        ("steps.open.output.anything", False),
        ("steps.plain.output.title", True),
        ("steps.values.output.a.b", False),
        ("steps.values.output.a.c", True),
        ("steps.values.output.dynamic.c", False),
        ("steps.each.output[0].a", False),
        ("steps.each.output.a", True),
        ("steps.asked.output.decision", False),
        ("steps.asked.output.answer", True),
        ("steps.tooled.output.whatever", False),
        ("steps.agent.result", True),
        ("steps.agent.error.kind", False),
    ],
)
def test_check_knows_which_fields_an_output_has(expression: str, wrong: bool) -> None:
    rows = {"type": "array", "items": {"type": "object", "properties": {"n": {}}, "additionalProperties": False}}
    steps: dict[str, Any] = {
        "agent": {**AGENT, "output_schema": {"title": {"type": "string"}, "rows": rows}},
        "open": {**AGENT, "output_schema": {"type": "object", "properties": {"a": {}}}},
        "plain": AGENT,
        "values": {"set": {"a": {"b": 1}, "dynamic": "${{ steps.agent.output.title }}"}},
        "each": {"set": {"a": "${{ item }}"}, "for_each": [1, 2]},
        "asked": {"approval": {"title": "ok?"}},
        "tooled": {"tool": "calendar.events"},
        "last": {"set": {"v": f"${{{{ {expression} }}}}"}},
    }

    codes = [fault.code for fault in checked(steps).faults]

    assert codes == ([] if not wrong else codes[:1])
    assert bool(codes) is wrong


def test_check_points_at_lines_when_the_source_was_text() -> None:
    source = read_text("name: x\nsteps:\n  a:\n    set: {}\n    timeout: soon\n")

    (fault,) = check(source.tree, lines=source.lines, catalogue=CATALOGUE).faults

    assert (fault.pointer, fault.line) == ("/steps/a/timeout", 5)


def test_check_bounds_steps_size_and_depth() -> None:
    small = Catalogue(steps_limit=2, definition_limit=1000)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]

    def codes(document: Any) -> list[str]:
        return [fault.code for fault in check(document, catalogue=small).faults]

    assert codes({"name": "x", "steps": {f"s{n}": {"set": {}} for n in range(3)}}) == ["out_of_range"]
    assert codes({"name": "x", "steps": {"a": {"set": {"v": "y" * 2000}}}}) == ["too_large"]
    assert codes({"name": "x", "steps": {"a": {"set": {"v": deep}}}}) == ["too_deep"]


def test_check_stays_quick_when_a_definition_is_as_large_as_it_may_be() -> None:
    steps = {f"s{n}": {"set": {"v": f"${{{{ steps.s{n - 1}.output.v + {n} }}}}"}} for n in range(1, 1000)}
    began = time.process_time()

    result = checked({"s0": {"set": {"v": 1}}, **steps})

    assert result.faults == ()
    assert time.process_time() - began < 5
