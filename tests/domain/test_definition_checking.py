"""Checking a definition: everything wrong in one pass, at its place, with a fix; never an exception."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from app.domain.definition.catalogue import Catalogue, Checked
from app.domain.definition.checking import check, check_declaration
from app.domain.definition.source import read_text
from app.embedded.tool_declarations import declarations

EXAMPLES = Path(__file__).parents[2] / "examples"
CATALOGUE = Catalogue(
    tools=declarations("https://tools.example.com"), models={"fast": "claude-fast-1", "smart": "claude-smart-1"}
)
KEYED = {
    "http": {"method": "POST", "url": "https://x.io/e"},
    "effect": "keyed",
    "key_header": "Idempotency-Key",
    "key_ttl": "24h",
}
TOOL = {"http": {"method": "POST", "url": "https://x.io/e"}, "effect": "idempotent"}
AGENT = {"agent": {"model": "fast"}, "prompt": "hi"}


def checked(steps: Any, **top: Any) -> Checked:
    return check({"name": "x", "steps": steps, **top}, catalogue=CATALOGUE)


def found(result: Checked) -> list[tuple[str, str]]:
    return [(fault.code, fault.pointer) for fault in result.faults]


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
        ({**AGENT, "retry": {"any": {"switch_model": "smart"}}}, "unsupported", "/retry/any/switch_model"),
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
    ["wait", "workflow", "steps", "compensate", "repeat", "allow_failures", "budget", "pivot", "on_unknown_outcome"],
)
def test_check_says_unsupported_when_a_step_uses_what_comes_later(key: str) -> None:
    result = checked({"a": {"set": {}, key: {}}})

    assert found(result) == [("unsupported", f"/steps/a/{key}")]
    assert f"`{key}`" in result.faults[0].detail


@pytest.mark.parametrize("key", ["budget", "defaults", "compensate_on", "on_failure"])
def test_check_says_unsupported_when_a_definition_uses_what_comes_later(key: str) -> None:
    assert found(checked({"a": {"set": {}}}, **{key: {}})) == [("unsupported", f"/{key}")]


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


@pytest.mark.parametrize(
    ("typed", "later"), [("sleep", "wait"), ("delay", "wait"), ("undo", "compensate"), ("rollback", "compensate")]
)
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


@pytest.mark.parametrize(
    ("tool", "code", "pointer"),
    [
        ({**KEYED, "key_ttl": None}, "missing_key", ""),
        ({**KEYED, "key_header": None}, "missing_key", ""),
        ({**KEYED, "key_header": "Bad Header"}, "bad_header", "/key_header"),
        ({**KEYED, "effect": "idempotent", "key_ttl": None}, "misplaced_key", "/key_header"),
        ({**TOOL, "effect": "checkable"}, "unsupported", "/effect"),
        ({**TOOL, "effect": "readonly"}, "unknown_value", "/effect"),
        ({**TOOL, "approve": "always"}, "unsupported", "/approve"),
        ({**TOOL, "probe": {}}, "unsupported", "/probe"),
        ({"mcp": {"command": ["x"]}}, "unsupported", "/mcp"),
        ({"python": "a:b"}, "unsupported", "/python"),
        ({}, "missing_key", ""),
        ({"http": {"method": "POST"}, "effect": "idempotent"}, "missing_key", "/http"),
        ({"http": {"method": "FETCH", "url": "https://x.io"}, "effect": "idempotent"}, "unknown_value", "/http/method"),
        ({"http": {"method": "POST", "url": "ftp://x.io"}, "effect": "idempotent"}, "bad_url", "/http/url"),
        (
            {"http": {"method": "POST", "url": "https://${{ arguments.h }}/x"}, "effect": "idempotent"},
            "bad_url",
            "/http/url",
        ),
        (
            {"http": {"method": "POST", "url": "https://x.io${{ arguments.h }}"}, "effect": "idempotent"},
            "bad_url",
            "/http/url",
        ),
        (
            {"http": {"method": "POST", "url": "https://x.io/${{ input.h }}"}, "effect": "idempotent"},
            "bad_expression",
            "/http/url",
        ),
        (
            {"http": {**TOOL["http"], "headers": {"Surefoot-Call": "x"}}, "effect": "idempotent"},
            "bad_header",
            "/http/headers/Surefoot-Call",
        ),
        (
            {"http": {**TOOL["http"], "headers": {"A": "x\r\nB: y"}}, "effect": "idempotent"},
            "bad_header",
            "/http/headers/A",
        ),
        (
            {"http": {**TOOL["http"], "body": {"a": "${{ secrets.k }}"}}, "effect": "idempotent"},
            "secret_not_allowed",
            "/http/body/a",
        ),
        ({"http": {**TOOL["http"], "path": {"id": "x"}}, "effect": "idempotent"}, "unknown_key", "/http/path/id"),
        ({**TOOL, "input_schema": {"$ref": "http://x.io"}}, "remote_ref", "/input_schema/$ref"),
        ({**TOOL, "timeout": 5}, "bad_duration", "/timeout"),
        ({**TOOL, "on_repeat": "never"}, "unknown_value", "/on_repeat"),
    ],
)
def test_check_points_at_what_is_wrong_with_a_tool(tool: Any, code: str, pointer: str) -> None:
    result = checked({"a": {"set": {}}}, tools={"x.y": tool})

    assert found(result) == [(code, f"/tools/x.y{pointer}")]
    assert [(fault.code, fault.pointer) for fault in check_declaration("x.y", tool, catalogue=CATALOGUE)] == [
        (code, pointer)
    ]


def test_check_warns_when_a_tool_declares_no_effect() -> None:
    tool = {"http": {"method": "POST", "url": "https://x.io"}}
    look = {"http": {"method": "GET", "url": "https://x.io"}}

    result = checked({"a": {"tool": "do"}, "b": {"tool": "look"}}, tools={"do": tool, "look": look})

    assert result.faults == ()
    assert [(warning.code, warning.pointer) for warning in result.warnings] == [("effect_undeclared", "/tools/do")]
    assert result.plan_body is not None
    assert [tool["effect"] for tool in result.plan_body["tools"].values()] == ["at_most_once", "read_only"]


def test_check_gives_expressions_the_benefit_of_the_doubt_when_it_compares_arguments() -> None:
    schema = {"n": {"type": "integer"}, "list": {"type": "array", "items": {"type": "integer"}, "minItems": 2}}
    tool = {**TOOL, "input_schema": schema}

    good = checked({"a": {"tool": "t", "with": {"n": "${{ input.n }}", "list": "${{ input.l }}"}}}, tools={"t": tool})
    bad = checked(
        {"a": {"tool": "t", "with": {"n": "${{ input.n }}", "list": ["${{ input.n }}", "x"]}}}, tools={"t": tool}
    )

    assert found(good) == []
    assert found(bad) == [("invalid_argument", "/steps/a/with/list/1")]


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
    began = time.perf_counter()

    result = checked({"s0": {"set": {"v": 1}}, **steps})

    assert result.faults == ()
    assert time.perf_counter() - began < 5


DOCUMENT = read_text((EXAMPLES / "approval-gate.yaml").read_text()).tree
JUNK = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(),
    some.floats(),
    some.sampled_from(
        ["", "${{", "${{ x }}", "${{ steps.draft.output.x }}", "steps.a", "{{ x }}", "\x00", "\ud800", "5s", "a.b", "~"]
    ),
    some.lists(some.integers() | some.text(max_size=3), max_size=2),
    some.dictionaries(
        some.sampled_from(["type", "agent", "tool", "$ref", "id", "a/b~", "http", "any"]),
        some.text(max_size=5),
        max_size=3,
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@settings(max_examples=300, deadline=None)
@given(some.data())
def test_check_never_raises_when_parts_of_a_definition_are_replaced(data: some.DataObject) -> None:
    document: Any = copy.deepcopy(DOCUMENT)
    document["tools"] = {"t": copy.deepcopy(KEYED)}
    document["steps"]["send"]["retry"] = {"any": {"max_retries": 1, "backoff": {"first": "1s"}}}
    for _ in range(data.draw(some.integers(1, 3))):
        place = data.draw(some.sampled_from(places(document)))
        junk = data.draw(JUNK)
        if not place:
            document = junk
            break
        owner = document
        for key in place[:-1]:
            owner = owner[key]
        owner[place[-1]] = junk

    result = check(document, catalogue=CATALOGUE)

    assert (result.plan_body is None) == bool(result.faults)
    for fault in result.faults:
        json.dumps([fault.code, fault.detail, fault.fix, fault.pointer])
        assert fault.detail
        assert fault.fix
