"""`surefoot tool list`, `register`, `remove`: what is put, and the lists of MCP servers that are asked from here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ScriptedServer, Surefoot, problem

MISBEHAVING = Path(__file__).parents[1] / "ports" / "mcp_server.py"
PUT = {
    "name": "git", "kind": "mcp", "effect": None, "digest": "sha256:1", "tools": ["add"],
    "updated_at": "2026-11-24T14:02:11Z",
}  # fmt: skip
BOOK = {**PUT, "name": "book", "kind": "http", "effect": "keyed", "tools": None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    command = [sys.executable, str(MISBEHAVING), "--book", str(tmp_path / "book.jsonl")]
    git = {"mcp": {"command": command}, "trust_annotations": True, "include": ["add", "remote"]}
    book = {"http": {"method": "POST", "url": "https://x.io"}, "effect": "at_most_once"}
    path = tmp_path / "tools.json"
    path.write_text(json.dumps({"git": git, "book": book}))
    return path


def test_register_puts_a_server_with_the_list_it_gave(server: ScriptedServer, surefoot: Surefoot, file: Path) -> None:
    server.on("PUT /v1/tools/git", PUT)

    ended = surefoot("tool", "register", str(file), "git")

    assert (ended.code, ended.out) == (0, "git is registered: mcp, 1 tools, list frozen.\n")
    [asked] = server.asked
    listed: list[dict[str, Any]] = asked.body["listed"]
    assert {"add", "act", "remote"} <= {tool["name"] for tool in listed}
    assert asked.body["include"] == ["add", "remote"]


def test_register_says_which_tool_was_refused_and_what_was_registered_before_it(
    server: ScriptedServer, surefoot: Surefoot, tmp_path: Path
) -> None:
    path = tmp_path / "two.json"
    path.write_text(
        json.dumps({name: {"http": {"method": "POST", "url": "https://x.io"}} for name in ("book", "lend")})
    )
    server.on("PUT /v1/tools/book", BOOK)
    server.on("PUT /v1/tools/lend", problem("definition_invalid", 422), status=422)

    ended = surefoot("tool", "register", str(path))

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines()[0] == "lend was refused. Registered before it: book."
    assert "definition_invalid" in ended.err


def test_register_speaks_of_nothing_before_it_when_the_first_tool_was_refused(
    server: ScriptedServer, surefoot: Surefoot, tmp_path: Path
) -> None:
    path = tmp_path / "two.json"
    path.write_text(
        json.dumps({name: {"http": {"method": "POST", "url": "https://x.io"}} for name in ("book", "lend")})
    )
    server.on("PUT /v1/tools/book", problem("definition_invalid", 422), status=422)

    ended = surefoot("tool", "register", str(path))

    assert (ended.code, ended.err.splitlines()[0]) == (1, "book was refused.")
    assert [asked.path for asked in server.asked] == ["/v1/tools/book"]


def test_dry_run_shows_what_each_tool_comes_to_and_registers_nothing(
    server: ScriptedServer, surefoot: Surefoot, file: Path
) -> None:
    ended = surefoot("tool", "register", str(file), "--dry-run")

    assert ended.code == 0
    assert [line.split()[:2] for line in ended.out.splitlines()[1:3]] == [["git.add", "read_only"], ["git:", "remote"]]
    assert "nothing is fetched" in ended.out
    assert server.asked == []


def test_list_says_where_each_tool_is(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/tools", {"data": [BOOK, PUT, {**PUT, "name": "x", "tools": None}], "has_more": False})

    ended = surefoot("tool", "list")

    rows = [line.split(maxsplit=2)[:2] for line in ended.out.splitlines()[1:]]
    assert rows == [["book", "http"], ["git", "mcp"], ["x", "mcp"]]
    assert "1 tools, list frozen" in ended.out
    assert "asked for by each workflow" in ended.out


def test_remove_says_that_it_is_gone(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("DELETE /v1/tools/git", {"removed": "git"})

    assert surefoot("tool", "remove", "git").out == "git is not registered any more.\n"


def test_register_names_the_tools_there_are_when_it_is_given_another(surefoot: Surefoot, file: Path) -> None:
    ended = surefoot("tool", "register", str(file), "gti")

    assert ended.code != 0
    assert "it declares: git, book" in ended.err


def test_register_says_that_a_server_is_not_there(surefoot: Surefoot, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps({"git": {"mcp": {"command": ["no-such-server"]}, "effect": "read_only"}}))

    ended = surefoot("tool", "register", str(path))

    assert ended.code == 5
    assert "no-such-server" in ended.err


def test_check_of_an_mcp_tool_asks_its_server_first(surefoot: Surefoot, file: Path) -> None:
    ended = surefoot("tool", "check", str(file), "git.add", "--arguments", '{"a": 1, "b": 2}', "--yes", "--json")

    told = json.loads(ended.out)
    assert (told["tool"], told["effect"], told["verdict"]) == ("git.add", "read_only", "true")
    assert len(told["tries"]) == 3
