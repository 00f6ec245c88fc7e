"""`surefoot show` and `surefoot why`: what an agent goes on without, and with which model."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import ScriptedServer, Surefoot, workflow

TAKEN: dict[str, Any] = {
    "tool": "look", "scope": "workflow", "step": "plan", "failures": 3, "reason": "It answered \x1b503.",
    "since": "2026-11-22T10:00:05Z", "given_back": False,
}  # fmt: skip
AGAIN = TAKEN | {"tool": "find", "given_back": True}
MISSED = TAKEN | {
    "headline": "The tool look was taken away from every agent: \x1b503; to give it back: surefoot retry wf_1.",
    "commands": [
        {"cli": "surefoot retry wf_1", "curl": "curl …/retry"},
        {"cli": "surefoot show wf_1 plan", "curl": "c"},
    ],
}
SWITCHED: dict[str, Any] = {
    "step": "plan", "id": "claude-b", "alias": "smart", "switched_from": "claude-a", "kind": "refused",
    "since": "2026-11-22T10:00:06Z", "headline": "The model of plan was switched \x1b: The model declined.",
    "commands": [{"cli": "surefoot show wf_1 plan", "curl": "c"}],
}  # fmt: skip
ENDED: dict[str, Any] = {
    "workflow": "wf_1", "status": "failed", "headline": "Failed.", "reasons": [], "more": 0,
    "tools_disabled": [MISSED], "models_switched": [], "commands": [], "generated_at": "2026-11-22T10:10:00Z",
}  # fmt: skip
STEP: dict[str, Any] = {
    "path": "plan", "kind": "agent", "state": "running", "headline": "Running.", "needs": [], "input": None,
    "output": None, "failure": None, "started_at": None, "ended_at": None, "call_list": [], "partial": None,
    "model": {"id": "claude-b", "alias": "smart", "switched_from": "claude-a"}, "tools_disabled": [TAKEN],
}  # fmt: skip
LINE = "disabled     look, after 3 failures in a row in plan: It answered \\x1b503."


def test_why_tells_what_was_taken_away_and_what_gives_it_back(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1/why", ENDED)

    ended = surefoot("why", "wf_1")

    assert ended.out == (
        "Failed.\n"
        "\n"
        "– The tool look was taken away from every agent: \\x1b503; to give it back: surefoot retry wf_1.\n"
        "    surefoot retry wf_1\n"
        "    surefoot show wf_1 plan\n"
    )


def test_why_tells_which_model_goes_on_and_after_what(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1/why", ENDED | {"tools_disabled": [], "models_switched": [SWITCHED]})

    ended = surefoot("why", "wf_1")

    assert ended.out == (
        "Failed.\n\n→ The model of plan was switched \\x1b: The model declined.\n    surefoot show wf_1 plan\n"
    )


def test_show_names_the_tools_that_agents_may_not_use(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1", workflow(tools_disabled=[AGAIN, TAKEN]))

    lines = surefoot("show", "wf_1").out.splitlines()

    assert LINE in lines
    assert not any("find" in line for line in lines)  # it was given back


def test_show_says_which_model_a_step_goes_on_with(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1/steps/plan", STEP)

    lines = surefoot("show", "wf_1", "plan").out.splitlines()

    assert "model        smart (claude-b), in the place of claude-a" in lines
    assert LINE in lines


def test_show_names_a_model_once_when_it_has_no_other_name(server: ScriptedServer, surefoot: Surefoot) -> None:
    model = {"id": "claude-b", "alias": "claude-b", "switched_from": None}
    server.on("GET /v1/workflows/wf_1/steps/plan", STEP | {"model": model, "tools_disabled": []})

    assert "model        claude-b" in surefoot("show", "wf_1", "plan").out.splitlines()
