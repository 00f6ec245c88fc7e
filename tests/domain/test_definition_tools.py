"""Tool declarations and what steps pass to them: judged before anything is sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain.definition.checking import check_declaration
from app.domain.definition.compiling import compile_plan
from app.domain.plan import HttpTool, PythonTool, Tool
from app.domain.states import EffectClass
from tests.domain.definition_cases import CATALOGUE, KEYED, READ, TOOL, checked, found

FUNCTION: dict[str, Any] = {"python": "acme:book", "effect": "idempotent"}


@pytest.mark.parametrize(
    ("tool", "code", "pointer"),
    [
        ({**KEYED, "key_ttl": None}, "missing_key", ""),
        ({**KEYED, "key_header": None}, "missing_key", ""),
        ({**KEYED, "key_header": "Bad Header"}, "bad_header", "/key_header"),
        ({**KEYED, "effect": "idempotent", "key_ttl": None}, "misplaced_key", "/key_header"),
        ({**TOOL, "effect": "checkable"}, "missing_key", ""),
        ({**TOOL, "effect": "readonly"}, "unknown_value", "/effect"),
        ({**KEYED, "effect": "keyd"}, "unknown_value", "/effect"),
        ({**TOOL, "approve": "sometimes"}, "unknown_value", "/approve"),
        ({**TOOL, "approve": "never", "approver": "anyone"}, "misplaced_key", "/approver"),
        ({**TOOL, "approval_expires": "1h"}, "misplaced_key", "/approval_expires"),
        ({**TOOL, "approve": "always", "approver": "boss"}, "unknown_value", "/approver"),
        ({**TOOL, "approve": "always", "approval_expires": 5}, "bad_duration", "/approval_expires"),
        ({**TOOL, "trusted_output": "yes"}, "wrong_type", "/trusted_output"),
        ({**TOOL, "on_5xx": "failed"}, "unknown_value", "/on_5xx"),
        ({**TOOL, "on_3xx": True}, "unknown_value", "/on_3xx"),
        ({**TOOL, "on_408": "retry"}, "unknown_value", "/on_408"),
        ({**TOOL, "on_500": "not_executed"}, "unknown_key", "/on_500"),
        ({**TOOL, "on_202": "poll"}, "unknown_value", "/on_202"),
        ({**TOOL, "on_202": "wait", "result_within": "soon"}, "bad_duration", "/result_within"),
        ({**TOOL, "result_within": "5m"}, "misplaced_key", "/result_within"),
        ({**TOOL, "on_202": "succeeded", "result_within": "5m"}, "misplaced_key", "/result_within"),
        ({**READ, "on_202": "wait"}, "misplaced_key", "/on_202"),
        ({**TOOL, "on_repeat_status": "404"}, "wrong_type", "/on_repeat_status"),
        ({**TOOL, "on_repeat_status": {"404": "fine"}}, "unknown_value", "/on_repeat_status/404"),
        ({**TOOL, "on_repeat_status": {"404": None}}, "wrong_type", "/on_repeat_status/404"),
        ({**TOOL, "on_repeat_status": {"4xx": "succeeded"}}, "out_of_range", "/on_repeat_status/4xx"),
        ({**TOOL, "on_repeat_status": {"600": "succeeded"}}, "out_of_range", "/on_repeat_status/600"),
        ({**TOOL, "on_repeat_status": {"099": "succeeded"}}, "out_of_range", "/on_repeat_status/099"),
        ({**READ, "on_repeat_status": {"404": "succeeded"}}, "misplaced_key", "/on_repeat_status"),
        ({"mcp": {"command": "x"}}, "wrong_type", "/mcp/command"),
        ({"python": "acme.tools.book", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": ":book", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": "acme:", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": "acme:book:now", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": "-acme:book", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": "acme:book ", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": "../acme:book", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": "", "effect": "idempotent"}, "bad_entry_point", "/python"),
        ({"python": ["acme:book"], "effect": "idempotent"}, "wrong_type", "/python"),
        ({"function": "acme:book", "http": READ["http"]}, "unknown_key", "/function"),
        ({**READ, "python": "acme:book", "effect": "idempotent"}, "several_kinds", ""),
        ({**FUNCTION, "input_schema": {"context": {"type": "string"}}}, "bad_name", "/input_schema"),
        (
            {**FUNCTION, "input_schema": {"type": "object", "properties": {"context": {}}}},
            "bad_name",
            "/input_schema",
        ),
        ({**FUNCTION, "effect": "keyed", "key_ttl": "1h", "key_argument": "context"}, "bad_name", "/key_argument"),
        ({**FUNCTION, "effect": "keyed"}, "missing_key", ""),
        ({**FUNCTION, "effect": "keyed", "key_ttl": "1h", "key_header": "Key"}, "misplaced_key", "/key_header"),
        *(
            ({**FUNCTION, key: value}, "misplaced_key", f"/{key}")
            for key, value in {
                "on_5xx": "unknown",
                "on_3xx": "not_executed",
                "on_408": "unknown",
                "on_202": "wait",
                "on_repeat_status": {"404": "succeeded"},
            }.items()
        ),
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
    assert "checkable" in result.warnings[0].fix
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


@pytest.mark.parametrize("written", ["Acme_Tools:book", "acme.tools:book", "ACME-._tools:book"])
def test_plan_knows_a_function_by_one_spelling_of_its_distribution(written: str) -> None:
    result = checked({"a": {"tool": "t"}}, tools={"t": {**FUNCTION, "python": written}})

    assert result.plan_body is not None
    tool = compile_plan(result.plan_body).tools["t"]
    assert (tool.http, tool.python) == (None, PythonTool(distribution="acme-tools", name="book"))
    assert str(tool.python) == "acme-tools:book"


def test_function_is_treated_as_at_most_once_when_it_declares_no_effect() -> None:
    result = checked({"a": {"tool": "t"}}, tools={"t": {"python": "acme:book"}})

    assert [(warning.code, warning.pointer) for warning in result.warnings] == [("effect_undeclared", "/tools/t")]
    assert result.plan_body is not None
    assert compile_plan(result.plan_body).tools["t"].effect is EffectClass.AT_MOST_ONCE


def test_keyed_function_needs_no_word_about_how_its_key_travels_when_it_can_read_its_context() -> None:
    tool = {**FUNCTION, "effect": "keyed", "key_ttl": "1h"}

    assert check_declaration("t", tool, catalogue=CATALOGUE) == ()
    assert check_declaration("t", {**tool, "key_argument": "request_id"}, catalogue=CATALOGUE) == ()


def test_function_may_probe_and_undo_what_a_request_did_when_it_is_declared_so() -> None:
    tools = {
        "send": {
            **TOOL,
            "effect": "checkable",
            "probe": {"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.found"},
            "compensate": {"tool": "unsend", "with": {"n": "${{ arguments.n }}"}},
        },
        "look": {"python": "acme:look", "effect": "read_only"},
        "unsend": {**FUNCTION, "python": "acme:unsend"},
    }

    result = checked({"a": {"tool": "send", "with": {"n": 1}}}, tools=tools)

    assert (result.faults, result.warnings) == ((), ())
    assert result.plan_body is not None
    plan = compile_plan(result.plan_body)
    assert {name: tool.python is not None for name, tool in plan.tools.items()} == {
        "look": True, "send": False, "unsend": True,
    }  # fmt: skip


@pytest.mark.parametrize("both", [True, False])
def test_tool_of_a_plan_is_in_one_place_exactly(both: bool) -> None:
    result = checked({"a": {"tool": "t"}}, tools={"t": READ})
    assert result.plan_body is not None
    http: HttpTool | None = compile_plan(result.plan_body).tools["t"].http
    python = PythonTool(distribution="acme", name="book")

    with pytest.raises(ValueError, match="exactly one of http, python and mcp"):
        Tool(
            name="t",
            description="",
            input_schema=None,
            effect=EffectClass.READ_ONLY,
            key_header=None,
            key_argument=None,
            key_ttl=None,
            timeout=timedelta(seconds=1),
            settle_time=timedelta(seconds=1),
            on_repeat="ask",
            http=http if both else None,
            python=python if both else None,
        )
