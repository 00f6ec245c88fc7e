"""Python tools: `PythonTools.send` performs one attempt at a call by calling a function in this process.

The counterpart of `http_tools.py`: the same question, the same kind of answer. Arguments are given by name, as copies;
a parameter named `context` gets a `surefoot.ToolContext`. An async function runs on the event loop, another one in a
thread (`function_threads.py`). `may_send` is asked right before the function is called; from then on an attempt that
has no answer is unknown. What became of the function is judged by `app/domain/function_certainty.py`.

It raises nothing but cancellation, whatever the function raises: SystemExit and its like end here. It never calls a
function twice, and never waits for one beyond the deadline; what returns after it is logged and handed to nobody.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

import structlog
from pydantic import SecretStr

from app.domain.bodies import storable_text
from app.domain.function_certainty import Seen, judge
from app.domain.outcomes import JSON, Evidence, Outcome
from app.domain.plan import PythonTool
from app.domain.states import AttemptOutcome, EffectClass
from app.ports.function_threads import Ended, FunctionThreads
from app.ports.python_answers import Answers, testimony
from app.ports.python_functions import REMEMBERED, Function, Functions, NotLoaded, completed, installed
from app.ports.secrets import Secrets
from app.ports.world import MaySend, ToolRequest
from surefoot import ToolContext

log = structlog.get_logger(__name__)

LONGEST_PAUSE: Final = 300.0
"""Seconds between two attempts at a tool that this worker does not have: 2, 4, 8 … up to this. Long enough to be no
load, short enough that nobody waits for long after a deployment (`retry-now` waits for nothing)."""

LEAST_TIME: Final = 0.05
"""Seconds, as in `app/engine/perform.py`: what waited for an import or a thread until its time was nearly over would
only be begun to become unknown."""

_MESSAGE: Final = 500


class PythonTools:
    """Implements `ToolPort`. One per process and event loop.

    `threads`: the most functions that may block at once. As many as calls are performed at once: the deadline of a call
    that was claimed runs, so it should not queue behind others; only functions that ignore their deadline can use the
    places up. `where`: what this process is called in messages. `remembered`: seconds for which a tool that is not here
    is not looked for again.
    """

    def __init__(
        self,
        *,
        secrets: Mapping[str, SecretStr],
        response_limit: int,
        threads: int,
        where: str,
        remembered: float = REMEMBERED,
    ) -> None:
        self.threads = FunctionThreads(limit=threads)
        self._functions = Functions(where=where, remembered=remembered)
        self._secrets = Secrets(secrets)
        self._answers = Answers(secrets=self._secrets, limit=response_limit)
        self._where = where

    async def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        began = time.monotonic()
        python = request.tool.python
        if python is None:
            raise ValueError(f"{request.tool.name} is no Python tool")
        function = self._functions.known(python) or await self._load(request, python, seconds=seconds)
        if isinstance(function, Outcome):
            return function
        arguments = _copied(request.arguments)
        refused = _prepare(function, request, arguments, deadline=began + seconds)
        if refused is not None:
            return self._outcome(request, *refused)
        sent_at: float | None = None
        try:
            async with asyncio.timeout(began + seconds - time.monotonic()):
                if not function.is_async and not await self._place(began + seconds, least=_least(seconds)):
                    return self._unavailable(request, Seen.NO_THREAD, self._crowded())
                if not may_send():
                    if not function.is_async:
                        self.threads.give_back()
                    return self._outcome(request, Seen.FENCED)
                sent_at = time.monotonic()
                if function.is_async:
                    ended = await _awaited(function.call, arguments)
                else:
                    ended = await self._in_thread(request, partial(function.call, **arguments))
        except TimeoutError:
            if sent_at is None:
                return self._unavailable(request, Seen.NO_THREAD, self._crowded())
            return self._outcome(request, Seen.DEADLINE, f"{seconds:g} s", sent_after=sent_at - began)
        return self._judged(request, ended, sent_after=sent_at - began, received_after=time.monotonic() - began)

    async def warm(self) -> None:
        """Say which tools this process sees. Nothing is imported before it is called."""
        there = await asyncio.to_thread(lambda: [f"{each.tool} {each.version}" for each in installed()])
        if there:
            log.info("python_tools", installed=there)

    async def aclose(self) -> None:
        """The threads are daemons: nothing waits for them. Whether one is still at work is worth a line."""
        if self.threads.busy:
            log.warning("python_tools.left_running", busy=self.threads.busy, abandoned=self.threads.abandoned)

    # --- calling ---

    async def _load(self, request: ToolRequest, python: PythonTool, *, seconds: float) -> Function | Outcome:
        """For the first call of this process."""
        try:
            async with asyncio.timeout(seconds - _least(seconds)):
                return await self._functions.load(python)
        except NotLoaded as error:
            return self._unavailable(request, error.seen, error.detail)
        except TimeoutError:
            detail = f"{self._where} was still importing {python} when its {seconds:g} s were nearly over"
            return self._unavailable(request, Seen.LOADING, detail)

    async def _place(self, deadline: float, *, least: float) -> bool:
        """A thread's place, if there is one while a call is worth beginning."""
        waits = self.threads.full
        await self.threads.reserve()
        if waits and deadline - time.monotonic() < least:
            self.threads.give_back()
            return False
        return True

    async def _in_thread(self, request: ToolRequest, call: Callable[[], Any]) -> Ended:
        ended = await self.threads.run(call, name=request.tool.name)
        if inspect.isawaitable(ended.value):  # a plain function around an async one
            return await _awaited(lambda: ended.value, {})
        return ended

    def _crowded(self) -> str:
        threads = self.threads
        return (
            f"all {threads.limit} threads of {self._where} are taken, {threads.abandoned} of them by functions that "
            "went on after their deadline"
        )

    # --- what became of it ---

    def _judged(self, request: ToolRequest, ended: Ended, *, sent_after: float, received_after: float) -> Outcome:
        error = ended.raised
        if error is None:
            return Outcome(
                certainty=AttemptOutcome.SUCCEEDED,
                evidence=None
                if ended.value is None
                else self._answers.returned(ended.value, tool=request.tool.name, most=request.tool.max_output),
                sent_after=sent_after,
                received_after=received_after,
            )
        seen, detail, wait = testimony(error)
        evidence = None
        if seen is Seen.RAISED:
            log.warning("python_tool.raised", tool=request.tool.name, error=detail)
            evidence = self._answers.raised(error)
        return self._outcome(
            request,
            seen,
            detail,
            evidence=evidence,
            sent_after=sent_after,
            received_after=received_after,
            retry_after=wait,
        )

    def _outcome(
        self,
        request: ToolRequest,
        seen: Seen,
        detail: str = "",
        *,
        evidence: Evidence | None = None,
        sent_after: float | None = None,
        received_after: float | None = None,
        retry_after: timedelta | None = None,
    ) -> Outcome:
        detail = storable_text(self._secrets.mask_text(detail), limit=_MESSAGE)
        verdict = judge(seen, tool=request.tool.name, detail=detail, retry_after=retry_after)
        return Outcome(
            certainty=verdict.outcome,
            failure=verdict.failure,
            evidence=evidence,
            sent_after=sent_after,
            received_after=received_after,
        )

    def _unavailable(self, request: ToolRequest, seen: Seen, detail: str) -> Outcome:
        """Not on this worker, not now: the call is due again after a pause that grows with its attempts."""
        attempt = request.headers.get("Surefoot-Attempt", "1")
        pause = min(2.0 ** min(int(attempt) if attempt.isdigit() else 1, 16), LONGEST_PAUSE)
        return self._outcome(request, seen, detail, retry_after=timedelta(seconds=pause))


