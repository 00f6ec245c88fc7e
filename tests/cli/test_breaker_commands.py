"""`surefoot breakers`: what is shown of what keeps failing, and the word that it is over."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import ScriptedServer, Surefoot

OPEN: dict[str, Any] = {
    "scope": "tool:crm.search",
    "state": "open",
    "headline": "crm.search failed 6 of 7 times since 14:02:11.",
    "until": "2026-11-24T14:03:05Z",
    "held": 12,
    "limits": None,
}
BLOCKED = {
    "scope": "model:1f2e3d4c/claude-haiku-5-5",
    "state": "closed",
    "headline": "The model claude-haiku-5-5 takes no more requests for now: its rate limit was reached.",
    "until": None,
    "held": 0,
    "limits": {"blocked_until": "2026-11-24T14:02:40Z"},
}


def test_operator_sees_what_keeps_failing_and_how_to_end_it(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/breakers", {"data": [OPEN, BLOCKED], "next_cursor": None, "has_more": False})

    ended = surefoot("breakers")

    lines = ended.out.splitlines()
    assert ended.code == 0
    assert "tool:crm.search" in lines[1]
    assert "14:03:05" in lines[1]
    assert "14:02:40" in lines[2]
    assert ended.err == "  surefoot breakers reset tool:crm.search\n"


def test_operator_is_told_that_nothing_is_in_trouble(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/breakers", {"data": [], "next_cursor": None, "has_more": False})

    ended = surefoot("breakers")

    assert (ended.code, ended.out, ended.err) == (0, "", "Nothing is in trouble: every tool and model answers.\n")


def test_operator_resets_a_breaker_and_hears_how_many_calls_go_on(server: ScriptedServer, surefoot: Surefoot) -> None:
    answer = {"scope": "tool:crm.search", "reset": True, "released": 12}
    server.on("POST /v1/breakers/tool%3Acrm.search/reset", answer)

    ended = surefoot("breakers", "reset", "tool:crm.search")
    as_json = surefoot("breakers", "reset", "tool:crm.search", "--json")

    assert (ended.code, ended.out) == (0, "Reset: tool:crm.search; 12 calls go on.\n")
    assert json.loads(as_json.out) == answer


def test_operator_is_told_that_nothing_was_wrong_with_what_is_reset(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/breakers/tool%3Aother/reset", {"scope": "tool:other", "reset": False, "released": 0})

    assert surefoot("breakers", "reset", "tool:other").out == "Nothing was wrong with tool:other.\n"
