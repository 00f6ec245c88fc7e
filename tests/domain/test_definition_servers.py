"""MCP servers in a definition: judged, expanded into tools, and what a plan does not know yet."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.definition import servers
from app.domain.definition.checking import check_declaration
from app.domain.definition.compiling import compile_plan
from app.domain.discovering import resolved
from app.domain.states import EffectClass
from tests.domain.definition_cases import CATALOGUE, checked, found

LOG: dict[str, Any] = {
    "name": "log",
    "description": "Show the log.",
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False},
    "annotations": {"read_only_hint": True},
}
TAG = {"name": "tag", "annotations": {"idempotent_hint": True}}
COMMIT = {"name": "commit", "input_schema": {"type": "object", "required": ["message"]}}
LISTED = [LOG, TAG, COMMIT]
GIT: dict[str, Any] = {"mcp": {"command": ["mcp-server-git"]}, "trust_annotations": True}
STEP: dict[str, Any] = {"agent": {"model": "fast", "tools": ["git.*"]}, "prompt": "x"}


def effects(**more: Any) -> dict[str, str]:
    checked_ = checked({"s": STEP}, tools={"git": {**GIT, "listed": LISTED, **more}})
    assert checked_.plan_body is not None, checked_.faults
    return {name: tool.effect.value for name, tool in compile_plan(checked_.plan_body).tools.items()}


@pytest.mark.parametrize(
    ("declared", "code", "pointer"),
    [
        ({**GIT, "mcp": {}}, "missing_key", "/mcp"),
        ({**GIT, "mcp": {"command": ["x"], "url": "https://x.io"}}, "several_kinds", "/mcp"),
        ({**GIT, "mcp": {"command": "mcp-server-git --x"}}, "wrong_type", "/mcp/command"),
        ({**GIT, "mcp": {"command": []}}, "wrong_type", "/mcp/command"),
        ({**GIT, "mcp": {"command": ["x", 5]}}, "wrong_type", "/mcp/command/1"),
        ({**GIT, "mcp": {"command": ["x", "${{ secrets.t }}"]}}, "bad_expression", "/mcp/command/1"),
        ({**GIT, "mcp": {"command": ["x"], "env": {"PATH": "/evil"}}}, "bad_name", "/mcp/env/PATH"),
        ({**GIT, "mcp": {"command": ["x"], "env": {"LD_PRELOAD": "x"}}}, "bad_name", "/mcp/env/LD_PRELOAD"),
        ({**GIT, "mcp": {"command": ["x"], "env": {"T": 5}}}, "wrong_type", "/mcp/env/T"),
        ({**GIT, "mcp": {"command": ["x"], "headers": {}}}, "misplaced_key", "/mcp/headers"),
        ({**GIT, "mcp": {"url": "ftp://x.io"}}, "bad_url", "/mcp/url"),
        ({**GIT, "mcp": {"url": "https://x.io", "headers": {"Host": "y"}}}, "bad_header", "/mcp/headers/Host"),
        ({**GIT, "mcp": {"url": "https://x.io", "headers": {"A": "${{ arguments.x }}"}}}, "unknown_name", None),
        ({**GIT, "effect": "keyed"}, "missing_key", ""),
        ({**GIT, "effect": "checkable"}, "unknown_value", "/effect"),
        ({**GIT, "tools": {"log": {"effect": "readonly"}}}, "unknown_value", "/tools/log/effect"),
        ({**GIT, "tools": {"log": {"probe": {}}}}, "unknown_key", "/tools/log/probe"),
        ({**GIT, "include": "log"}, "wrong_type", "/include"),
        ({**GIT, "listed": LISTED, "include": ["lag"]}, "unknown_tool", "/include"),
        ({**GIT, "listed": LISTED, "tools": {"push": {}}}, "unknown_tool", "/tools"),
        ({**GIT, "listed": [{"description": "nameless"}]}, "wrong_type", "/listed"),
        ({**GIT, "input_schema": {}}, "unknown_key", "/input_schema"),
    ],
)
def test_check_points_at_what_is_wrong_with_a_server(declared: dict[str, Any], code: str, pointer: str | None) -> None:
    faults = [(fault.code, fault.pointer) for fault in check_declaration("git", declared, catalogue=CATALOGUE)]

    if pointer is None:
        assert faults
    else:
        assert (code, pointer) in faults


def test_effects_are_the_worst_unless_the_server_is_trusted_or_the_declaration_says_better() -> None:
    assert effects(trust_annotations=False) == dict.fromkeys(("git.commit", "git.log", "git.tag"), "at_most_once")
    assert effects() == {"git.commit": "at_most_once", "git.log": "read_only", "git.tag": "idempotent"}
    assert effects(effect="idempotent", tools={"log": {"effect": "at_most_once"}}) == {
        "git.commit": "idempotent", "git.log": "at_most_once", "git.tag": "idempotent",
    }  # fmt: skip


def test_include_leaves_the_others_out() -> None:
    assert list(effects(include=["log"])) == ["git.log"]


def test_what_is_said_of_all_tools_and_of_one_comes_together() -> None:
    said = {"timeout": "7s", "approve": "always", "tools": {"log": {"approve": "never", "description": "Mine."}}}
    body = checked({"s": STEP}, tools={"git": {**GIT, "listed": LISTED, **said}}).plan_body
    assert body is not None
    tools = compile_plan(body).tools

    assert {tool.timeout.total_seconds() for tool in tools.values()} == {7.0}
    assert (tools["git.commit"].approve, tools["git.log"].approve) == ("always", "never")
    assert tools["git.log"].description == "Mine."


def test_arguments_of_a_step_are_checked_against_a_frozen_list() -> None:
    result = checked({"s": {"tool": "git.log", "with": {"n": "five"}}}, tools={"git": {**GIT, "listed": LISTED}})

    assert found(result) == [("invalid_argument", "/steps/s/with/n")]


def test_tool_that_a_frozen_list_does_not_have_is_unknown() -> None:
    result = checked({"s": {"tool": "git.push"}}, tools={"git": {**GIT, "listed": LISTED}})

    assert found(result) == [("unknown_tool", "/steps/s/tool")]


def test_plan_without_the_list_says_which_server_each_step_needs() -> None:
    body = checked(
        {"s": STEP, "t": {"tool": "git.log"}, "u": {"set": {"x": 1}}, "v": {"tool": "calendar.events"}},
        tools={"git": GIT},
    ).plan_body
    assert body is not None
    plan = compile_plan(body)

    assert {name: step.servers for name, step in plan.steps.items()} == {
        "s": ("git",), "t": ("git",), "u": (), "v": (),
    }  # fmt: skip
    assert list(plan.servers) == ["git"]
    assert "git.log" not in plan.tools


def test_server_that_nothing_uses_is_not_in_the_plan() -> None:
    body = checked({"u": {"set": {"x": 1}}}, tools={"git": GIT}).plan_body

    assert body is not None
    assert "servers" not in body


def test_list_that_is_found_later_makes_the_plan_that_the_frozen_one_would_have_made() -> None:
    frozen = checked({"s": STEP, "t": {"tool": "git.log"}}, tools={"git": {**GIT, "listed": LISTED}}).plan_body
    asked = checked({"s": STEP, "t": {"tool": "git.log"}}, tools={"git": GIT}).plan_body
    assert frozen is not None
    assert asked is not None

    body, left_out = resolved(asked, "git", LISTED)

    late, early = compile_plan(body), compile_plan(frozen)
    assert left_out == []
    assert late.tools == early.tools
    assert late.steps["s"].agent == early.steps["s"].agent
    assert late.steps["t"].tool == early.steps["t"].tool
    assert late.servers == {}
    assert compile_plan(resolved(asked, "git", list(reversed(LISTED)))[0]).digest == late.digest


@pytest.mark.parametrize(
    ("tool", "own"),
    [("log", "git.log"), ("slash/name", "git.t_slash_name_"), ("x" * 100, "git.t_xxx"), ("1st", "git.t_1st_")],
)
def test_name_that_is_none_here_is_made_one(tool: str, own: str) -> None:
    name = servers.own_name("git", tool)

    assert name.startswith(own)
    assert len(name) <= 64


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "https://x.io/s"}, "nothing is fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "nothing is fetched"),
        ({"properties": {"a": {"pattern": "(?=x)"}}}, ""),
    ],
)
def test_schema_that_cannot_be_used_leaves_its_tool_out(schema: dict[str, Any], reason: str) -> None:
    bad = {"name": "bad", "input_schema": {"type": "object", **schema}}
    result = checked({"s": STEP}, tools={"git": {**GIT, "listed": [LOG, bad]}})

    assert result.plan_body is not None, result.faults
    assert list(compile_plan(result.plan_body).tools) == ["git.log"]
    assert [(warning.code, reason in warning.detail) for warning in result.warnings] == [("tool_left_out", True)]


@pytest.mark.parametrize("place", ["input", "output_schema", "input_schema"])
def test_remote_reference_is_refused_wherever_a_schema_may_stand(place: str) -> None:
    remote = {"type": "object", "$ref": "http://169.254.169.254/s"}
    agent = {"agent": {"model": "fast"}, "prompt": "x"}
    http = {"http": {"method": "GET", "url": "https://x.io"}}
    result = {
        "input": lambda: checked({"s": agent}, input=remote),
        "output_schema": lambda: checked({"s": {**agent, "output_schema": remote}}),
        "input_schema": lambda: checked({"s": {"tool": "x"}}, tools={"x": {**http, "input_schema": remote}}),
    }[place]()

    assert "remote_ref" in [code for code, _ in found(result)]


def test_isolation_belongs_to_python_tools() -> None:
    isolated = {"python": "acme:book", "effect": "idempotent", "isolate": "process"}
    body = checked({"s": {"tool": "x"}}, tools={"x": isolated}).plan_body
    assert body is not None
    [tool] = compile_plan(body).tools.values()

    assert tool.python is not None
    assert tool.python.isolate
    http = {"http": {"method": "GET", "url": "https://x.io"}, "isolate": "process"}
    assert found(checked({"s": {"tool": "x"}}, tools={"x": http})) == [("misplaced_key", "/tools/x/isolate")]
    assert EffectClass.IDEMPOTENT is tool.effect
