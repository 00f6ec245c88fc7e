"""Compiling a plan: what a definition left out is filled in, what it said wins, and nothing depends on when."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.definition.catalogue import Catalogue, Checked
from app.domain.definition.checking import check
from app.domain.definition.compiling import UnknownPlanFormat, compile_plan
from app.domain.definition.source import read_text
from app.domain.expressions import step_binding
from app.domain.plan import Plan
from app.domain.recovery_defaults import RECOVERY_DEFAULTS, RETRYABLE
from app.domain.states import EffectClass, FailureKind, StepKind
from app.embedded.tool_declarations import declarations

EXAMPLES = Path(__file__).parents[2] / "examples"
CATALOGUE = Catalogue(tools=declarations("https://tools.example.com"), models={"fast": "claude-fast-1"})


def checked(document: Any, catalogue: Catalogue = CATALOGUE) -> Checked:
    result = check(document, catalogue=catalogue)
    assert result.faults == ()
    return result


def compiled(result: Checked) -> Plan:
    assert result.plan_body is not None
    return compile_plan(result.plan_body)


def plan_of(steps: Any, **top: Any) -> Plan:
    return compiled(checked({"name": "x", "steps": steps, **top}))


@pytest.fixture
def story() -> Plan:
    source = read_text((EXAMPLES / "meeting-scheduler.yaml").read_text())
    result = check(source.tree, lines=source.lines, source_name="meeting-scheduler.yaml", catalogue=CATALOGUE)
    return compiled(result)


def test_plan_infers_order_from_what_the_steps_read(story: Plan) -> None:
    needs = {step.id: set(step.needs) for step in story.steps.values()}

    assert needs == {
        "understand": set(),
        "availability": {"understand"},
        "choose": {"availability"},
        "create_event": {"choose", "understand"},
        "invite": {"create_event", "understand"},
    }
    assert story.steps["understand"].dependents == ("availability", "create_event", "invite")
    assert story.steps["invite"].reads == {"understand"}


def test_plan_of_the_story_carries_what_the_engine_asks_for(story: Plan) -> None:
    understand, book = story.steps["understand"], story.steps["create_event"]

    assert [step.kind for step in story.steps.values()].count(StepKind.TOOL) == 3
    assert understand.agent is not None
    assert (understand.agent.model, understand.agent.alias) == ("claude-fast-1", "fast")
    assert understand.output_schema is not None
    assert understand.output_schema["required"] == ["title", "attendees", "minutes"]
    assert story.steps["availability"].max_parallel == 5
    assert book.tool is not None
    assert book.tool.effect is EffectClass.KEYED
    assert book.tool.settle_time == 2 * book.tool.timeout == timedelta(seconds=20)
    assert book.call_timeout == timedelta(seconds=10)
    assert book.key is not None
    assert book.key.render_key({"input": {"meeting_id": "m-1"}}) == "meeting:m-1"
    assert {"calendar.create_event", "calendar.free_busy", "email.send"} <= set(story.tools)


def test_plan_points_at_the_line_of_the_rule_that_decides(story: Plan) -> None:
    policy = story.steps["understand"].retry[FailureKind.MALFORMED_OUTPUT]

    assert (policy.rule, policy.source, policy.line) == ("malformed_output", "definition", 26)
    assert story.source_name == "meeting-scheduler.yaml"


def test_plan_output_reads_null_when_the_step_it_names_was_skipped(story: Plan) -> None:
    assert story.output is not None

    output = story.output.render({"steps": {"create_event": step_binding(None, "skipped", None, None)}})

    assert output == {"event_id": None}


def test_retry_of_the_most_specific_kind_wins_and_merges_over_the_default() -> None:
    agent = {"agent": {"model": "fast"}, "prompt": "x"}
    retry = {
        "any": {"max_retries": 9, "backoff": {"first": "3s"}},
        "transient": {"max_retries": 4},
        "timeout": {"backoff": {"max": "5s"}},
        "malformed_output": {"max_retries": 1},
    }

    merged = plan_of({"a": {**agent, "retry": retry}}).steps["a"].retry

    timeout, network = merged[FailureKind.TIMEOUT], merged[FailureKind.NETWORK]
    shape, tool = merged[FailureKind.WRONG_SHAPE], merged[FailureKind.TOOL_ERROR]
    assert (timeout.rule, timeout.max_retries, timeout.cap) == ("timeout", 5, timedelta(seconds=5))
    assert (network.rule, network.max_retries, network.first) == ("transient", 4, timedelta(seconds=1))
    assert (shape.rule, shape.max_retries, shape.repair) == ("malformed_output", 1, "format_reminder")
    assert (tool.rule, tool.max_retries, tool.first) == ("any", 9, timedelta(seconds=3))
    assert merged[FailureKind.AUTH] == RECOVERY_DEFAULTS[FailureKind.AUTH]
    assert merged[FailureKind.UNKNOWN_OUTCOME].max_retries == 0


def test_retry_is_the_servers_table_when_nothing_was_written() -> None:
    merged = plan_of({"a": {"agent": {"model": "fast"}, "prompt": "x"}}).steps["a"].retry

    assert merged == RECOVERY_DEFAULTS
    assert set(merged) == set(FailureKind)
    assert FailureKind.UNKNOWN_OUTCOME not in RETRYABLE


@pytest.mark.parametrize("form", ["single", "id"])
def test_a_list_of_steps_runs_strictly_one_after_the_other(form: str) -> None:
    names = ["first", "second", "third"]
    steps: list[Any] = [{name: {"set": {}}} if form == "single" else {"id": name, "set": {}} for name in names]

    plan = plan_of(steps)

    assert list(plan.steps) == names
    assert [sorted(step.needs) for step in plan.steps.values()] == [[], ["first"], ["second"]]


def test_plan_keeps_document_order_and_an_equal_digest_for_an_equal_body() -> None:
    document = {"name": "x", "steps": {"z": {"set": {}}, "a": {"set": {}}}}
    other = {"name": "x", "steps": {"a": {"set": {}}, "z": {"set": {}}}}

    one, two, swapped = checked(document), checked(document), checked(other)

    assert list(compiled(one).steps) == ["z", "a"]
    assert (one.digest, one.plan_digest) == (two.digest, two.plan_digest)
    assert compiled(one).digest == one.plan_digest
    assert one.digest != swapped.digest


def test_plan_digest_changes_when_a_used_tool_changes_and_only_then() -> None:
    document = {"name": "x", "steps": {"a": {"tool": "one"}}}
    tool = {"http": {"method": "GET", "url": "https://x.io"}}

    before = checked(document, Catalogue(tools={"one": tool}))
    unused = checked(document, Catalogue(tools={"one": tool, "two": tool}))
    changed = checked(document, Catalogue(tools={"one": {**tool, "timeout": "1s"}}))

    assert before.plan_digest == unused.plan_digest
    assert before.plan_digest != changed.plan_digest
    assert before.digest == changed.digest


def test_a_tool_of_the_definition_hides_a_registered_one() -> None:
    own = {"http": {"method": "POST", "url": "https://own.example.com"}, "effect": "idempotent"}

    plan = plan_of({"a": {"tool": "email.send"}}, tools={"email.send": own})

    assert plan.tools["email.send"].http.url.render({}) == "https://own.example.com"


def test_an_agent_gets_all_tools_of_a_prefix_in_a_stable_order() -> None:
    agent = {"model": "claude-x-1", "tools": ["z.last", "calendar.*"], "effort": "low", "max_turns": 3}
    tool = {"http": {"method": "GET", "url": "https://x.io"}}
    catalogue = Catalogue(tools=dict.fromkeys(("calendar.events", "z.last", "calendar.book", "calendars"), tool))

    plan = compiled(
        checked({"name": "x", "steps": {"a": {"agent": "w", "prompt": "x"}}, "agents": {"w": agent}}, catalogue)
    )

    assert plan.steps["a"].agent is not None
    assert plan.steps["a"].agent.tools == ("z.last", "calendar.book", "calendar.events")
    assert plan.steps["a"].agent.max_turns == 3
    assert set(plan.tools) == set(plan.steps["a"].agent.tools)


def test_approval_fills_in_what_was_left_out() -> None:
    approval = plan_of({"a": {"approval": {"title": "ok ${{ input.x }}?"}}}).steps["a"].approval

    assert approval is not None
    assert approval.title.render({"input": {"x": 1}}) == "ok 1?"
    assert (approval.allow, approval.expires, approval.on_expire, approval.on_reject, approval.approver) == (
        ("approve", "reject"),
        None,
        "reject",
        "continue",
        "anyone",
    )


@pytest.mark.parametrize("form", [1, 99, None])
def test_a_plan_of_another_release_is_refused(form: int | None) -> None:
    body = checked({"name": "x", "steps": {"a": {"set": {}}}}).plan_body
    assert body is not None

    with pytest.raises(UnknownPlanFormat):
        compile_plan({**body, "format": form})
