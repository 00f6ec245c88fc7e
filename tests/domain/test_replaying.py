"""Events alone tell the states: what a decision does is in its events, and `differences` sees what is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.domain import replaying
from tests.domain.machine_alone import Alone
from tests.domain.machine_plans import tool
from tests.domain.machine_sight import row_of
from tests.domain.machine_tools import Tools
from tests.domain.machine_verbs import Asked


def one(effect: str = "at_most_once", **more: Any) -> dict[str, Any]:
    return {"name": "one", "tools": {"do": tool(effect)}, "steps": {"s": {"tool": "do", "with": {"n": 1}, **more}}}


class Story:
    """One workflow, told step by step."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.engine, self.tools = Alone(), Tools()
        self.workflow_id = self.engine.submit(document, {"n": 1, "list": []}, key="k")

    def hears(self, *words: str) -> Story:
        for word in words:
            [call] = [call for call in self.engine.memory.store.every_call() if call.state == "due"]
            self.engine.pass_time(self.engine.memory.store.dues[("call", call.id)][1].due_at - self.engine.memory.now)
            flight = self.engine.claim(call.id, worker=self.engine.worker())
            assert flight is not None
            airborne = self.tools.depart(flight, target=None)
            self.engine.settle(flight, self.tools.hear(airborne, word))
        return self

    @property
    def events(self) -> list[dict[str, Any]]:
        return [row_of(event) for event in self.engine.memory.store.events[self.workflow_id]]

    def differences(self, *, events: list[dict[str, Any]] | None = None, **changed: Any) -> list[str]:
        store = self.engine.memory.store
        rows: dict[str, Any] = {
            "workflow": row_of(store.workflows[self.workflow_id]),
            "steps": [row_of(row) for row in store.steps[self.workflow_id].values()],
            "calls": [row_of(row) for row in store.calls[self.workflow_id].values()],
            "approvals": [row_of(row) for row in store.approvals[self.workflow_id].values()],
        } | changed
        return replaying.differences(
            self.events if events is None else events,
            workflow=rows["workflow"], steps=rows["steps"], calls=rows["calls"], approvals=rows["approvals"],
        )  # fmt: skip


def moves(story: Story) -> list[tuple[str, str | None, str | None]]:
    return [(e["type"], e["from_state"], e["to_state"]) for e in story.events if e["call_id"] is not None]


# --- what the events tell ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "state"), [("ok", "succeeded"), ("refused", "failed")])
def test_event_of_an_attempt_tells_where_its_call_came_to(word: str, state: str) -> None:
    story = Story(one(retry={"tool_error": {"max_retries": 0}})).hears(word)

    assert moves(story) == [("agent.tool.executed", "intended", state)]
    assert story.differences() == []


def test_event_of_an_attempt_leaves_the_move_to_the_event_that_tells_it() -> None:
    story = Story(one()).hears("unknown")

    assert moves(story) == [("agent.tool.executed", None, None), ("effect.in_doubt", "intended", "in_doubt")]
    assert story.differences() == []


def test_event_of_an_attempt_that_was_fenced_tells_that_its_call_is_due_again() -> None:
    story = Story(one()).hears("fenced")

    assert moves(story) == [("agent.tool.executed", "intended", "due")]
    assert story.differences() == []


def test_doubt_that_late_evidence_settles_in_a_drain_is_told_once() -> None:
    story = Story(one())
    [call] = story.engine.memory.store.every_call()
    flight = story.engine.claim(call.id, worker=story.engine.worker())
    assert flight is not None
    story.engine.pass_time(timedelta(hours=1))
    story.engine.in_flight(call.id)
    story.engine.fire("attempt", call.id)
    story.engine.ask(Asked(verb="cancel", workflow_id=story.workflow_id))

    story.engine.settle(flight, story.tools.hear(story.tools.depart(flight, target=None), "refused"))

    assert moves(story)[-2:] == [("effect.resolved", "in_doubt", "cancelled"), ("effect.call.changed", None, None)]
    assert story.differences() == []


def test_step_that_fails_while_it_begins_was_never_told_to_have_begun() -> None:
    story = Story({"name": "one", "tools": {}, "steps": {"s": {"set": {"x": "${{ input.list[9] }}"}}}})

    [failed] = [event for event in story.events if event["type"] == "agent.step.failed"]

    assert (failed["from_state"], failed["to_state"]) == ("pending", "failed")
    assert story.differences() == []


def test_workflow_tells_nothing_after_its_end() -> None:
    story = Story(one()).hears("unknown")
    [call] = story.engine.memory.store.every_call()
    place: dict[str, Any] = {"workflow_id": story.workflow_id, "ref": call.id, "path": "s"}

    story.engine.ask(Asked(verb="resolve", word="abandon", **place))

    assert story.events[-1]["type"] == "workflow.failed"
    assert story.differences() == []


# --- what it sees --------------------------------------------------------------------------------------------------


def test_replay_sees_a_number_that_is_missing() -> None:
    story = Story(one()).hears("ok")

    found = story.differences(events=story.events[:3] + story.events[4:])

    assert "S7: event 4 has the number 5" in found


def test_replay_sees_a_move_that_does_not_follow_from_the_one_before() -> None:
    story = Story(one()).hears("ok")
    events = [
        event | {"from_state": "waiting"} if event["to_state"] == "succeeded" else event for event in story.events
    ]

    found = story.differences(events=events)

    assert any("but it was running" in each for each in found), found


def test_replay_sees_a_move_that_the_table_does_not_list() -> None:
    story = Story(one()).hears("ok")
    events = [
        event | {"to_state": "cancelled"} if event["type"] == "workflow.started" else event for event in story.events
    ]

    found = story.differences(events=events)

    assert any("queued → cancelled is no legal move" in each for each in found), found


@pytest.mark.parametrize(
    ("rows", "state", "said"),
    [("calls", "in_doubt", "the events say succeeded"), ("steps", "running", "the events say succeeded")],
)
def test_replay_sees_a_row_that_is_not_as_its_events_say(rows: str, state: str, said: str) -> None:
    story = Story(one()).hears("ok")
    store = story.engine.memory.store
    [row] = (store.calls if rows == "calls" else store.steps)[story.workflow_id].values()

    [found] = story.differences(**{rows: [row_of(replace(row, state=state))]})

    assert said in found


def test_replay_sees_a_workflow_that_is_not_as_its_events_say() -> None:
    story = Story(one()).hears("ok")
    workflow = story.engine.memory.store.workflows[story.workflow_id]

    found = story.differences(workflow=row_of(replace(workflow, status="running", last_seq=99)))

    assert found == [
        f"S7: the workflow counts 99 events, and there are {len(story.events)}",
        "the workflow is running, and its events say succeeded",
    ]
