"""Calls of Python tools for the tests of their port, and the package of functions that they call.

tools, call          the port, a request
returned, failed     sent, with what the engine makes of it
imported             the package on the path, and its module
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from app.domain import bodies
from app.domain.outcomes import Outcome
from app.domain.plan import PythonTool, Tool
from app.domain.states import AttemptOutcome, EffectClass
from app.ports.python_tools import PythonTools
from app.ports.world import ToolRequest
from tests import packages

DISTRIBUTION = "acme-tools"
LIMIT = 2000
AMPLE = 60.0
"""Seconds no function here needs."""
HEADERS = {
    "Surefoot-Workflow": "wf_1",
    "Surefoot-Call": "call_1",
    "Surefoot-Attempt": "3",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


SOURCE = """
import asyncio, os, threading, structlog
from surefoot import NotExecuted, ToolFailed

calls = []
gate = threading.Event()
entered = threading.Event()

async def book(title, when="now"):
    calls.append((title, when))
    return {"z": 1, "title": title, "a": [when]}

def book_blocking(title): return {"title": title, "thread": threading.current_thread().name}

async def anything(**arguments): return arguments

async def spoil(people): people.append("eve"); people[0]["name"] = "eve"; return people

def tell(context):
    return {"workflow": context.workflow_id, "call": context.call_id, "attempt": context.attempt,
            "key": context.key, "traceparent": context.traceparent, "left": context.seconds_left}

async def charge(amount, idempotency): return [amount, idempotency]

async def both(title, context): return title

def bound(): return structlog.contextvars.get_contextvars()
async def bound_async(): return structlog.contextvars.get_contextvars()

def blocks():
    entered.set()
    gate.wait()
    return "late"

async def waits():
    entered.set()
    try:
        await asyncio.Event().wait()
    finally:
        calls.append("cancelled")

async def stubborn():
    entered.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return {"done": True}

def around(): return anything(inner=True)

class Callable:
    async def __call__(self, title): return title
instance = Callable()

def leaks(): raise RuntimeError(f"token {os.environ.get('HOME', '')[:0]}s3cret-s3cret refused")
def answers_secret(): return {"echo": "s3cret-s3cret"}
def says_secret(): raise ToolFailed("the token s3cret-s3cret is refused")
def big(n): return "x" * n
"""
NAMES = [node.name for node in ast.parse(SOURCE).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@contextmanager
def imported(folder: Path) -> Iterator[ModuleType]:
    """The module of the functions, as the worker imports it."""
    name = packages.module_name()
    with packages.on_path(packages.write(folder, SOURCE, [*NAMES, "instance"], module=name)):
        yield importlib.import_module(name)
        sys.modules[name].gate.set()


def tools(*, threads: int = 4, **secrets: Any) -> PythonTools:
    return PythonTools(secrets=secrets, response_limit=LIMIT, threads=threads, where="worker.7")


def call(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    distribution: str = DISTRIBUTION,
    effect: EffectClass = EffectClass.IDEMPOTENT,
    key: str | None = None,
    key_argument: str | None = None,
    headers: Mapping[str, str] = HEADERS,
) -> ToolRequest:
    tool = Tool(
        name="calendar.book",
        description="Book one event.",
        input_schema=None,
        python=PythonTool(distribution=distribution, name=name),
        effect=effect,
        key_header=None,
        key_argument=key_argument,
        key_ttl=None,
        timeout=timedelta(seconds=5),
        settle_time=timedelta(seconds=10),
        on_repeat="ask",
    )
    return ToolRequest(tool=tool, arguments=arguments or {}, key=key, headers=headers, fresh_connection=False)


async def returned(port: PythonTools, name: str, arguments: Any = None, **more: Any) -> Any:
    """What the engine makes of it."""
    outcome = await port.send(call(name, arguments, **more), seconds=AMPLE, may_send=lambda: True)
    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome
    if outcome.evidence is None:
        return None
    evidence = outcome.evidence
    return bodies.read_body(evidence.body, evidence.media_type, truncated=evidence.truncated)


async def failed(port: PythonTools, name: str, arguments: Any = None, **more: Any) -> Outcome:
    outcome = await port.send(call(name, arguments, **more), seconds=AMPLE, may_send=lambda: True)
    assert outcome.failure is not None
    return outcome


async def until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait for what another thread brings about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.to_thread(_tick.wait, 0.005)


_tick = threading.Event()
