"""A small TCP proxy in front of Postgres and Redis: the network that can be cut. A process of its own.

`python -m tests.chaos.proxy --to NAME=SOCKET … --ports FILE`: listens on one loopback port for each Unix socket and
writes {"control": port, NAME: port, …}. A line to the control port cuts: {"cut": NAME, "how": HOW, "seconds": s}

    reset     every connection is reset, new ones are refused for so long
    silence   nothing passes for so long, then every connection is reset (replies that were on their way are lost)
    stall     nothing passes for so long, then everything goes on as if nothing had been

The answer is the same line when it is over. Bytes are passed on unchanged, never looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.chaos.waiting import moment

CHUNK: Final = 256 * 1024
_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets instead of ending in order."""


class Wire:
    """One listening port and every connection through it."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._refusing = False

    async def listen(self) -> tuple[asyncio.Server, int]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=CHUNK, backlog=1024)
        return server, int(server.sockets[0].getsockname()[1])

    async def cut(self, how: str, seconds: float) -> None:
        if how == "reset":
            self._refusing = True
            self._reset_all()
        else:
            self._passing.clear()
        await moment(seconds)
        if how == "silence":
            self._reset_all()
        self._refusing = False
        self._passing.set()

    def _reset_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        self._open.add(writer)
        try:
            back, forth = await asyncio.open_unix_connection(self._target, limit=CHUNK)
        except OSError:  # the server is down: so is this connection
            self._open.discard(writer)
            _reset(writer)
            return
        self._open.add(forth)
        await asyncio.gather(self._pump(reader, forth), self._pump(back, writer))
        for each in (writer, forth):
            self._open.discard(each)
            each.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK):
                await self._passing.wait()
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
        except (OSError, RuntimeError):  # reset by us or by an end that died: the other direction ends with it
            _reset(sink)


def _reset(writer: asyncio.StreamWriter) -> None:
    line: socket.socket | None = writer.get_extra_info("socket")
    if line is not None and line.family == socket.AF_INET and line.fileno() >= 0:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()


async def serve(targets: Mapping[str, str], ports: Path) -> None:
    wires = {name: Wire(target) for name, target in targets.items()}
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    async def controlled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            told: dict[str, Any] = json.loads(line)
            await wires[told["cut"]].cut(told["how"], told["seconds"])
            writer.write(line)
            await writer.drain()
        writer.close()

    control = await asyncio.start_server(controlled, "127.0.0.1", 0)
    taken = {"control": control.sockets[0].getsockname()[1]}
    servers = [control]
    for name, wire in wires.items():
        server, taken[name] = await wire.listen()
        servers.append(server)
    unfinished = ports.with_suffix(".part")
    unfinished.write_text(json.dumps(taken))
    unfinished.replace(ports)
    await stopping.wait()
    for each in servers:
        each.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A network that can be cut.")
    parser.add_argument("--to", action="append", required=True, help="NAME=SOCKET")
    parser.add_argument("--ports", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(dict(each.split("=", 1) for each in options.to), options.ports))


if __name__ == "__main__":
    main()
