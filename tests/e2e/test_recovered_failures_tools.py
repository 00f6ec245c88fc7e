"""Tools that fail an agent, and agents that go nowhere: through the SDK, a worker and Postgres, each kind of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.driver import Row
from tests.e2e.recovering import QUICK, Run, agent, demo_tool, last_words, roles, script
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]


def asks(tool: str, email: str, **more: Any) -> Row:
    return {"tools": [{"name": tool, "input": {"email": email}, **more}]}


def misbehave(scene: Scene, email: str, **rule: Any) -> None:
    scene.tools.behave(tool="calendar.free_busy", where={"email": email}, **rule)


def test_model_gets_the_list_of_tools_when_it_asks_for_one_that_is_not_there(scene: Scene) -> None:
    run = Run(scene, agent(script(asks("book", "a@x.io"), {"text": "Done."}), tools={"look": demo_tool(scene)}))

    assert run.step["output"] == "Done."
    assert [(kind, change) for kind, change, _ in run.records] == [("tool_unknown", "tell_model")]
    second = run.bodies()[1]
    assert second["messages"][2]["content"][0]["is_error"] is True
    assert "look" in last_words(second)
    assert run.tool_entries() == []


def test_model_gets_every_place_when_its_arguments_do_not_fit(scene: Scene) -> None:
    wrong = {"tools": [{"name": "look", "input": {"mail": 7}}]}

    run = Run(scene, agent(script(wrong, asks("look", "a@x.io"), {"text": "Done."}), tools={"look": demo_tool(scene)}))

    assert run.step["output"] == "Done."
    assert [(kind, change) for kind, change, _ in run.records] == [("tool_arguments_invalid", "tell_model")]
    assert "email" in last_words(run.bodies()[1])
    assert len(run.tool_entries()) == 1


def test_tool_call_is_repeated_and_not_the_model_call_when_the_tool_failed(scene: Scene) -> None:
    tag = scene.tag()
    tool, email = f"look_{tag}", f"{tag}@x.io"
    misbehave(scene, email, do="status", status=503)
    retry = {"tool_error": {"max_retries": 3, "backoff": QUICK}, "transient": {"max_retries": 3, "backoff": QUICK}}

    run = Run(
        scene,
        agent(script(asks(tool, email), {"text": "Done."}), tools={tool: demo_tool(scene)}, step={"retry": retry}),
    )

    [call] = [call for call in run.calls if call["kind"] == "tool"]
    assert run.step["output"] == "Done."
    assert len(call["attempt_list"]) == 2
    assert [(change, result) for _, change, result in run.records] == [(None, "succeeded")]
    assert len(run.asked) == 2
    assert not run.bodies()[1]["messages"][2]["content"][0].get("is_error")


def test_model_is_told_of_the_error_when_the_tool_says_no_for_good(scene: Scene) -> None:
    tag = scene.tag()
    tool, email = f"look_{tag}", f"{tag}@x.io"
    misbehave(scene, email, do="status", status=404)

    run = Run(scene, agent(script(asks(tool, email), {"text": "Nobody there."}), tools={tool: demo_tool(scene)}))

    assert run.step["output"] == "Nobody there."
    [result] = run.bodies()[1]["messages"][2]["content"]
    assert result["is_error"] is True
    assert "404" in result["content"]


def test_tool_is_taken_away_and_another_used_when_it_fails_three_times_in_a_row(scene: Scene) -> None:
    tag = scene.tag()
    tool, other, email = f"look_{tag}", f"find_{tag}", f"{tag}@x.io"
    misbehave(scene, email, do="status", status=404, times=3)
    tools = {tool: demo_tool(scene), other: demo_tool(scene)}
    ends = [{"says": "busy", "text": "Done."}, {"says": "is disabled", **asks(other, email)}]

    run = Run(scene, agent(script(asks(tool, email), on=ends), tools=tools))

    assert run.step["output"] == "Done."
    assert ("tool_broken", "disable_tool") in [(kind, change) for kind, change, _ in run.records]
    told = run.bodies()[-2]
    assert told["tools"] == run.bodies()[0]["tools"]
    assert "is disabled" in last_words(told)
    assert roles(told)[-2:] in (["user", "system"], ["user", "user"])
    assert len(run.tool_entries()) == 4
    assert f"{tool} failed 3 times in a row" in run.text


def test_agent_is_told_what_it_repeats_and_then_ends(scene: Scene) -> None:
    ends = [{"says": "will change nothing", "text": "I give up."}]

    run = Run(scene, agent(script(asks("look", "a@x.io"), on=ends), tools={"look": demo_tool(scene)}))

    assert run.step["output"] == "I give up."
    assert ("no_progress", "note") in [(kind, change) for kind, change, _ in run.records]
    assert len(run.tool_entries()) == 3
    assert "went in circles" in run.text or "no_progress" in run.text


def test_agent_is_told_what_it_repeats_when_two_turns_alternate(scene: Scene) -> None:
    ends = [{"says": "will change nothing", "text": "I give up."}]
    circle = script(asks("look", "a@x.io"), asks("look", "b@x.io"), on=ends, loop=True)

    run = Run(scene, agent(circle, tools={"look": demo_tool(scene)}))

    assert run.step["output"] == "I give up."
    assert ("no_progress", "note") in [(kind, change) for kind, change, _ in run.records]


def test_step_fails_when_an_agent_goes_on_in_circles_all_the_same(scene: Scene) -> None:
    run = Run(scene, agent(script(asks("look", "a@x.io")), tools={"look": demo_tool(scene)}), status="failed")

    assert run.found["failure"]["kind"] == "no_progress"
    assert "went in circles" in run.text
    assert len(run.asked) < 15


def test_agent_gives_its_last_answer_without_tools_when_its_turns_are_used(scene: Scene) -> None:
    ends = [{"says": "your last message", "text": "As far as I know: nobody."}]
    people = [asks("look", f"p{n}@x.io") for n in range(9)]

    run = Run(
        scene,
        agent(script(*people, on=ends), tools={"look": demo_tool(scene)}, max_turns=3, finish="gracefully"),
    )

    assert run.step["output"] == "As far as I know: nobody."
    assert ("budget_exceeded", "final", "succeeded") in run.records
    last = run.bodies()[-1]
    assert last["tool_choice"] == {"type": "none"}
    assert last["tools"] == run.bodies()[0]["tools"]
    assert len(run.tool_entries()) == 3
