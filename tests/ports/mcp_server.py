"""A small MCP server that misbehaves as it is told: for the tests of the port. Speaks stdio and streamable HTTP.

    python mcp_server.py --book FILE [--state FILE] [--http]

Written without the SDK, so that it can do what no server should. It notes every `tools/call` in its book, one a line.
The state file says how it behaves: `{"lists": {"add": {"description": …}}}` changes a tool's definition.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import zlib
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
ANY = {"type": "object"}

TOOLS: dict[str, dict[str, Any]] = {
    "add": {"description": "Add two numbers.", "inputSchema": NUMBERS, "annotations": {"readOnlyHint": True}},
    "note": {"description": "Write it down.", "inputSchema": ANY, "annotations": {"idempotentHint": True}},
    "act": {"description": "Do something.", "inputSchema": ANY},
    "remote": {"description": "Its schema is elsewhere.", "inputSchema": {"type": "object", "$ref": "http://x.io/s"}},
    **{name: {"description": name, "inputSchema": ANY} for name in ("odd", "die", "hang", "fail", "environment")},
    "slash/name": {"description": "A name with a slash.", "inputSchema": ANY},
}

DEEP = 20_000
ODD: dict[str, str] = {
    "nul": '{"content":[{"type":"text","text":"a\\u0000b"}],"isError":false}',
    "surrogate": '{"content":[{"type":"text","text":"\\ud800"}]}',
    "nan": '{"content":[],"structuredContent":{"x":NaN}}',
    "deep": '{"content":[],"structuredContent":' + "[" * DEEP + "]" * DEEP + ',"isError":false}',
    "deep_error": '{"content":' + "[" * DEEP + "]" * DEEP + ',"isError":true}',
    "digits": '{"content":[],"structuredContent":{"n":' + "9" * 5000 + "}}",
    "empty": '{"content":[]}',
    "structured": '{"content":[{"type":"text","text":"x"}],"structuredContent":{"sum":3}}',
    "misfit": '{"content":[{"type":"text","text":"no structure although it promised one"}]}',
    "image": '{"content":[{"type":"text","text":"see"},{"type":"image","data":"QUJD","mimeType":"image/png"},'
    '{"type":"resource_link","uri":"file:///x","name":"x"}]}',
    "asks": '{"resultType":"input_required","inputRequests":{},"requestState":"s"}',
}


class Answering:
    def __init__(self, book: Path, state: Path | None) -> None:
        self.book, self._state = book, state

    def state(self) -> dict[str, Any]:
        return json.loads(self._state.read_text()) if self._state is not None and self._state.exists() else {}

    def answer(self, message: dict[str, Any]) -> bytes | None:
        """The reply's text; None: there is none."""
        method, identity = message.get("method"), message.get("id")
        if identity is None:
            return None
        if method == "initialize":
            return reply(
                identity,
                {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": "misbehaving", "version": "1"},
                },
            )
        if method == "tools/list":
            return self._list(identity, (message.get("params") or {}).get("cursor"))
        if method == "tools/call":
            return self._call(identity, message["params"])
        return error(identity, -32601, f"no method {method}")

    def _list(self, identity: Any, cursor: str | None) -> bytes:
        state = self.state()
        if state.get("endless"):
            return reply(identity, {"tools": [], "nextCursor": f"{cursor or ''}x"})
        changed = state.get("lists", {})
        names = [name for name in TOOLS if name not in state.get("gone", ())]
        tools = [{"name": name, **TOOLS[name], **changed.get(name, {})} for name in names]
        half = len(tools) // 2
        if cursor is None:  # two pages, as a larger server has
            return reply(identity, {"tools": tools[:half], "nextCursor": "second"})
        return reply(identity, {"tools": tools[half:]})

    def _call(self, identity: Any, params: dict[str, Any]) -> bytes | None:
        name, arguments = params["name"], params.get("arguments") or {}
        with self.book.open("a") as book:
            book.write(json.dumps({"name": name, "arguments": arguments, "meta": params.get("_meta")}) + "\n")
        match name:
            case "add":
                return text(identity, str(arguments["a"] + arguments["b"]))
            case "fail":
                return text(identity, arguments.get("why", "it is full"), is_error=True)
            case "odd":
                return odd(identity, arguments)
            case "die":
                os._exit(3)
            case "hang":
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
                with self.book.open("a") as book:
                    book.write(json.dumps({"pids": [os.getpid(), child.pid]}) + "\n")
                threading.Event().wait(300)
                return None
            case "environment":
                return text(identity, json.dumps(dict(os.environ)))
            case "act" | "note":
                return text(identity, "done")
        return error(identity, -32602, f"Unknown tool: {name}")


