"""Real MCP servers from the registry, called as a worker calls them: git (a countable effect) and time."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from app.domain.definition import servers
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings
from app.domain.servers import McpServer
from app.domain.states import AttemptOutcome
from tests.ports import mcp_calls
from tests.ports.mcp_calls import AMPLE, output, port, sent


def place(module: str, *arguments: str) -> McpServer:
    """As a module: a copy of this environment has no scripts of its own."""
    command = (sys.executable, "-m", module, *arguments)
    return McpServer(name="real", timeout=timedelta(seconds=AMPLE), command=command, environment={})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (["init", "-q"], ["config", "user.email", "a@x.io"], ["config", "user.name", "Ana"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "a.txt").write_text("a\n")
    subprocess.run(["git", "-C", str(tmp_path), "add", "a.txt"], check=True)
    return tmp_path


async def listed(server: McpServer) -> dict[str, dict[str, object]]:
    outcome = await port().discover(server, seconds=AMPLE, may_send=lambda: True)
    assert outcome.evidence is not None, outcome
    return {each["name"]: each for each in json.loads(outcome.evidence.body)["tools"]}


async def test_git_server_commits_once(repository: Path) -> None:
    server = place("mcp_server_git", "--repository", str(repository))
    found = await listed(server)
    assert {"git_log", "git_commit", "git_status"} <= found.keys()

    commit = mcp_calls.tool(server, found["git_commit"])
    outcome = await sent(commit, {"repo_path": str(repository), "message": "first"})

    assert outcome.certainty is AttemptOutcome.SUCCEEDED
    log = subprocess.run(["git", "-C", str(repository), "log", "--oneline"], check=True, capture_output=True, text=True)
    assert len(log.stdout.splitlines()) == 1
    assert "first" in json.dumps(
        output(await sent(mcp_calls.tool(server, found["git_log"]), {"repo_path": str(repository)}))
    )


async def test_git_server_says_of_itself_what_its_tools_do(repository: Path) -> None:
    found = await listed(place("mcp_server_git", "--repository", str(repository)))
    declared = {"mcp": {"command": ["mcp-server-git"]}, "trust_annotations": True}
    findings = Findings(lines={})
    server = servers.check_server("git", declared, "", findings=findings, catalogue=Catalogue())

    tools, left_out = servers.tools_of(server, list(found.values()))

    assert findings.faults == []
    assert left_out == []
    assert tools["git.git_log"]["effect"] == "read_only"
    assert tools["git.git_commit"]["effect"] == "at_most_once"


async def test_time_server_converts_a_time() -> None:
    server = place("mcp_server_time", "--local-timezone", "Europe/Berlin")
    convert = mcp_calls.tool(server, (await listed(server))["convert_time"])
    asked = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}

    outcome = await sent(convert, asked)

    assert "Asia/Tokyo" in json.dumps(output(outcome))


async def test_server_that_refuses_arguments_says_why(repository: Path) -> None:
    server = place("mcp_server_git", "--repository", str(repository))
    log = mcp_calls.tool(server, (await listed(server))["git_log"])

    outcome = await sent(log, {"repo_path": "/nowhere"})

    assert outcome.certainty is AttemptOutcome.FAILED
    assert outcome.failure is not None
    assert "nowhere" in outcome.failure.message