def _prepare(
    function: Function, request: ToolRequest, arguments: dict[str, JSON], *, deadline: float
) -> tuple[Seen, str] | None:
    """Complete the arguments; or why the function is not called."""
    tool = request.tool
    return completed(
        function,
        arguments,
        keyed=tool.effect is EffectClass.KEYED,
        key_argument=tool.key_argument,
        context=context_of(request, deadline=deadline),
    )


def context_of(request: ToolRequest, *, deadline: float) -> ToolContext:
    headers = request.headers
    return ToolContext(
        workflow_id=headers.get("Surefoot-Workflow", ""),
        call_id=headers.get("Surefoot-Call", ""),
        attempt=int(headers.get("Surefoot-Attempt", "1")),
        key=request.key,
        deadline=deadline,
        traceparent=headers.get("traceparent"),
    )


def _least(seconds: float) -> float:
    """A call that has less left when it could begin is not begun."""
    return min(LEAST_TIME, seconds / 2)


async def _awaited(function: Callable[..., Awaitable[Any]], arguments: Mapping[str, Any]) -> Ended:
    """Whatever it raises, except what is meant for us: our own cancellation, and the end of our own frame."""
    task = asyncio.current_task()
    try:
        return Ended(value=await function(**arguments))
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        return Ended(raised=error)
    except GeneratorExit as error:
        if _current_task() is not task:
            raise
        return Ended(raised=error)
    except BaseException as error:
        return Ended(raised=error)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _copied(arguments: Mapping[str, JSON]) -> dict[str, JSON]:
    """What a function does to its arguments changes nothing that the next attempt is made of."""
    return {name: _copy(value) if isinstance(value, (dict, list)) else value for name, value in arguments.items()}


def _copy(value: JSON) -> JSON:
    """JSON only: a tenth of what `copy.deepcopy` takes."""
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value
