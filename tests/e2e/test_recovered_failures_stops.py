"""Failures that repeating does not heal, answers that nobody waits for, and what can be seen of one that is written.

An installation of its own: a credential that is refused parks all model calls of it, and answers may take only seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.driver import Installation, Row, until
from tests.e2e.recovering import QUICK, Books, Run, a_model, agent, script, until_entry
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

TEXT = "A long answer that takes its time to be written. " * 60
STALLS = {"text": TEXT, "fail": [{"stall_after": 2500}]}
"""Its beginning arrives, and then nothing more."""
MODEL_TIMEOUT = 20
"""Seconds: long enough for everything here that is to happen before it, on a busy machine."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    settings = {"SUREFOOT_MODEL_TIMEOUT": str(MODEL_TIMEOUT)}
    found = Installation(Path(tmp_path_factory.mktemp("up")), environment=settings)
    found.start()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def books(scene: Scene) -> Iterator[Books]:
    found = Books(scene)
    yield found
    found.behave_well()
    for breaker in _breakers(scene):
        answer = scene.up.http.post(f"/v1/breakers/{breaker['scope']}/reset")
        assert answer.status_code == 200, answer.text


def _breakers(scene: Scene) -> list[Row]:
    found: list[Row] = scene.up.http.get("/v1/breakers").json()["data"]
    return found


def _begin(scene: Scene, definition: Row) -> str:
    workflow = scene.up.submit(definition)
    scene.workflows.append(workflow)
    return workflow


# --- not repeated --------------------------------------------------------------------------------------------------

PARKED: dict[str, tuple[dict[str, Any], str]] = {
    "401": ({"status": 401}, "credential_refused"),
    "403": ({"status": 403}, "credential_refused"),
    "402": ({"status": 402}, "spend_limited"),
    "429 of a spending limit": ({"status": 429, "error_code": "enforced_spend_limit_reached"}, "spend_limited"),
    "400 of one's own limit": (
        {"status": 400, "message": "You have reached your specified API usage limits."},
        "spend_limited",
    ),
}


@pytest.mark.parametrize("case", PARKED)
def test_call_is_held_and_goes_on_after_a_reset_when_the_credential_was_refused(
    scene: Scene, books: Books, case: str
) -> None:
    failure, attention = PARKED[case]
    workflow = _begin(scene, agent(script({"text": "At last.", "fail": [failure]})))

    found = scene.up.until_status(workflow, "waiting")
    [call] = scene.up.step(workflow, "write")["call_list"]
    why = scene.up.http.get(f"/v1/workflows/{workflow}/why").json()
    scopes = [breaker["scope"] for breaker in _breakers(scene)]
    for scope in scopes:
        scene.up.http.post(f"/v1/breakers/{scope}/reset").raise_for_status()
    scene.up.until_status(workflow, "succeeded")

    assert (call["state"], call["held_reason"]) == ("held", "breaker")
    assert attention in found["attention"]
    assert scopes
    assert "surefoot" in str(why)
    assert len(books.of(workflow)) == 2
    assert scene.up.step(workflow, "write")["output"] == "At last."


FATAL: dict[str, tuple[dict[str, Any], str]] = {
    "404": ({"status": 404, "message": "model: claude-nobody"}, "model_not_found"),
    "400": ({"status": 400, "message": "tools.0: what was wrong"}, "invalid_request"),
    "422": ({"status": 422}, "invalid_request"),
}


@pytest.mark.parametrize("case", FATAL)
def test_step_fails_at_once_with_what_to_do_when_the_request_is_refused(scene: Scene, case: str) -> None:
    failure, kind = FATAL[case]

    run = Run(scene, agent(script({"text": "never", "fail": [failure]})), status="failed")

    assert run.found["failure"]["kind"] == kind
    assert run.found["failure"]["fix"]
    assert run.found["failure"]["fix"].split(";")[0] in run.text.replace("\n          ", " ")
    assert len(run.asked) == 1
    assert run.records == []


def test_model_is_not_called_when_its_worst_case_is_over_the_budget(scene: Scene) -> None:
    run = Run(scene, agent(script({"text": "never"}), step={"budget": {"tokens": 50}}), status="failed")

    assert run.found["failure"]["kind"] == "budget_exceeded"
    assert run.asked == []
    assert "budget" in run.text


