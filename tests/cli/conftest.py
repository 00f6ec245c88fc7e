"""A server that answers as told, on a real socket, and the command line as a real process' function against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.cli.main import run

JSON = Any
KEY = "sf_test_key"


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: JSON


@dataclass
class ScriptedServer:
    """Answers `(status, body, headers)` in order per `METHOD /path`; the last one stays."""

    url: str = ""
    answers: dict[str, list[tuple[int, JSON, dict[str, str]]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, route: str, body: JSON, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.answers.setdefault(route, []).append((status, body, headers or {}))

    def next(self, asked: Asked) -> tuple[int, JSON, dict[str, str]]:
        self.asked.append(asked)
        told = self.answers.get(f"{asked.method} {asked.path}")
        if told is None:
            return 404, problem("not_found", 404), {}
        return told.pop(0) if len(told) > 1 else told[0]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Surefoot = Callable[..., Ended]


def problem(code: str, status: int, **members: JSON) -> JSON:
    return {
        "type": f"/errors/{code}", "title": f"Title of {code}", "status": status, "detail": f"Detail of {code}",
        "code": code, "fix": f"Fix of {code}", "retryable": False, "errors": [], "request_id": "req_1",
    } | members  # fmt: skip


def workflow(status: str = "running", **members: JSON) -> JSON:
    return {
        "id": "wf_1", "status": status, "headline": f"It is {status}.", "idempotency_key": "k",
        "definition": {"name": "hello", "version": None, "digest": "sha256:1"}, "input": {}, "output": None,
        "failure": None, "waiting_on": [], "attention": [], "last_seq": 1, "next_poll_ms": 500,
        "progress": {"done": 1, "total": 2, "unit": "steps"},
        "cost": {"usd": "0.0264", "recovery_usd": "0.0121", "input_tokens": 1, "output_tokens": 2},
        "effects": {"done": 0, "unknown": 0, "undone": 0, "duplicates_prevented": 0},
        "created_at": "2026-11-24T14:02:11.030Z", "deadline_at": "2026-12-01T14:02:11Z", "ended_at": None,
    } | members  # fmt: skip


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            raw = self.rfile.read(length)
            asked = Asked(
                method=self.command,
                path=parts.path,
                query=parse_qs(parts.query),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=json.loads(raw) if raw else None,
            )
            status, body, headers = scripted.next(asked)
            media = "application/problem+json" if status >= 400 else "application/json"
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"Content-Type": media} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            """Tests say what they want to see."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    scripted.url = f"http://127.0.0.1:{listening.server_address[1]}"
    yield scripted
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def surefoot(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> Surefoot:
    """The command line against the scripted server; `bare=True` without saying which server."""

    def call(*arguments: str, bare: bool = False) -> Ended:
        front = () if bare else ("--url", server.url, "--key", KEY)
        code = run([*front, *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call
