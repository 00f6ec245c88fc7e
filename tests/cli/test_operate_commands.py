"""What an operator's commands send, print and end with, against a scripted server on a real socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ScriptedServer, Surefoot, problem, workflow

EFFECT = {"id": "call_1", "step": "pay", "tool": "bank.transfer", "state": "succeeded", "workflow_id": "wf_1"}
APPROVAL = {"id": "apr_1", "title": "Refund $480?", "revision": 4, "workflow_id": "wf_1"}
BULK = {"matched": 3, "resolved": 3, "refused": [], "remaining": 0}
HELD = {"scope": "tool:email.send", "reason": "twice today", "by": "key:1", "created_at": "2026-11-24T14:02:11Z"}


@pytest.mark.parametrize(
    ("arguments", "verb", "body", "after"),
    [
        (["pause", "wf_1", "--reason", "bank is down"], "pause", {"reason": "bank is down"}, "surefoot resume wf_1"),
        (["resume", "wf_1"], "resume", {}, "surefoot trace wf_1 --follow"),
        (["retry", "wf_1", "--note", "new key"], "retry", {"note": "new key"}, "surefoot trace wf_1 --follow"),
        (
            ["compensate", "wf_1", "undo", "--note", "asked for it"],
            "compensate",
            {"mode": "undo", "note": "asked for it"},
            "surefoot trace wf_1 --follow",
        ),
    ],
)
def test_operator_is_told_what_is_so_now_and_what_comes_next_when_a_workflow_is_moved(
    server: ScriptedServer, surefoot: Surefoot, arguments: list[str], verb: str, body: dict[str, str], after: str
) -> None:
    server.on(f"POST /v1/workflows/wf_1/{verb}", workflow("running"), status=202)

    ended = surefoot(*arguments)

    assert (ended.code, ended.out, ended.err) == (0, "◌ It is running.\n", f"  {after}\n")
    assert server.asked[0].body == body


@pytest.mark.parametrize("arguments", [["pause", "wf_1"], ["retry", "wf_1"], ["resume", "wf_1"]])
def test_operator_gets_what_the_server_said_when_asking_for_json(
    server: ScriptedServer, surefoot: Surefoot, arguments: list[str]
) -> None:
    server.on(f"POST /v1/workflows/wf_1/{arguments[0]}", workflow("paused"), status=202)

    ended = surefoot(*arguments, "--json")

    assert (ended.code, json.loads(ended.out), ended.err) == (0, workflow("paused"), "")


def test_operator_is_told_what_is_possible_when_a_verb_is_refused(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/workflows/wf_1/retry", problem("not_possible", 409, possible=["fork"]), status=409)

    ended = surefoot("retry", "wf_1")

    assert (ended.code, ended.out) == (1, "")
    assert "possible  fork" in ended.err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "verb", "body"),
    [
        (["skip", "--note", "not wanted"], "skip", {"note": "not wanted"}),
        (["complete", "--output", '{"id": 7}'], "complete", {"output": {"id": 7}}),
        (["complete", "--output", "null"], "complete", {"output": None}),
        (["fail"], "fail", {}),
        (["retry-now"], "retry-now", {}),
    ],
)
def test_step_is_taken_into_the_operators_hands_when_named_by_its_path(
    server: ScriptedServer, surefoot: Surefoot, arguments: list[str], verb: str, body: dict[str, Any]
) -> None:
    path = f"/v1/workflows/wf_1/steps/availability.3/{verb}"
    server.on(f"POST {path}", {"path": "availability.3", "state": "succeeded", "headline": "By hand."})

    ended = surefoot("step", "wf_1", "availability.3", *arguments)

    assert (ended.code, ended.out) == (0, "✓ availability.3  By hand.\n")
    assert server.asked[0].body == body
    assert "surefoot trace wf_1 --follow" in ended.err


def test_output_is_read_from_a_file_when_it_begins_with_an_at(
    server: ScriptedServer, surefoot: Surefoot, tmp_path: Path
) -> None:
    server.on("POST /v1/workflows/wf_1/steps/pay/complete", {"path": "pay", "state": "succeeded", "headline": "h"})
    (tmp_path / "output.json").write_text('["ok"]')

    surefoot("step", "wf_1", "pay", "complete", "--output", f"@{tmp_path}/output.json")

    assert server.asked[0].body == {"output": ["ok"]}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["step", "wf_1", "pay", "skip", "--output", "1"], "does not go with skip"),
        (["step", "wf_1", "pay", "complete", "--output", "{"], "--output is not JSON"),
        (["step", "wf_1", "pay", "complete"], "needs --output"),
        (["resolve", "happened", "--note", "n", "--all", "--since", "soon"], "--since soon is neither"),
        (["resolve", "happened", "--note", "n", "--all", "--until", "2026-11-24"], "--until 2026-11-24 is neither"),
        (["step", "wf_1", "pay", "complete", "--output", "@nowhere.json"], "cannot be read"),
        (["step", "wf_1", "pay", "explode"], "explode"),
        (["compensate", "wf_1", "undo"], "--note"),
        (["undo", "call_1", "done"], "--note"),
        (["hold", "tool"], "Which tool?"),
        (["hold", "tenant", "me"], "no name"),
        (["resolve", "call_1", "perhaps", "--note", "n"], "no verdict"),
        (["resolve", "happened", "--note", "n"], "name one effect"),
        (["resolve", "call_1", "happened", "--note", "n", "--tool", "x"], "name one effect"),
        (["resolve", "happened", "--note", "n", "--all"], "at least one of"),
        (["resolve", "call_1", "happened", "--note", "n", "--all", "--tool", "x"], "takes no effect"),
        (["resolve", "happened", "--note", "n", "--all", "--tool", "x", "--result", "1"], "no --result"),
        (["approve", "apr_1", "--edit", "not json"], "--edit is not JSON"),
    ],
)
def test_nothing_is_sent_when_the_words_do_not_fit(
    server: ScriptedServer, surefoot: Surefoot, arguments: list[str], what: str
) -> None:
    ended = surefoot(*arguments)

    assert ended.code == 1
    assert ended.err.startswith("error  ")
    assert what in ended.err
    assert server.asked == []


@pytest.mark.parametrize(
    ("action", "undo", "said"),
    [
        ("retry", "running", "its undo is tried again"),
        ("done", "done", "it counts as undone"),
        ("skip", "skipped", "it stays done"),
    ],
)
def test_failed_undo_is_settled_when_the_operator_says_how(
    server: ScriptedServer, surefoot: Surefoot, action: str, undo: str, said: str
) -> None:
    server.on("POST /v1/effects/call_1/compensation", EFFECT | {"undo": undo})

    ended = surefoot("undo", "call_1", action, "--note", "looked")

    assert ended.code == 0
    assert ended.out.startswith(f"pay (bank.transfer): {said}")
    assert server.asked[0].body == {"action": action, "note": "looked"}
    assert "surefoot trace wf_1 --follow" in ended.err


@pytest.mark.parametrize(
    ("words", "scope"),
    [
        (["tool", "email.send"], "tool%3Aemail.send"),
        (["model", "us/claude:x"], "model%3Aus%2Fclaude%3Ax"),
        (["tenant"], "tenant"),
    ],
)
def test_scope_is_held_and_released_when_named_in_words(
    server: ScriptedServer, surefoot: Surefoot, words: list[str], scope: str
) -> None:
    server.on(f"PUT /v1/switches/{scope}", HELD)
    server.on(f"DELETE /v1/switches/{scope}", {"released": 1})
    server.on("GET /v1/effects", {"data": [EFFECT], "has_more": True, "next_cursor": "c"})

    held = surefoot("hold", *words, "--reason", "twice today")
    released = surefoot("release", *words)

    assert (held.code, released.code) == (0, 0)
    assert held.out.startswith("Held: nothing new of ")
    assert f"surefoot release {' '.join(words)}" in held.err
    assert released.out.endswith("; 1 call is due again.\n")
    assert "is that its name?" not in held.err
    assert [asked.body for asked in server.asked if asked.method != "GET"] == [{"reason": "twice today"}, None]


def test_operator_is_asked_about_the_name_when_no_effect_of_such_a_tool_was_seen(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    server.on("PUT /v1/switches/tool%3Aemial.send", HELD)
    server.on("GET /v1/effects", {"data": [], "has_more": False, "next_cursor": None})

    ended = surefoot("hold", "tool", "emial.send")

    assert ended.code == 0
    assert "No effect of a tool emial.send has been seen so far" in ended.err
    assert server.asked[1].query == {"tool": ["emial.send"], "limit": ["1"]}


def test_hold_is_told_as_done_when_the_key_may_hold_and_not_read(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("PUT /v1/switches/tool%3Aemail.send", HELD)
    server.on("GET /v1/effects", problem("forbidden", 403), status=403)

    ended = surefoot("hold", "tool", "email.send")

    assert (ended.code, ended.err) == (0, "  surefoot release tool email.send\n")


def test_holds_are_listed_with_the_command_that_ends_each(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/switches", {"data": [HELD], "next_cursor": None, "has_more": False})

    ended = surefoot("holds")

    assert ended.out.splitlines()[1] == "tool:email.send  2026-11-24T14:02:11  key:1  twice today"
    assert ended.err == "  surefoot release tool email.send\n"


def test_holds_say_so_when_nothing_is_held(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/switches", {"data": [], "next_cursor": None, "has_more": False})

    ended = surefoot("holds")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("Nothing is held.")


def test_doubts_are_settled_together_when_all_of_a_tool_are_meant(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/effects/resolve", BULK)

    ended = surefoot("resolve", "--tool", "email.send", "--all", "did-not-happen", "--note", "server was off")

    assert (ended.code, ended.out) == (0, "3 of 3 doubts settled as did-not-happen; 0 refused.\n")
    assert server.asked[0].body == {
        "filter": {"tool": "email.send"}, "outcome": "did_not_happen", "note": "server was off", "limit": 5000,
        "dry_run": False,
    }  # fmt: skip


def test_nothing_is_said_to_be_settled_when_it_is_a_dry_run(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/effects/resolve", BULK | {"matched": 5100, "resolved": 5000, "remaining": 100})

    ended = surefoot("resolve", "--workflow", "wf_1", "--all", "--dry-run", "probe", "--note", "n")

    assert (ended.code, ended.out) == (0, "5000 of 5,100 doubts would be probed again; 0 refused.\n")
    assert "100 were not looked at" in ended.err
    assert server.asked[0].body["dry_run"] is True


def test_refused_doubts_are_listed_and_the_command_fails_when_some_are_refused(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    refusal = {"effect": "call_7", "code": "quarantine_active", "detail": "Until 14:03."}
    server.on("POST /v1/effects/resolve", BULK | {"resolved": 2, "refused": [refusal]})

    ended = surefoot("resolve", "--step", "pay", "--all", "did-not-happen", "--note", "n")

    assert ended.code == 1
    assert ended.out.splitlines()[0] == "2 of 3 doubts settled as did-not-happen; 1 refused."
    assert ended.out.splitlines()[2] == "call_7  quarantine_active  Until 14:03."
    assert "surefoot show call_7" in ended.err


def test_tool_is_asked_again_when_a_doubt_is_given_to_its_probe(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/effects/call_1/resolve", EFFECT | {"state": "probing"})

    ended = surefoot("resolve", "call_1", "probe", "--note", "server is back")

    assert (ended.code, ended.out) == (0, "pay (bank.transfer): the tool is asked again; it is now probing.\n")
    assert server.asked[0].body == {"outcome": "probe", "note": "server is back"}


def test_other_arguments_are_approved_when_an_approval_is_edited(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/approvals/apr_1", APPROVAL)
    server.on("POST /v1/approvals/apr_1/decision", APPROVAL | {"decision": "edit"})

    ended = surefoot("approve", "apr_1", "--edit", '{"amount": 40}', "--comment", "less")

    assert (ended.code, ended.out) == (0, "Approved with other arguments: Refund $480?\n")
    assert server.asked[1].body == {
        "decision": "edit", "values": {"amount": 40}, "revision": 4, "comment": "less",
    }  # fmt: skip