def test_everything_is_answered_in_its_turn_when_the_provider_limits_requests(scene: Scene, books: Books) -> None:
    model = a_model()
    books.behave(limits={"model": model, "requests": 2, "seconds": 4})

    workflows = [_begin(scene, agent(script({"text": "ok"}), model=model)) for _ in range(5)]

    for workflow in workflows:
        scene.up.until_status(workflow, "succeeded", seconds=60)
    entries = [entry for workflow in workflows for entry in books.of(workflow)]
    assert sum(entry["status"] == 200 for entry in entries) == 5
    assert {entry["status"] for entry in entries} <= {200, 429}
    assert len(entries) <= 15


# --- in time -------------------------------------------------------------------------------------------------------


def test_request_is_closed_within_a_heartbeat_when_its_workflow_is_cancelled(scene: Scene, books: Books) -> None:
    workflow = _begin(scene, agent(script(STALLS)))
    partial = _until_written(scene, workflow)

    answer = scene.up.http.post(f"/v1/workflows/{workflow}/cancel", json={"reason": "enough"})
    assert answer.status_code in (200, 202), answer.text
    found = scene.up.until_status(workflow, "cancelled")
    entry = until_entry(books, workflow, "that the client hung up", "disconnected")

    step = scene.up.step(workflow, "write")
    [call] = step["call_list"]
    [attempt] = call["attempt_list"]
    assert (call["state"], attempt["outcome"], attempt["failure_kind"]) == ("cancelled", "unknown", "cancelled")
    assert attempt["usage"]["input_tokens"] == entry["input_tokens"] == found["cost"]["input_tokens"]
    assert partial["characters"] // 4 <= attempt["usage"]["output_tokens"] < entry["output_tokens"]
    assert float(found["cost"]["usd"]) > 0
    assert step["partial"] is None
    text = scene.up.http.get(f"/v1/workflows/{workflow}/trace", params={"format": "text"}).text
    assert "broken off" in text


def test_request_is_closed_when_its_step_runs_out_of_time(scene: Scene, books: Books) -> None:
    workflow = _begin(scene, agent(script(STALLS), step={"timeout": "4s"}))

    found = scene.up.until_status(workflow, "failed")
    entry = until_entry(books, workflow, "that the client hung up", "disconnected")

    assert found["failure"]["kind"] == "step_timeout"
    assert found["cost"]["input_tokens"] == entry["input_tokens"]
    assert len(books.of(workflow)) == 1


def test_stalled_answer_is_given_up_at_its_timeout_and_asked_for_again(scene: Scene) -> None:
    retry = {"timeout": {"max_retries": 2, "backoff": QUICK}}

    run = Run(scene, agent(script(STALLS), step={"retry": retry}), seconds=MODEL_TIMEOUT + 40)

    assert run.records == [("timeout", None, "succeeded")]
    assert run.same_bytes(0, 1)


def test_answer_is_asked_for_again_when_its_worker_was_killed(scene: Scene, books: Books) -> None:
    workflow = _begin(scene, agent(script(STALLS)))
    _until_written(scene, workflow)
    [attempt] = scene.up.attempts(workflow)

    pids = scene.up.kill(attempt["worker_name"])
    scene.up.until_status(workflow, "succeeded", seconds=60)
    scene.up.until_back(pids)

    step = scene.up.step(workflow, "write")
    [call] = step["call_list"]
    first, second = books.of(workflow)
    assert step["output"] == TEXT
    assert [(r["kind"], r["change"], r["result"]) for r in call["recovery"]] == [("worker_lost", None, "succeeded")]
    assert first["bytes"] == second["bytes"]
    assert first["disconnected"] is not None
    text = scene.up.http.get(f"/v1/workflows/{workflow}/trace", params={"format": "text"}).text
    assert "worker_lost" in text


# --- seen ----------------------------------------------------------------------------------------------------------


def test_what_is_written_so_far_is_seen_while_it_is_written(scene: Scene) -> None:
    workflow = _begin(scene, agent(script({"text": TEXT, "latency_ms": 12_000})))

    partial = _until_written(scene, workflow)
    text = scene.up.http.get(f"/v1/workflows/{workflow}/trace", params={"format": "text"}).text
    scene.up.until_status(workflow, "succeeded")

    assert TEXT.startswith(partial["text"])
    assert (partial["attempt"], partial["tools"]) == (1, [])
    assert "writing… " in text
    assert scene.up.step(workflow, "write")["partial"] is None


def _until_written(scene: Scene, workflow: str) -> Row:
    def look() -> Row | None:
        partial: Row | None = scene.up.step(workflow, "write")["partial"]
        return partial

    return until("something of the answer is written", look, seconds=60)
