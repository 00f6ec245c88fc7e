"""Calls of MCP tools for the tests of their port: the misbehaving server, over stdio or HTTP, and what it noted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.domain import mcp_replies
from app.domain.bodies import read_body
from app.domain.outcomes import Outcome
from app.domain.plan import Tool
from app.domain.servers import McpServer, McpTool, sha256_of
from app.domain.states import AttemptOutcome, EffectClass
from app.domain.templates import compile_template
from app.ports.mcp_tools import McpTools
from app.ports.outbound import OutboundPolicy
from app.ports.world import ToolRequest

AMPLE = 60.0
"""Seconds nothing here needs."""
LIMIT = 1024 * 1024
SECRET = "s3cret-s3cret"
HEADERS = {"Surefoot-Workflow": "wf_1", "Surefoot-Call": "call_1", "Surefoot-Attempt": "1"}
SERVER = Path(__file__).with_name("mcp_server.py")


def port(*, commands: frozenset[str] = frozenset({"*"}), allow: str = "127.0.0.0/8", limit: int = LIMIT) -> McpTools:
    return McpTools(
        OutboundPolicy.parse(allow),
        secrets={"token": SecretStr(SECRET)},
        response_limit=limit,
        commands=commands,
        where="worker.7",
    )


@dataclass
class Server:
    folder: Path
    place: McpServer

    def behave(self, **state: Any) -> None:
        (self.folder / "state.json").write_text(json.dumps(state))

    @property
    def behaviour(self) -> dict[str, Any]:
        state = self.folder / "state.json"
        return json.loads(state.read_text()) if state.exists() else {}

    @property
    def book(self) -> list[dict[str, Any]]:
        book = self.folder / "book.jsonl"
        return [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []

    async def frozen(self, name: str, **more: Any) -> Tool:
        """The tool as the server describes it now."""
        outcome = await port().discover(self.place, seconds=AMPLE, may_send=lambda: True)
        assert outcome.evidence is not None, outcome
        [definition] = [each for each in json.loads(outcome.evidence.body)["tools"] if each["name"] == name]
        return tool(self.place, definition, **more)


def tool(place: McpServer, definition: Mapping[str, Any], *, effect: EffectClass = EffectClass.AT_MOST_ONCE) -> Tool:
    return Tool(
        name=f"test.{definition['name']}",
        description="",
        input_schema=None,
        mcp=McpTool(server=place, definition=definition, sha256=sha256_of(definition)),
        effect=effect,
        key_header=None,
        key_argument="key" if effect is EffectClass.KEYED else None,
        key_ttl=None,
        timeout=timedelta(seconds=AMPLE),
        settle_time=timedelta(seconds=AMPLE),
        on_repeat="ask",
    )


def call(of: Tool, arguments: Mapping[str, Any] | None = None, *, key: str | None = None, **more: Any) -> ToolRequest:
    return ToolRequest(tool=of, arguments=arguments or {}, key=key, headers=HEADERS, fresh_connection=True, **more)


async def sent(
    of: Tool, arguments: Mapping[str, Any] | None = None, *, through: McpTools | None = None, seconds: float = AMPLE
) -> Outcome:
    return await (through or port()).send(call(of, arguments), seconds=seconds, may_send=lambda: True)


def output(outcome: Outcome) -> Any:
    """What the engine makes of it."""
    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome
    evidence = outcome.evidence
    assert evidence is not None
    return mcp_replies.output_of(read_body(evidence.body, evidence.media_type, truncated=evidence.truncated))


def at_command(folder: Path, *more: str, **environment: str) -> Server:
    command = (sys.executable, str(SERVER), "--book", str(folder / "book.jsonl"), "--state", str(folder / "state.json"))
    templates = {name: compile_template(value, names=frozenset({"secrets"})) for name, value in environment.items()}
    place = McpServer(name="test", timeout=timedelta(seconds=AMPLE), command=(*command, *more), environment=templates)
    return Server(folder=folder, place=place)


@contextmanager
def at_url(folder: Path, *, path: str = "/mcp", **headers: str) -> Iterator[Server]:
    """Over HTTP, in a process of its own that ends with the test."""
    argv = [sys.executable, str(SERVER), "--book", str(folder / "book.jsonl"), "--state", str(folder / "state.json")]
    process = subprocess.Popen([*argv, "--http"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = process.stdout.readline().strip()
        place = McpServer(
            name="test",
            timeout=timedelta(seconds=AMPLE),
            url=compile_template(f"http://127.0.0.1:{told}{path}", names=frozenset({"secrets"})),
            headers={name: compile_template(value, names=frozenset({"secrets"})) for name, value in headers.items()},
        )
        yield Server(folder=folder, place=place)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()
