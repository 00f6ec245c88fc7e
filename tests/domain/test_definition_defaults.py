"""`defaults`, `switch_model`, `after` and `finish` in a definition: judged where they stand, merged as was promised."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain.states import FailureKind
from tests.domain.definition_cases import READ, checked, found, plan_of

AGENT: dict[str, Any] = {"agent": {"model": "fast"}, "prompt": "hi"}


def test_agents_say_what_the_defaults_say_unless_they_say_otherwise() -> None:
    plan = plan_of(
        {
            "a": {"agent": {}, "prompt": "x"},
            "b": {"agent": {"model": "fast", "max_turns": 5, "tools": []}, "prompt": "x"},
            "c": {"agent": "writer", "prompt": "x"},
        },
        agents={"writer": {"effort": "low"}},
        tools={"look": READ},
        defaults={"agent": {"model": "smart", "max_turns": 7, "tools": ["look"], "finish": "gracefully"}},
    )

    a, b, c = (plan.steps[name].agent for name in "abc")
    assert a is not None and b is not None and c is not None  # noqa: PT018 - for the type checker
    assert (a.alias, a.model, a.max_turns, a.tools, a.finish) == ("smart", "claude-smart-1", 7, ("look",), "gracefully")
    assert (b.alias, b.max_turns, b.tools) == ("fast", 5, ())
    assert (c.alias, c.effort, c.max_turns) == ("smart", "low", 7)


def test_agent_without_any_model_is_told_so_once() -> None:
    assert found(checked({"a": {"agent": {}, "prompt": "x"}}, defaults={"agent": {"max_turns": 3}})) == [
        ("missing_key", "/steps/a/agent")
    ]


def test_retry_of_the_defaults_stands_under_that_of_the_step() -> None:
    plan = plan_of(
        {"a": {**AGENT, "retry": {"any": {"max_retries": 1}}}, "b": AGENT},
        defaults={"retry": {"overloaded": {"max_retries": 20, "backoff": {"first": "9s"}}}},
    )

    own = plan.steps["a"].retry[FailureKind.OVERLOADED]
    general = plan.steps["b"].retry[FailureKind.OVERLOADED]
    assert (own.max_retries, own.first, own.rule, own.source) == (1, timedelta(seconds=9), "any", "definition")
    assert (general.max_retries, general.rule, general.source) == (20, "overloaded", "definition")
    assert plan.steps["b"].retry[FailureKind.TIMEOUT].source == "default"


def test_timeout_of_the_defaults_is_for_tools_and_agents_and_not_for_people() -> None:
    plan = plan_of(
        {
            "a": AGENT,
            "b": {**AGENT, "timeout": "2m"},
            "t": {"tool": "look", "with": {}},
            "p": {"approval": {"title": "ok?"}},
        },
        tools={"look": READ},
        defaults={"timeout": "5m"},
    )

    timeouts = {name: plan.steps[name].timeout for name in "abtp"}
    five = timedelta(minutes=5)
    assert timeouts == {"a": five, "b": timedelta(minutes=2), "t": five, "p": None}


@pytest.mark.parametrize(
    ("defaults", "code", "pointer"),
    [
        ("x", "wrong_type", "/defaults"),
        ({"tool": {}}, "unknown_key", "/defaults/tool"),
        ({"agent": {"model": "fst"}}, "unknown_model", "/defaults/agent/model"),
        ({"agent": {"finish": "soon"}}, "unknown_value", "/defaults/agent/finish"),
        ({"agent": {"tools": ["nope"]}}, "unknown_tool", "/defaults/agent/tools/0"),
        ({"retry": {"overloade": {}}}, "unknown_failure_kind", "/defaults/retry/overloade"),
        ({"timeout": "soon"}, "bad_duration", "/defaults/timeout"),
    ],
)
def test_fault_in_the_defaults_is_told_once_where_it_stands(defaults: Any, code: str, pointer: str) -> None:
    result = checked({"a": AGENT, "b": {**AGENT, "agent": {"model": "smart"}}}, defaults=defaults)

    assert found(result) == [(code, pointer)]


def test_model_to_switch_to_is_resolved_when_the_definition_is_accepted() -> None:
    policy = {"overloaded": {"switch_model": "smart"}, "refused": {"switch_model": "claude-other-9"}}

    retry = plan_of({"a": {**AGENT, "retry": policy}}).steps["a"].retry

    overloaded, refused = retry[FailureKind.OVERLOADED], retry[FailureKind.REFUSED]
    assert (overloaded.switch_model, overloaded.switch_alias, overloaded.max_retries) == ("claude-smart-1", "smart", 8)
    assert (refused.switch_model, refused.switch_alias) == ("claude-other-9", "claude-other-9")


@pytest.mark.parametrize(
    ("step", "code", "pointer"),
    [
        ({**AGENT, "retry": {"overloaded": {"switch_model": "smrt"}}}, "unknown_model", "overloaded/switch_model"),
        ({**AGENT, "retry": {"overloaded": {"switch_model": 3}}}, "wrong_type", "overloaded/switch_model"),
        ({**AGENT, "retry": {"paused_turn": {"switch_model": "fast"}}}, "misplaced_key", "paused_turn/switch_model"),
        ({"tool": "look", "retry": {"any": {"switch_model": "fast"}}}, "misplaced_key", "any/switch_model"),
        ({**AGENT, "retry": {"overloaded": {"after": 3}}}, "misplaced_key", "overloaded/after"),
        ({**AGENT, "retry": {"tool_broken": {"after": 1}}}, "out_of_range", "tool_broken/after"),
    ],
)
def test_word_of_a_policy_that_means_nothing_there_is_refused(step: Any, code: str, pointer: str) -> None:
    result = checked({"a": step}, tools={"look": READ})

    assert found(result) == [(code, f"/steps/a/retry/{pointer}")]


def test_words_that_people_type_for_these_get_an_answer() -> None:
    result = checked({"a": {**AGENT, "retry": {"overloaded": {"fallback_model": "smart"}}}})

    [fault] = result.faults
    assert (fault.code, fault.fix) == ("unknown_key", "Write `switch_model`.")
