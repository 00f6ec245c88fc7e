"""The API's server ends in its grace, whatever its clients and streams do."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("stand_in_server.py")


class Server:
    def __init__(self, *, grace: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = listener.getsockname()
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(listener.fileno()), str(grace)],
                pass_fds=[listener.fileno()],
                env={"PYTHONPATH": str(PROGRAM.parents[2])},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def ask(self, path: str) -> socket.socket:
        """Send a request; whoever reads it until its end gets all of the answer."""
        line = socket.create_connection(self.address)
        line.settimeout(20)
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        return line

    def stop(self) -> float:
        """SIGTERM; how long it took to end, seconds."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        return time.monotonic() - began


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def begin(*, grace: float) -> Server:
        started.append(Server(grace=grace))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.wait()
        if each.process.stdout is not None:
            each.process.stdout.close()


def read_until(line: socket.socket, word: bytes) -> bytes:
    seen = b""
    while word not in seen and (chunk := line.recv(4096)):
        seen += chunk
    return seen


def test_server_ends_with_zero_when_it_is_asked_to(start: Callable[..., Server]) -> None:
    server = start(grace=8)
    with server.ask("/plain") as line:
        answer = read_until(line, b"end\n")

    server.stop()

    assert b"200 OK" in answer
    assert b"end" in answer
    assert server.process.returncode == 0
    assert server.process.stdout is not None
    logged = server.process.stdout.read()
    assert "path=/plain" in logged.replace("\x1b[35m", "").replace("\x1b[0m", "").replace("\x1b[36m", "")
    assert "req_1" in logged


@pytest.mark.parametrize("path", ["/polite", "/slow"])
def test_server_finishes_the_answer_when_it_stops_with_one_open(path: str, start: Callable[..., Server]) -> None:
    server = start(grace=8)
    with server.ask("/plain") as line:
        read_until(line, b"end\n")
    with server.ask(path) as line:
        if path == "/polite":
            read_until(line, b"begin\n")
        else:
            with server.ask("/plain") as other:  # answered after /slow was taken in
                read_until(other, b"end\n")

        took = server.stop()

        assert b"end\n" in read_until(line, b"end\n")
    assert took < 4
    assert server.process.returncode == 0


def test_server_cuts_the_answer_when_it_does_not_end_in_the_grace(start: Callable[..., Server]) -> None:
    server = start(grace=1)
    with server.ask("/rude") as line:
        read_until(line, b"begin\n")

        took = server.stop()

    assert took < 5
    assert server.process.returncode == 0
