"""An MCP server as a child process: started for one call, spoken to over its pipes, and gone with it.

The child is the leader of a process group of its own, which is killed in every case: after the answer it gets a moment
to end by itself (its stdin is closed, as the protocol says), on a deadline, a drain or any error none. If this worker
dies the kernel ends the child, where it can (Linux), and its stdin ends everywhere. Its environment is PATH and the
like and what the declaration says, never the worker's own; what it writes to stderr is logged, up to a limit.

What it writes to stdout and is no message is no concern of the call: logged and skipped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from app.domain.bodies import storable_text
from app.ports import children
from app.ports.mcp_wire import LONGEST_MESSAGE, TooLong, Wire
from app.ports.secrets import Secrets

log = structlog.get_logger(__name__)

INHERITED: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM")
"""All that a server sees of the worker's environment: what programs need to run, nothing that anybody keeps secret."""

GRACE: Final = 1.0
"""Seconds a server has to end by itself after its stdin was closed; its answer is here already."""

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def stdio(
    command: Sequence[str], environment: Mapping[str, str], *, wire: Wire, secrets: Secrets
) -> AsyncIterator[Streams]:
    """A transport for the SDK's `Client`. Raises `children.Unstartable`."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    process = await children.start(children.dying_with_us(command), environment={**inherited, **environment})
    done = False
    try:
        to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        async with to_session, from_server, to_server, from_session, anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process, to_session, wire)
            tasks.start_soon(_write, process, from_session, wire)
            log_it = partial(children.log_stderr, of=command[0], secrets=secrets)
            tasks.start_soon(log_it, process)
            yield from_server, to_server
            done = True
            tasks.cancel_scope.cancel()
    finally:
        if done:
            with anyio.CancelScope(shield=True):
                await _let_end(process)
        await children.put_down(process)


async def _let_end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    with anyio.move_on_after(GRACE):
        await process.wait()


async def _read(
    process: asyncio.subprocess.Process, to_session: MemoryObjectSendStream[SessionMessage | Exception], wire: Wire
) -> None:
    stdout = process.stdout
    if stdout is None:
        raise RuntimeError("the server has no stdout")
    async with to_session:
        pending = bytearray()
        while chunk := await stdout.read(children.CHUNK):
            searched = len(pending)
            pending += chunk
            while (end := pending.find(b"\n", searched)) >= 0:
                line, searched = bytes(pending[:end]), 0
                del pending[: end + 1]
                await _deliver(line, to_session, wire)
            if len(pending) > LONGEST_MESSAGE:
                raise TooLong


async def _deliver(line: bytes, to_session: MemoryObjectSendStream[SessionMessage | Exception], wire: Wire) -> None:
    wire.arrived(line)
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError as error:
        if wire.reply is not None:
            raise Answered from error  # the reply is here, and the SDK would wait for it for ever
        if line.strip():
            log.info(
                "mcp_server.garbage",
                bytes=len(line),
                text=storable_text(line[:200].decode(errors="replace"), limit=200),
            )
        return
    await to_session.send(SessionMessage(message))


class Answered(Exception):
    """The reply arrived, and the SDK cannot read it."""


async def _write(
    process: asyncio.subprocess.Process, from_session: MemoryObjectReceiveStream[SessionMessage], wire: Wire
) -> None:
    stdin = process.stdin
    if stdin is None:
        raise RuntimeError("the server has no stdin")
    async for message in from_session:
        line = message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        permit = wire.leaving(line)
        if permit is not None:
            permit.use()
        stdin.write(line)
        await stdin.drain()
