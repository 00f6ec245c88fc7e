"""`surefoot approvals`: every open question, oldest first, and the commands that answer the first of them."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import ScriptedServer, Surefoot


def question(n: int, *, expires_at: str | None = None) -> dict[str, Any]:
    return {"id": f"apr_{n}", "workflow_id": f"wf_{n}", "step": "pay", "title": f"Pay {n}?", "expires_at": expires_at}


def page(*rows: dict[str, Any], more: str | None = None) -> dict[str, Any]:
    return {"data": list(rows), "next_cursor": more, "has_more": more is not None}


def test_open_questions_are_listed_with_who_waited_longest_first(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/approvals", page(question(3), question(2, expires_at="2026-11-24T14:02:11Z"), more="c1"))
    server.on("GET /v1/approvals", page(question(1)))

    ended = surefoot("approvals")

    assert ended.code == 0
    assert [line.split() for line in ended.out.splitlines()[1:]] == [
        ["apr_1", "wf_1", "pay", "-", "Pay", "1?"],
        ["apr_2", "wf_2", "pay", "2026-11-24T14:02:11", "Pay", "2?"],
        ["apr_3", "wf_3", "pay", "-", "Pay", "3?"],
    ]
    assert [asked.query.get("cursor") for asked in server.asked] == [None, ["c1"]]
    assert {tuple(asked.query["status"]) for asked in server.asked} == {("open",)}


def test_commands_of_the_first_questions_are_written_out_and_the_rest_counted(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    server.on("GET /v1/approvals", page(*(question(n) for n in range(5, 0, -1))))

    said = surefoot("approvals").err.splitlines()

    assert said[:3] == ["  surefoot show apr_1", "  surefoot approve apr_1", "  surefoot reject apr_1"]
    assert said[9:] == ["  … and 2 more"]


def test_all_pages_of_one_workflow_are_asked_for_and_are_one_json(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/approvals", page(question(2), more="c1"))
    server.on("GET /v1/approvals", page(question(1)))

    ended = surefoot("approvals", "wf_1", "--json")

    assert [(asked.query["workflow"], asked.query["status"], asked.query["limit"]) for asked in server.asked] == [
        (["wf_1"], ["open"], ["500"]),
        (["wf_1"], ["open"], ["500"]),
    ]
    assert json.loads(ended.out) == page(question(1), question(2))
    assert ended.err == ""


def test_question_cannot_move_the_cursor_with_what_its_author_wrote(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/approvals", page(question(1) | {"title": "Pay\x1b[2J\r1?"}))

    ended = surefoot("approvals")

    assert "\x1b" not in ended.out
    assert "Pay\\x1b[2J" in ended.out


def test_nobody_is_asked_anything_is_said(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/approvals", page())

    ended = surefoot("approvals")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("Nobody is asked anything.")
