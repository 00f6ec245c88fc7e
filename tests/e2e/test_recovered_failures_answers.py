"""Answers that cannot be used, and what is asked instead: through the SDK, a worker and Postgres, each kind of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.recovering import QUICK, Run, a_model, agent, demo_tool, last_words, roles, script
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

MINUTES = {"output_schema": {"minutes": {"type": "integer", "minimum": 15}}}
LOOK = {"name": "look", "input": {"email": "ana@x.io"}}


def test_model_is_told_the_exact_complaint_when_its_answer_is_no_json(scene: Scene) -> None:
    run = Run(scene, agent(script({"text": '{"minutes": 30,,}'}, {"json": {"minutes": 30}}), step=MINUTES))

    assert run.step["output"] == {"minutes": 30}
    assert run.records == [("malformed_output", "format_reminder", "succeeded")]
    first, second = run.bodies()
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert roles(second) == ["user", "assistant", "user"]
    assert "line 1 col 16" in last_words(second)
    assert "JSON Schema" in last_words(second)


def test_model_is_told_every_place_when_its_answer_has_the_wrong_shape(scene: Scene) -> None:
    run = Run(scene, agent(script({"json": {"minutes": 5}}, {"json": {"minutes": 30}}), step=MINUTES))

    assert run.records == [("wrong_shape", "format_reminder", "succeeded")]
    assert "/minutes" in last_words(run.bodies()[1])


@pytest.mark.parametrize(
    ("text", "reason"), [("a \x00 NUL", "NUL"), ("half \ud800 a pair", "surrogate")], ids=["nul", "surrogate"]
)
def test_model_is_told_where_when_its_answer_cannot_be_stored(scene: Scene, text: str, reason: str) -> None:
    run = Run(scene, agent(script({"text": text}, on=[{"says": "could not be used", "text": "Clean."}])))

    assert run.step["output"] == "Clean."
    assert run.records == [("malformed_output", "format_reminder", "succeeded")]
    assert "/content/0/text" in last_words(run.bodies()[1])
    assert reason in last_words(run.bodies()[1])


def test_model_is_asked_again_when_it_uses_one_id_for_two_tools(scene: Scene) -> None:
    twice = {"tools": [LOOK | {"id": "toolu_1"}, LOOK | {"id": "toolu_1"}]}

    ends = [{"says": "could not be used", "text": "Done."}]

    run = Run(scene, agent(script(twice, on=ends), tools={"look": demo_tool(scene)}))

    assert run.records == [("malformed_output", "format_reminder", "succeeded")]
    assert run.tool_entries() == []
    assert run.step["output"] == "Done."


def test_answer_is_continued_and_joined_when_it_was_cut_at_max_tokens(scene: Scene) -> None:
    first, rest = "one two three " * 40, "four five"

    run = Run(scene, agent(script({"text": first}, {"text": rest}), max_tokens=100))

    cut = first[:400]
    assert run.step["output"] == cut + rest
    assert [(kind, result) for kind, _, result in run.records] == [("output_truncated", "succeeded")]
    assert [entry["stop_reason"] for entry in run.asked] == ["max_tokens", "end_turn"]
    before, after = run.bodies()
    assert after["messages"][: len(before["messages"])] == before["messages"]
    assert roles(after) == ["user", "assistant", "user"]
    assert after["messages"][1]["content"] == [{"type": "text", "text": cut}]
    assert "continue" in last_words(after).lower()


def test_parts_of_an_answer_are_judged_together_when_json_was_cut_at_max_tokens(scene: Scene) -> None:
    whole = json.dumps({"minutes": 45, "note": "x" * 500})
    step = {"output_schema": {"minutes": {"type": "integer"}, "note": {"type": "string"}}}

    run = Run(scene, agent(script({"text": whole}, {"text": whole[400:]}), max_tokens=100, step=step))

    assert run.step["output"] == json.loads(whole)


def test_max_tokens_is_doubled_when_a_tool_call_was_cut_in_half(scene: Scene) -> None:
    long = {"tools": [{"name": "look", "input": {"email": "a" * 700 + "@x.io"}}]}

    run = Run(scene, agent(script(long, {"text": "Done."}), max_tokens=128, tools={"look": demo_tool(scene)}))

    assert run.step["output"] == "Done."
    assert run.records == [("output_truncated", "double_max_tokens", "succeeded")]
    assert [entry["max_tokens"] for entry in run.asked] == [128, 256, 256]
    assert run.asked[0]["hash"] == run.asked[1]["hash"]
    assert len(run.tool_entries()) == 1
    [record] = run.models[1]["recovery"]
    assert record["diff"] == ["- max_tokens 128", "+ max_tokens 256"]


def test_another_model_is_asked_once_when_the_first_refuses(scene: Scene) -> None:
    first, second = a_model(), a_model("claude-sonnet-5-5")
    retry = {"refused": {"switch_model": second}}
    prompt = script({"text": "No.", "stop": "refusal", "category": "cyber"}, on=[{"model": "sonnet", "text": "Yes."}])

    run = Run(scene, agent(prompt, model=first, step={"retry": retry}))

    assert run.step["output"] == "Yes."
    assert [entry["model"] for entry in run.asked] == [first, second]
    assert run.records == [("refused", "switch_model", "succeeded")]
    assert run.models[1]["recovery"][0]["diff"] == [f"- model {first}", f"+ model {second}"]
    assert "cyber" in run.text


def test_step_fails_with_the_category_when_the_model_refuses_and_no_other_is_named(scene: Scene) -> None:
    run = Run(scene, agent(script({"text": "No.", "stop": "refusal", "category": "bio"})), status="failed")

    assert run.found["failure"]["kind"] == "refused"
    assert "bio" in run.found["failure"]["message"]
    assert len(run.asked) == 1


def test_another_model_goes_on_when_the_first_stays_overloaded(scene: Scene) -> None:
    first, second = a_model(), a_model("claude-sonnet-5-5")
    retry = {"overloaded": {"max_retries": 2, "backoff": QUICK, "switch_model": second}}
    prompt = script({"text": "never", "fail": [{"status": 529}] * 9}, on=[{"model": "sonnet", "text": "Here."}])

    run = Run(scene, agent(prompt, model=first, step={"retry": retry}))

    assert run.step["output"] == "Here."
    assert [entry["model"] for entry in run.asked] == [first, first, first, second]
    assert run.same_bytes(0, 1, 2)
    assert run.records[-1] == ("overloaded", "switch_model", "succeeded")


def test_thinking_is_left_out_when_the_other_model_cannot_read_it(scene: Scene) -> None:
    newer, older = a_model("claude-haiku-5-5"), a_model("claude-opus-5-5")
    asks = {"thinking": "I must look first.", "tools": [LOOK]}
    refuses = {"text": "No.", "stop": "refusal"}
    retry = {"refused": {"switch_model": older}}
    prompt = script(asks, refuses, on=[{"model": "opus", "text": "Looked."}])

    run = Run(scene, agent(prompt, model=newer, tools={"look": demo_tool(scene)}, step={"retry": retry}))

    kept, carried = run.bodies()[1:]
    assert run.step["output"] == "Looked."
    assert [block["type"] for block in kept["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert [block["type"] for block in carried["messages"][1]["content"]] == ["tool_use"]
    assert carried["messages"][2] == kept["messages"][2]
    assert len(run.tool_entries()) == 1


def test_paused_turn_goes_on_unchanged(scene: Scene) -> None:
    run = Run(scene, agent(script({"text": "Searching… ", "stop": "pause_turn"}, {"text": "found."})))

    assert run.step["output"] == "Searching… found."
    assert [(kind, result) for kind, _, result in run.records] == [("paused_turn", "succeeded")]
    first, second = run.bodies()
    assert roles(second) == ["user", "assistant"]
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1]["content"][-1]["type"] == "server_tool_use"


TOO_LONG: dict[str, dict[str, Any]] = {
    "400": {"status": 400, "message": "prompt is too long: 210000 tokens > 200000 maximum"},
    "413": {"status": 413},
}


@pytest.mark.parametrize("case", TOO_LONG)
def test_conversation_is_summarised_when_the_model_says_that_it_is_too_long(scene: Scene, case: str) -> None:
    other = {"tools": [{"name": "look", "input": {"email": "bo@x.io"}}]}
    ends = [{"says": "Summary of the conversation so far", "text": "Done."}]
    prompt = script({"tools": [LOOK]}, other, {"text": "never", "fail": [TOO_LONG[case]]}, on=ends)

    run = Run(scene, agent(prompt, tools={"look": demo_tool(scene)}))

    assert run.step["output"] == "Done."
    assert ("context_too_long", "summarise", "succeeded") in run.records
    summary, last = run.bodies()[-2:]
    assert "Summarise this conversation" in last_words(summary)
    assert roles(last) == ["user"]
    assert "Scripted summary after" in last_words(last)
    assert len(run.tool_entries()) == 2


def test_conversation_is_summarised_before_it_fills_a_small_window(scene: Scene) -> None:
    turns = [{"tools": [{"name": "look", "input": {"email": f"{'x' * 1500}{n}@x.io"}}]} for n in range(4)]
    prompt = script(*turns, on=[{"says": "Summary of the conversation so far", "text": "Done."}])

    run = Run(
        scene,
        agent(prompt, model="claude-scripted-small", max_tokens=1000, tools={"look": demo_tool(scene)}),
    )

    assert run.step["output"] == "Done."
    assert ("context_too_long", "summarise", "succeeded") in run.records
    assert all(entry["status"] == 200 for entry in run.asked)
