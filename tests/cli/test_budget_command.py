"""`surefoot budget`: what it sends, prints and ends with, against a scripted server on a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import ScriptedServer, Surefoot, problem, workflow

BUDGET: list[dict[str, Any]] = [
    {
        "scope": "workflow",
        "on_exceeded": "pause",
        "limits": {
            "usd": "0.1000",
            "tokens": None,
            "turns": 9,
            "tool_calls": None,
            "duration": "5m",
            "recovery_usd": None,
        },
        "spent": {
            "usd": "0.0420",
            "tokens": 10,
            "turns": 3,
            "tool_calls": 1,
            "duration": "12s",
            "recovery_usd": "0.0000",
        },
        "reserved": {"usd": "0.0100", "tokens": 5, "turns": 0, "tool_calls": 0},
        "overrun_usd": None,
        "exceeded": True,
    }
]
LINE = "budget       $0.0420 of $0.1000 ($0.0100 reserved), 3 of 9 turns, 12s of 5m of its time  (used up: pause)\n"


def test_person_sees_what_was_taken_of_what_is_allowed(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1", {**workflow("running"), "budget": BUDGET})

    ended = surefoot("budget", "wf_1")

    assert (ended.code, ended.out) == (0, f"{LINE}◌ It is running.\n")


def test_operator_gives_more_with_a_key_of_the_request_and_is_told_what_is_so_now(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    server.on("POST /v1/workflows/wf_1/budget", {**workflow("running"), "budget": BUDGET}, status=202)

    ended = surefoot("budget", "wf_1", "--usd", "1.00", "--turns", "3", "--step", "a", "--note", "go on")

    assert (ended.code, ended.out) == (0, f"{LINE}◌ It is running.\n")
    assert ended.err == "  surefoot trace wf_1 --follow\n"
    assert server.asked[0].body == {"usd": "1.00", "turns": 3, "step": "a", "note": "go on"}
    assert server.asked[0].headers["idempotency-key"].startswith("cli-")


def test_operator_is_sent_on_to_retry_when_the_workflow_had_failed(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/workflows/wf_1/budget", {**workflow("failed"), "budget": BUDGET}, status=202)

    assert surefoot("budget", "wf_1", "--tokens", "10").err == "  surefoot retry wf_1\n"


@pytest.mark.parametrize("option", [("--step", "a"), ("--note", "n")])
def test_operator_is_asked_how_much_when_nothing_is_given(surefoot: Surefoot, option: tuple[str, str]) -> None:
    ended = surefoot("budget", "wf_1", *option)

    assert ended.code != 0
    assert "Nothing is given" in ended.err


def test_operator_is_told_what_is_possible_when_it_is_refused(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/workflows/wf_1/budget", problem("not_possible", 409), status=409)

    ended = surefoot("budget", "wf_1", "--usd", "1")

    assert (ended.code, ended.out) == (1, "")


def test_person_is_told_when_there_is_no_budget(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1", {**workflow("running"), "budget": None})

    assert "has no budget" in surefoot("budget", "wf_1").err
