"""What is offered next: commands that can be pasted, for each thing that waits, and what `effects` says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ScriptedServer, Surefoot, workflow


def effect(name: str, **members: Any) -> dict[str, Any]:
    return {
        "id": name, "workflow_id": "wf_1", "state": "succeeded", "step": "pay", "tool": "bank.transfer",
        "effect": "keyed", "attempts": 1, "key": None, "undo": "none", "resolved": None,
    } | members  # fmt: skip


def test_effects_are_read_to_the_last_page_with_what_each_needs(server: ScriptedServer, surefoot: Surefoot) -> None:
    totals = {"done": 2, "duplicates_prevented": 1, "unknown": 1, "undone": 0, "abandoned": 0}
    first = {"data": [effect("call_1", undo="failed")], "has_more": True, "next_cursor": "c", "totals": totals}
    last = {"data": [effect("call_2", state="in_doubt")], "has_more": False, "next_cursor": None, "totals": totals}
    server.on("GET /v1/workflows/wf_1/effects", first)
    server.on("GET /v1/workflows/wf_1/effects", last)

    ended = surefoot("effects", "wf_1")

    lines = ended.out.splitlines()
    assert lines[1].split()[1:3] == ["succeeded", "failed"]
    assert lines[3:] == [
        "2 done · 1 duplicates prevented · 1 unknown · 0 undone · 0 abandoned",
        "surefoot resolve call_2 happened --note '…'",
        "surefoot resolve call_2 did-not-happen --note '…'",
        "surefoot resolve call_2 abandon --note '…'",
        "surefoot undo call_1 retry --note '…'",
        "surefoot undo call_1 done --note '…'",
        "surefoot undo call_1 skip --note '…'",
    ]
    assert [asked.query for asked in server.asked] == [{"limit": ["500"]}, {"limit": ["500"], "cursor": ["c"]}]


def test_one_command_for_all_is_offered_when_there_are_many_doubts(server: ScriptedServer, surefoot: Surefoot) -> None:
    rows = [effect(f"call_{number}", state="in_doubt") for number in range(5)]
    server.on("GET /v1/effects", {"data": rows, "has_more": False, "next_cursor": None})

    lines = surefoot("effects", "--state", "in_doubt").out.splitlines()

    assert sum(line.startswith("surefoot resolve call_") for line in lines) == 9
    assert lines[-2:] == [
        "and 2 more in doubt; all of one tool at once:",
        "surefoot resolve did-not-happen --all --tool bank.transfer --note '…' --dry-run",
    ]


def test_effects_say_whose_effect_it_is_when_a_call_attached_to_another(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    resolved = {"outcome": "attached", "note": None, "by": "effect_keys", "at": "2026-11-24T14:02:11Z"}
    row = effect("call_2", attempts=0, attached_to="call_1", resolved=resolved)
    server.on("GET /v1/workflows/wf_1/effects", {"data": [row], "has_more": False, "next_cursor": None})

    lines = surefoot("effects", "wf_1").out.splitlines()

    assert lines[-1] == "call_2 is the effect of call_1, which has the same key; it was not sent"


def test_effects_of_all_workflows_are_listed_when_none_is_named(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/effects", {"data": [effect("call_1", undo="failed")], "has_more": False, "next_cursor": None})

    ended = surefoot("effects", "--undo", "failed", "--tool", "bank.transfer")

    assert "wf_1" in ended.out.splitlines()[1]
    assert server.asked[0].query == {"undo": ["failed"], "tool": ["bank.transfer"], "limit": ["500"]}


@pytest.mark.parametrize(
    ("members", "commands"),
    [
        ({"status": "paused"}, ["surefoot resume wf_1"]),
        ({"status": "failed", "compensation": "not_needed"}, ["surefoot retry wf_1"]),
        (
            {"status": "failing", "waiting_on": [{"kind": "saga"}]},
            ["surefoot compensate wf_1 undo --note '…'", "surefoot compensate wf_1 keep --note '…'"],
        ),
        (
            {"status": "compensating", "waiting_on": [{"kind": "compensation", "effect": "call_1"}]},
            [f"surefoot undo call_1 {action} --note '…'" for action in ("retry", "done", "skip")],
        ),
        ({"status": "waiting", "waiting_on": [{"kind": "held", "reason": "operator"}] * 2}, ["surefoot holds"]),
    ],
)
def test_next_command_is_offered_when_an_operator_can_move_a_workflow(
    server: ScriptedServer, surefoot: Surefoot, members: dict[str, Any], commands: list[str]
) -> None:
    server.on("GET /v1/workflows/wf_1", workflow(**members))

    ended = surefoot("show", "wf_1")

    lines = ended.out.splitlines()
    begins = next(at for at, line in enumerate(lines) if line.startswith("next  "))
    assert [line[13:] for line in lines[begins:]] == [*commands, "surefoot trace wf_1"]


@pytest.mark.parametrize(
    "members",
    [
        {"status": "paused"},
        {"status": "failing", "waiting_on": [{"kind": "saga"}]},
        {"status": "compensating", "waiting_on": [{"kind": "compensation", "effect": "call_1"}]},
    ],
)
def test_waiting_ends_with_the_code_for_a_person_when_an_operator_is_needed(
    server: ScriptedServer, surefoot: Surefoot, tmp_path: Path, members: dict[str, Any]
) -> None:
    (tmp_path / "hello.yaml").write_text("name: hello\nsteps:\n  greet:\n    set: { text: Hello }\n")
    server.on("POST /v1/workflows", workflow(), status=202)
    server.on("GET /v1/workflows/wf_1", workflow(**members))

    ended = surefoot("submit", f"{tmp_path}/hello.yaml", "--wait", "--timeout", "60")

    assert ended.code == 3


def test_retry_is_not_offered_when_effects_were_undone(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1", workflow("failed", compensation="done"))

    ended = surefoot("show", "wf_1")

    assert "retry" not in ended.out


def test_doubts_of_the_last_hours_are_meant_when_a_duration_is_given(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    server.on("POST /v1/effects/resolve", {"matched": 0, "resolved": 0, "refused": [], "remaining": 0})
    numbers = "# TYPE surefoot_database_time_seconds gauge\nsurefoot_database_time_seconds 1.795e+09\n"
    server.on("GET /metrics", numbers, headers={"Content-Type": "text/plain"})

    ended = surefoot("resolve", "happened", "--all", "--since", "2h", "--until", "2026-11-24T14:00:00Z", "--note", "n")

    assert server.asked[-1].body["filter"] == {
        "since": "2026-11-18T09:06:40+00:00", "until": "2026-11-24T14:00:00+00:00",
    }  # fmt: skip
    assert ended.out == "No doubt fits.\n"
