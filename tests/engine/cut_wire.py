"""A wire to Postgres that can be cut at the worst moment: after the server did it and before its reply arrived."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

COMMITTED = b"COMMIT\x00"
"""The tag of a CommandComplete message (protocol §53.7)."""


class Wire:
    """Forwards both ways. `cut_at(reply)`: the next reply that contains those bytes is swallowed, the wire is cut."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._wanted: bytes | None = None
        self._passing = 0
        self.cuts = 0
        self.cut = asyncio.Event()
        self.away = 0.0
        """Seconds after a cut for which nobody gets through, as when Postgres recovers."""
        self._back_at = 0.0

    def cut_at(self, reply: bytes, *, after: int = 0) -> None:
        """Let `after` such replies pass first."""
        self._wanted, self._passing = reply, after

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asyncio.get_running_loop().time() < self._back_at:
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        to_server = asyncio.create_task(self._forward(reader, up_writer))
        try:
            while data := await up_reader.read(1 << 16):
                if self._cuts(data):
                    break
                writer.write(data)
                await writer.drain()
        finally:
            to_server.cancel()
            writer.close()
            up_writer.close()

    def _cuts(self, data: bytes) -> bool:
        if self._wanted is None or self._wanted not in data:
            return False
        if self._passing > 0:
            self._passing -= 1
            return False
        self._wanted = None
        self.cuts += 1
        self.cut.set()
        self._back_at = asyncio.get_running_loop().time() + self.away
        return True

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def wire_to(database_url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to the server of that URL (a unix socket), and the URL that goes through it."""
    parts = conninfo_to_dict(database_url)
    port = parts.get("port") or "5432"
    wire = Wire(f"{parts['host']}/.s.PGSQL.{port}")
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        server = await asyncio.start_unix_server(wire.serve, str(Path(folder) / f".s.PGSQL.{port}"))
        async with server:
            through = make_conninfo(database_url, host=folder)
            yield wire, f"postgresql://{parts['user']}@/{parts['dbname']}?host={folder}" if "user" in parts else through
