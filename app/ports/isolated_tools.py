"""Python tools with `isolate: process`: `IsolatedTools.send` calls the function in a process of its own, once.

What a function can do to its worker (a crash, a loop that holds the interpreter, all of its memory, `os._exit`) it
does to that process alone, and a deadline ends it for certain: its whole process group is killed. The child imports the
function and says that it is ready; only then `may_send` is asked and it is told to go. From then on a process that ends
without an answer is unknown, by the same table as an exception (`app/domain/function_certainty.py`).

It costs an interpreter's start for each call, so as many are at work at once as `processes` says; a call that finds no
place in time is not sent. It raises nothing but cancellation, and leaves no process behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import structlog
from pydantic import SecretStr

from app.domain.bodies import storable_text
from app.domain.function_certainty import Seen, judge
from app.domain.outcomes import Evidence, Outcome
from app.domain.states import AttemptOutcome, EffectClass
from app.ports import children
from app.ports.python_tools import LEAST_TIME, LONGEST_PAUSE, context_of
from app.ports.secrets import Secrets
from app.ports.world import MaySend, ToolRequest

log = structlog.get_logger(__name__)

CHILD: Final = (sys.executable, "-m", "app.ports.isolated_child")
_MESSAGE: Final = 500
_AWAY: Final = frozenset({Seen.NOT_INSTALLED, Seen.NOT_LOADED, Seen.LOADING, Seen.NO_PROCESS})
"""Not on this worker, not now: due again after a pause that grows with its attempts."""


class IsolatedTools:
    """Implements `ToolPort`. One per process and event loop. `memory`: bytes of a child's address space, 0: any."""

    def __init__(
        self,
        *,
        secrets: Mapping[str, SecretStr],
        response_limit: int,
        processes: int,
        memory: int,
        where: str,
    ) -> None:
        self._secrets = Secrets(secrets)
        self._limit = response_limit
        self._processes = processes
        self._memory = memory
        self._where = where
        self._free = asyncio.Semaphore(processes)

    async def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds - min(LEAST_TIME, seconds / 2)):
                await self._free.acquire()
        except TimeoutError:
            detail = f"all {self._processes} processes for isolated functions of {self._where} are taken"
            return self._outcome(request, Seen.NO_PROCESS, detail)
        try:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            process = await children.start(CHILD, environment=environment)
        except children.Unstartable as error:
            self._free.release()
            return self._outcome(request, Seen.NOT_LOADED, f"no process could be started on {self._where}: {error}")
        stderr = asyncio.create_task(children.log_stderr(process, of=request.tool.name, secrets=self._secrets))
        try:
            return await self._converse(request, process, began=began, seconds=seconds, may_send=may_send)
        finally:
            await children.put_down(process)
            stderr.cancel()
            self._free.release()

    async def aclose(self) -> None:
        """Processes end with their calls."""

    # --- one call ---

    async def _converse(
        self,
        request: ToolRequest,
        process: asyncio.subprocess.Process,
        *,
        began: float,
        seconds: float,
        may_send: MaySend,
    ) -> Outcome:
        sent_at: float | None = None
        try:
            async with asyncio.timeout(began + seconds - time.monotonic()):
                refused = await self._made_ready(request, process, left=began + seconds - time.monotonic())
                if refused is not None:
                    return refused
                if not may_send():
                    return self._outcome(request, Seen.FENCED)
                sent_at = time.monotonic()
                await _write(process, b"go\n")
                said, body = await _heard(process, most=self._limit + self._secrets.longest)
        except TimeoutError:
            if sent_at is None:
                detail = f"{self._where} was still importing {request.tool.python} when its {seconds:g} s were over"
                return self._outcome(request, Seen.LOADING, detail)
            log.warning("python_tool.killed", tool=request.tool.name, seconds=seconds)
            return self._outcome(request, Seen.DEADLINE, f"{seconds:g} s; its process was killed", at=(began, sent_at))
        except (EOFError, OSError, ValueError) as error:
            how = await _ended(process, error)
            seen = Seen.NOT_LOADED if sent_at is None else Seen.DIED
            detail = f"its process on {self._where} ended while it was imported: {how}" if sent_at is None else how
            return self._outcome(request, seen, detail, at=None if sent_at is None else (began, sent_at))
        return self._answered(request, said, body, began=began, sent_at=sent_at)

    async def _made_ready(
        self, request: ToolRequest, process: asyncio.subprocess.Process, *, left: float
    ) -> Outcome | None:
        tool, python = request.tool, request.tool.python
        if python is None:
            raise ValueError(f"{tool.name} is no Python tool")
        context = context_of(request, deadline=0.0)
        asked = {
            "parent": os.getpid(),
            "where": self._where,
            "memory": self._memory,
            "limit": self._limit + self._secrets.longest,
            "distribution": python.distribution,
            "name": python.name,
            "tool": tool.name,
            "arguments": dict(request.arguments),
            "keyed": tool.effect is EffectClass.KEYED,
            "key_argument": tool.key_argument,
            "seconds": left,
            "context": {
                "workflow_id": context.workflow_id,
                "call_id": context.call_id,
                "attempt": context.attempt,
                "key": context.key,
                "traceparent": context.traceparent,
            },
        }
        await _write(process, json.dumps(asked).encode() + b"\n")
        said, _ = await _heard(process, most=0)
        if said["said"] == "ready":
            return None
        return self._outcome(request, Seen(said["seen"]), said["detail"])

    def _answered(
        self, request: ToolRequest, said: Mapping[str, Any], body: bytes, *, began: float, sent_at: float
    ) -> Outcome:
        times = (began, sent_at)
        limit = min(self._limit, request.tool.max_output or self._limit)
        masked = self._secrets.mask(body)
        cut = len(masked) > limit
        if said["said"] == "returned":
            evidence = Evidence(
                body=masked[:limit], media_type="application/json", truncated=cut or bool(said.get("truncated"))
            )
            return self._outcome(request, Seen.RETURNED, evidence=None if said.get("nothing") else evidence, at=times)
        seen = Seen(said["seen"])
        traceback = Evidence(body=masked[:limit], media_type="text/plain; charset=utf-8", truncated=cut)
        return self._outcome(
            request,
            seen,
            str(said["detail"]),
            evidence=traceback if seen is Seen.RAISED else None,
            at=times,
            retry_after=None if said["wait"] is None else timedelta(seconds=said["wait"]),
        )

    def _outcome(
        self,
        request: ToolRequest,
        seen: Seen,
        detail: str = "",
        *,
        evidence: Evidence | None = None,
        at: tuple[float, float] | None = None,
        retry_after: timedelta | None = None,
    ) -> Outcome:
        if seen in _AWAY:
            attempt = request.headers.get("Surefoot-Attempt", "1")
            pause = min(2.0 ** min(int(attempt) if attempt.isdigit() else 1, 16), LONGEST_PAUSE)
            retry_after = timedelta(seconds=pause)
        detail = storable_text(self._secrets.mask_text(detail), limit=_MESSAGE)
        verdict = judge(seen, tool=request.tool.name, detail=detail, retry_after=retry_after)
        arrived = verdict.outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED) or evidence is not None
        return Outcome(
            certainty=verdict.outcome,
            failure=verdict.failure,
            evidence=evidence,
            sent_after=None if at is None else at[1] - at[0],
            received_after=time.monotonic() - at[0] if at is not None and arrived else None,
        )


async def _write(process: asyncio.subprocess.Process, data: bytes) -> None:
    if process.stdin is None:
        raise EOFError
    process.stdin.write(data)
    await process.stdin.drain()


async def _heard(process: asyncio.subprocess.Process, *, most: int) -> tuple[dict[str, Any], bytes]:
    """One line and the bytes it announces. Raises EOFError, ValueError: the process is no more to be talked to."""
    if process.stdout is None:
        raise EOFError
    line = await process.stdout.readline()  # at most 64 KiB, the stream's own limit: else ValueError
    if not line.endswith(b"\n"):
        raise EOFError
    said = json.loads(line)
    if not isinstance(said, dict) or not 0 <= said["length"] <= most:
        raise ValueError("it said something else")
    return said, await process.stdout.readexactly(said["length"])


async def _ended(process: asyncio.subprocess.Process, error: Exception) -> str:
    """How the process ended; one that only closed its pipe is given a moment to show it."""
    try:
        async with asyncio.timeout(1.0):
            await process.wait()
    except TimeoutError:
        log.debug("python_tool.still_there", error=type(error).__name__)
    return children.ended(process.returncode)
