"""The founding story over HTTP: a sentence becomes one booked meeting, through one bad answer of the model."""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal

import pytest

from tests.e2e.driver import REPOSITORY, Row
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

MEETING = REPOSITORY / "examples" / "meeting-scheduler.yaml"


def test_meeting_is_booked_once_when_the_first_answer_is_malformed(scene: Scene) -> None:
    tag = scene.tag()
    body = {
        "definition_text": MEETING.read_text(encoding="utf-8"),
        "source_name": MEETING.name,
        "input": {
            "meeting_id": tag,
            "organizer": "kim@x.io",
            "request": f"30 min with ana-{tag}@x.io and bo-{tag}@x.io on Tuesday afternoon",
        },
    }

    posted = scene.up.http.post("/v1/workflows", json=body, headers={"Idempotency-Key": tag})
    again = scene.up.http.post("/v1/workflows", json=body, headers={"Idempotency-Key": tag})

    assert (posted.status_code, again.status_code) == (202, 202), posted.text
    workflow = posted.json()["id"]
    scene.workflows.append(workflow)
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (workflow, "true")
    found = scene.up.until_status(workflow, "succeeded")
    mine = [entry for entry in scene.tools.ledger() if entry["workflow"] == workflow]
    assert Counter(entry["tool"] for entry in mine if entry["executed"]) == {
        "calendar.free_busy": 2,
        "calendar.create_event": 1,
        "email.send": 2,
    }
    (event,) = [entry for entry in mine if entry["tool"] == "calendar.create_event"]
    assert event["key"] == f"meeting:{tag}"
    assert found["output"] == {"event_id": event["result"]["event_id"]}
    assert found["effects"]["done"] == 3
    assert Decimal(found["cost"]["usd"]) > Decimal(found["cost"]["recovery_usd"]) > 0
    _expect_one_reminder(scene.up.step(workflow, "understand"))
    text = scene.up.http.get(f"/v1/workflows/{workflow}/trace", params={"format": "text", "width": 100}).text
    assert _skeleton(text.partition("  effects ")[0]) == _skeleton(_picture_of_the_readme())


def _picture_of_the_readme() -> str:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return readme[readme.index("✓ meeting-scheduler ") :].partition("  effects ")[0]


def _skeleton(text: str) -> list[str]:
    """The words of a drawn trace, without what differs from run to run: numbers, ids, names, bars, line breaks."""
    bare = re.sub(r"wf_\w+|evt_\w+|meeting:\S+|[█├─┤]|^ +0s .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\$?[\d.,]+", "#", bare).split()


def test_agent_uses_its_tools_and_answers_in_shape_when_it_is_scripted(scene: Scene) -> None:
    tag = scene.tag()
    book = {"title": tag, "start": "2026-12-01T10:00:00Z", "attendees": ["ana@x.io"]}
    turns = [
        {"tools": [{"name": "calendar.free_busy", "input": {"email": f"{tag}@x.io"}}]},
        {"tools": [{"name": "calendar.create_event", "input": book}]},
        {"fail": [{"status": 529}], "json": {"booked": True}},
    ]
    document = {
        "name": "scripted-agent",
        "agents": {"planner": {"model": "fast", "tools": ["calendar.free_busy", "calendar.create_event"]}},
        "steps": {
            "plan": {
                "agent": "planner",
                "prompt": f"[[scripted: {json.dumps({'turns': turns})}]]",
                "output_schema": {"booked": {"type": "boolean"}},
                "retry": {"overloaded": {"max_retries": 3, "backoff": {"first": "100ms", "factor": 1, "max": "100ms"}}},
            }
        },
    }

    workflow = scene.up.submit(document)
    scene.workflows.append(workflow)

    scene.up.until_status(workflow, "succeeded")
    step = scene.up.step(workflow, "plan")
    assert step["output"] == {"booked": True}
    kinds = [(call["kind"], call["tool"], len(call["attempt_list"])) for call in step["call_list"]]
    assert kinds == [
        ("model", None, 1),
        ("tool", "calendar.free_busy", 1),
        ("model", None, 1),
        ("tool", "calendar.create_event", 1),
        ("model", None, 2),
    ]
    mine = [entry for entry in scene.tools.ledger() if entry["workflow"] == workflow]
    assert [(entry["tool"], entry["executed"]) for entry in mine] == [
        ("calendar.free_busy", True),
        ("calendar.create_event", True),
    ]


def _expect_one_reminder(step: Row) -> None:
    """One answer that was no JSON; one more question, which says so; the answer to that is right."""
    first, second = step["call_list"]
    assert (first["kind"], second["kind"]) == ("model", "model")
    assert second["retry_of"] == first["id"]
    records = [record for call in step["call_list"] for record in call["recovery"]]
    assert [(record["kind"], record["change"], record["result"]) for record in records] == [
        ("malformed_output", "format_reminder", "succeeded")
    ]
