"""The process that an isolated Python tool is called in: one function, once. Started by `isolated_tools.py`.

    stdin    a line: the function, its arguments, context and limits; a line `go`; then nothing until the parent ends
    stdout   a line `{"said": …}`, of a result followed by its bytes. What the function prints goes to stderr instead

Until `go` nothing of the function but its import has run. It dies with its parent: the kernel is asked for that where
it can be, and a thread waits for the end of stdin everywhere, so that no orphan goes on acting while another worker is
already told that this one is lost.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import json
import os
import resource
import signal
import sys
import threading
import time
from typing import Any, BinaryIO, Final

from app.domain.plan import PythonTool
from app.ports.python_answers import Answers, testimony
from app.ports.python_functions import Function, NotLoaded, completed, found
from app.ports.secrets import Secrets
from surefoot import ToolContext

_PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that the kernel sends when the parent ends."""
_FIRST_TO_GO: Final = "1000"
"""proc(5), oom_score_adj: if memory runs out this process ends, and not the worker beside it."""


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.buffer.readline())
    _die_with(asked["parent"])
    _limit(asked["memory"])
    try:
        function = found(PythonTool(distribution=asked["distribution"], name=asked["name"]), where=asked["where"])
    except NotLoaded as error:
        _tell(out, said="refused", seen=error.seen.value, detail=error.detail)
        return
    context = ToolContext(**asked["context"], deadline=time.monotonic() + asked["seconds"])
    refused = completed(
        function, asked["arguments"], keyed=asked["keyed"], key_argument=asked["key_argument"], context=context
    )
    if refused is not None:
        _tell(out, said="refused", seen=refused[0].value, detail=refused[1])
        return
    _tell(out, said="ready")
    if sys.stdin.buffer.readline() != b"go\n":
        return
    threading.Thread(target=_watch, daemon=True).start()
    _answer(out, function, asked)


def _answer(out: BinaryIO, function: Function, asked: dict[str, Any]) -> None:
    answers = Answers(secrets=Secrets({}), limit=asked["limit"])
    try:
        value = function.call(**asked["arguments"])
        if inspect.isawaitable(value):
            value = asyncio.run(_awaited(value))
    except BaseException as error:  # SystemExit included: it is the function's, and the worker is told
        seen, detail, wait = testimony(error)
        evidence = answers.raised(error)
        seconds = None if wait is None else wait.total_seconds()
        _tell(out, body=evidence.body, said="raised", seen=seen.value, detail=detail, wait=seconds)
        return
    if value is None:
        _tell(out, said="returned", nothing=True)
        return
    evidence = answers.returned(value, tool=asked["tool"])
    _tell(out, body=evidence.body, said="returned", truncated=evidence.truncated)


async def _awaited(value: Any) -> Any:
    return await value


def _tell(out: BinaryIO, *, body: bytes = b"", **said: Any) -> None:
    out.write(json.dumps({**said, "length": len(body)}).encode() + b"\n" + body)
    out.flush()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before that was asked for
        os._exit(1)


def _watch() -> None:
    """The end of stdin: the parent is gone, or has given up."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


def _limit(memory: int) -> None:
    """`memory`: bytes of address space, 0: as much as there is."""
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if sys.platform == "linux":
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_FIRST_TO_GO)


if __name__ == "__main__":
    main()