def odd(identity: Any, arguments: dict[str, Any]) -> bytes | None:
    how = arguments["how"]
    if how == "big":
        return text(identity, "x" * arguments["size"])
    if how == "error":
        return error(identity, arguments["code"], "it broke")
    if how == "garbage":
        return b"this is no message\n" + text(identity, "after garbage")
    if how == "silence":
        return None
    raw = ODD[how]
    return f'{{"jsonrpc":"2.0","id":{json.dumps(identity)},"result":{raw}}}'.encode()


def reply(identity: Any, result: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "result": result}).encode()


def error(identity: Any, code: int, message: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": message}}).encode()


def text(identity: Any, value: str, *, is_error: bool = False) -> bytes:
    return reply(identity, {"content": [{"type": "text", "text": value}], "isError": is_error})


def serve_stdio(answering: Answering) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stderr.write("starting up, with a secret s3cret-s3cret\n")
    sys.stderr.flush()
    for line in sys.stdin.buffer:
        said = answering.answer(json.loads(line))
        if said is not None:
            sys.stdout.buffer.write(said + b"\n")
            sys.stdout.buffer.flush()


def serve_http(answering: Answering) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state = answering.state()
            if message.get("method") in state.get("statuses", {}):
                with answering.book.open("a") as book:
                    book.write(json.dumps({"posted": message["method"]}) + "\n")
                self._send(state["statuses"][message["method"]], b"{}", "application/json")
                return
            if state.get("wants") and self.headers.get("Authorization") != state["wants"]:
                self._send(401, b"", "text/plain")
                return
            said = answering.answer(message)
            if said is not None and message["method"] in state.get("bombs", {}):
                self._bomb(said, blanks=state["bombs"][message["method"]], sse=bool(state.get("sse")))
                return
            if said is None and message.get("id") is not None:
                self.close_connection = True  # the stream ends without an answer
                self.connection.close()
            elif said is None:
                self._send(202, b"", "text/plain")
            elif state.get("sse"):
                self._send(200, b"event: message\ndata: " + said + b"\n\n", "text/event-stream")
            else:
                self._send(200, said, "application/json")

        def do_GET(self) -> None:
            self._send(405, b"", "text/plain")

        do_DELETE = do_GET

        def _send(self, status: int, body: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            if 300 <= status < 400:
                self.send_header("Location", self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _bomb(self, said: bytes, *, blanks: int, sse: bool) -> None:
            """The same answer behind so many blanks, which JSON allows, and a thousandth of that packed."""
            packer, piece = zlib.compressobj(wbits=zlib.MAX_WBITS | 16), b" " * 2**20
            packed = [packer.compress(b"event: message\ndata: " if sse else b"")]
            packed += [packer.compress(piece) for _ in range(blanks // len(piece))]
            packed += [packer.compress(said + b"\n\n"), packer.flush()]
            body = b"".join(packed)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if sse else "application/json")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # the client may have seen enough
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=_end_with_parent, daemon=True).start()
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--book", type=Path, required=True)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--http", action="store_true", help="Listen on a port, and say which.")
    given = parser.parse_args()
    answering = Answering(given.book, given.state)
    if given.http:
        serve_http(answering)
    else:
        serve_stdio(answering)


if __name__ == "__main__":
    main()
