"""Ports: one is taken before anything is started, and kept while the process behind it is restarted.

The supervisor listens and hands the socket to the API process: `--port 0` then keeps its number over restarts, a
client that comes during a restart waits in the queue instead of being refused, and a port that is taken is found out
in the first millisecond.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from pathlib import Path
from typing import Final

from app.embedded.refusal import CannotStart

BACKLOG: Final = 2048
_ASK_SECONDS: Final = 5.0


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises `CannotStart` if that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Wrapped anew, so that its protocol is known: asyncio sets TCP_NODELAY only where it reads IPPROTO_TCP, and
        # without it every answer on a kept connection waits 40 ms for the client's delayed ACK.
        return socket.socket(fileno=made.detach())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"Port {port} on {host} is taken by another program.",
                fix="Take a free one with --port 0, or name another with --port N.",
            ) from error
        raise CannotStart(
            f"Cannot listen on {host} port {port}: {error.strerror}.", fix="Change --port or SUREFOOT_HOST."
        ) from error


def url_of(listener: socket.socket) -> str:
    """How a program on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def read_port(path: Path) -> int | None:
    """What a child wrote into its `--port-file`: `{"port": N}` or the number alone; None as long as it is not there."""
    try:
        told = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    port = told.get("port") if isinstance(told, dict) else told
    return port if isinstance(port, int) else None


async def accepts(host: str, port: int) -> bool:
    """Whether somebody accepts a connection there now."""
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True


async def status_of(host: str, port: int, path: str) -> int | None:
    """The status code of one GET, without the cost of an HTTP client; None if there is no answer in time."""
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except OSError:
        return None
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
