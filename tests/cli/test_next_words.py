"""No dead end: what the commands say when there is nothing to show, something to do next, or a word too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import ScriptedServer, Surefoot, workflow


@pytest.fixture
def definition(tmp_path: Path) -> str:
    path = tmp_path / "hello.yaml"
    path.write_text("name: hello\nsteps:\n  greet:\n    set: { text: Hello }\n")
    return str(path)


def test_surefoot_shows_its_help_and_no_error_when_it_is_given_nothing(surefoot: Surefoot) -> None:
    ended = surefoot(bare=True)

    assert ended.code == 1
    assert ended.err.startswith("Usage: surefoot")
    assert "submit" in ended.err


def test_a_usage_error_names_the_command_whose_help_explains_it(surefoot: Surefoot) -> None:
    ended = surefoot("resolve", "call_1", "maybe", "--note", "x")

    assert ended.err.splitlines()[-1] == "fix    surefoot resolve --help"
    assert "Value error" not in ended.err


def test_submit_says_how_to_watch_what_it_submitted(
    server: ScriptedServer, surefoot: Surefoot, definition: str
) -> None:
    server.on("POST /v1/workflows", workflow(), status=202)

    ended = surefoot("submit", definition, "--key", "k")

    assert ended.err == "  surefoot trace wf_1 --follow\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "There is no workflow yet; surefoot submit FILE makes one."), (["--status", "failed"], "No workflow fits.")],
)
def test_list_says_so_when_there_is_nothing(
    server: ScriptedServer, surefoot: Surefoot, arguments: list[str], said: str
) -> None:
    server.on("GET /v1/workflows", {"data": [], "has_more": False, "next_cursor": None})

    ended = surefoot("list", *arguments)

    assert (ended.code, ended.out, ended.err) == (0, "", said + "\n")


def test_list_refuses_a_label_when_it_has_no_value(server: ScriptedServer, surefoot: Surefoot) -> None:
    ended = surefoot("list", "--label", "team")

    assert ended.code == 1
    assert "a label is NAME=VALUE" in ended.err
    assert server.asked == []


def test_effects_says_who_settled_a_doubt_and_how_he_knew(server: ScriptedServer, surefoot: Surefoot) -> None:
    resolved = {"outcome": "did_not_happen", "note": "asked ana", "by": "key:kim", "at": "2026-11-24T14:02:11Z"}
    effect = {
        "id": "call_1", "state": "due", "step": "mail", "tool": "email.send", "effect": "at_most_once", "attempts": 1,
        "key": None, "undo": "none", "resolved": resolved,
    }  # fmt: skip
    server.on("GET /v1/workflows/wf_1/effects", {"data": [effect], "has_more": False, "next_cursor": None})

    ended = surefoot("effects", "wf_1")

    assert ended.out.splitlines()[-1] == "call_1 was not known; key:kim said did not happen: asked ana"
