"""Failures after which the same bytes are sent again: through the SDK, a worker and Postgres, each kind of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.recovering import QUICK, Run, agent, demo_tool, script
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

TEXT = "A long answer that takes many pieces to arrive. " * 30

FAILURES: dict[str, tuple[dict[str, Any], str, str]] = {
    # what the model does, the kind it is, what the attempt came to
    "429 with retry-after": ({"status": 429, "retry_after": 1}, "rate_limited", "failed"),
    "429 without": ({"status": 429}, "rate_limited", "failed"),
    "529": ({"status": 529}, "overloaded", "failed"),
    "overloaded in mid-stream": ({"sse_error": "overloaded_error", "after": 900}, "overloaded", "failed"),
    "500": ({"status": 500}, "server_error", "failed"),
    "502": ({"status": 502}, "server_error", "failed"),
    "503": ({"status": 503, "retry_after": 0.2}, "server_error", "failed"),
    "504": ({"status": 504}, "server_error", "failed"),
    "408": ({"status": 408}, "server_error", "failed"),
    "409": ({"status": 409}, "server_error", "failed"),
    "api_error in mid-stream": ({"sse_error": "api_error", "after": 900}, "server_error", "failed"),
    "cut in mid-stream": ({"cut_after": 1500}, "network", "unknown"),
    "reset in mid-stream": ({"cut_after": 1500, "reset": True}, "network", "unknown"),
    "no stop reason": ({"unfinished": True}, "network", "unknown"),
    "a chunk that is no JSON": ({"bad_chunk": True}, "network", "unknown"),
    "an empty 200": ({"empty": True}, "network", "unknown"),
    "a web page": ({"html": True}, "network", "unknown"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_same_bytes_are_sent_again_when_the_model_failed(scene: Scene, case: str) -> None:
    failure, kind, outcome = FAILURES[case]
    retry = {kind: {"max_retries": 3, "backoff": QUICK}}

    run = Run(scene, agent(script({"text": TEXT, "fail": [failure]}), step={"retry": retry}))

    assert run.step["output"] == TEXT
    assert set(run.records) == {(kind, None, "succeeded")}
    [call] = run.models
    assert [attempt["outcome"] for attempt in call["attempt_list"]] == [outcome, "succeeded"]
    assert len(run.asked) == 2
    assert run.same_bytes(0, 1)
    assert "the same bytes" in run.text
    assert kind in run.text


def test_no_tool_is_called_when_the_stream_ended_in_the_middle_of_asking_for_it(scene: Scene) -> None:
    asks = {"tools": [{"name": "look", "input": {"email": "ana@x.io"}}], "fail": [{"unfinished": True}]}
    retry = {"network": {"max_retries": 3, "backoff": QUICK}}

    run = Run(
        scene,
        agent(script(asks, {"text": "Done."}), tools={"look": demo_tool(scene)}, step={"retry": retry}),
    )

    assert run.records == [("network", None, "succeeded")]
    assert len(run.tool_entries()) == 1
    assert run.same_bytes(0, 1)


def test_rate_limit_is_waited_for_when_its_retry_after_says_so(scene: Scene) -> None:
    run = Run(scene, agent(script({"text": "At last.", "fail": [{"status": 429, "retry_after": 2}]})))

    [record] = run.models[0]["recovery"]
    assert record["waited_ms"] >= 2000
    assert run.step["output"] == "At last."


def test_step_fails_with_the_last_failure_when_its_repeats_are_used_up(scene: Scene) -> None:
    retry = {"server_error": {"max_retries": 2, "backoff": QUICK}}

    run = Run(
        scene, agent(script({"text": "never", "fail": [{"status": 500}] * 9}), step={"retry": retry}), status="failed"
    )

    assert run.found["failure"]["kind"] == "server_error"
    assert len(run.asked) == 3
    assert run.same_bytes(0, 1, 2)
    assert [result for _, _, result in run.records] == ["failed", "failed"]
    assert run.found["failure"]["fix"] in run.text
