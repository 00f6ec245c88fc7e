"""Python tools in a process of their own: what a function can do to it, and that nothing of it stays behind."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from app.domain import bodies
from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, EffectClass, FailureKind
from app.ports.isolated_tools import CHILD, IsolatedTools
from app.ports.world import ToolRequest
from tests import packages
from tests.ports import function_calls
from tests.ports.function_calls import AMPLE, until

SOURCE = """
import asyncio, ctypes, os, subprocess, sys, time
from surefoot import NotExecuted, ToolFailed

def shout(text): print("said aloud"); return text.upper()
async def wait(text): await asyncio.sleep(0); return [text]
def tell(context): return [context.workflow_id, context.key, 0 < context.seconds_left <= 60]
def nothing(): return None
def crash(): ctypes.string_at(0)
def leave(): os._exit(7)
def hog(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    open(path, "w").write(f"{os.getpid()} {child.pid}")
    while True: pass
def never(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(300)
def eat(): return len(bytearray(2 * 1024 ** 3))
def refuse(): raise ToolFailed("no such room, s3cret-s3cret")
def later(): raise NotExecuted("busy", retry_after=30)
def breaks(): raise ValueError("half done")
def ends(): sys.exit("enough")
def big(n): return "x" * n
def odd(): return object()
def surrogate(): return chr(0xd800)
"""
NAMES = [line.split("(")[0].split()[-1] for line in SOURCE.splitlines() if line.startswith(("def ", "async def "))]
LIMIT = 2000


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> Iterator[None]:
    name = packages.module_name()
    with packages.on_path(packages.write(tmp_path / "package", SOURCE, NAMES, module=name)):
        yield


def port(*, processes: int = 4, memory: int = 0) -> IsolatedTools:
    secrets = {"token": SecretStr("s3cret-s3cret")}
    return IsolatedTools(secrets=secrets, response_limit=LIMIT, processes=processes, memory=memory, where="worker.7")


def call(name: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> ToolRequest:
    made = function_calls.call(name, arguments, **more)
    assert made.tool.python is not None
    isolated = dataclasses.replace(made.tool.python, isolate=True)
    return dataclasses.replace(made, tool=dataclasses.replace(made.tool, python=isolated))


async def sent(name: str, arguments: Mapping[str, Any] | None = None, *, through: Any = None, **more: Any) -> Outcome:
    seconds = more.pop("seconds", AMPLE)
    return await (through or port()).send(call(name, arguments, **more), seconds=seconds, may_send=lambda: True)


def output(outcome: Outcome) -> Any:
    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome
    evidence = outcome.evidence
    if evidence is None:
        return None
    return bodies.read_body(evidence.body, evidence.media_type, truncated=evidence.truncated)


def said(outcome: Outcome) -> tuple[AttemptOutcome, FailureKind, str]:
    assert outcome.failure is not None, outcome
    return outcome.certainty, outcome.failure.kind, outcome.failure.message


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_function_returns_from_a_process_of_its_own_and_what_it_prints_is_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        assert output(await sent("shout", {"text": "hello"})) == "HELLO"

    assert "said aloud" in "".join(line["text"] for line in logs if line["event"] == "child.said")


@pytest.mark.parametrize(("name", "arguments", "value"), [("wait", {"text": "x"}, ["x"]), ("nothing", {}, None)])
async def test_functions_of_every_kind_are_called(name: str, arguments: dict[str, Any], value: Any) -> None:
    assert output(await sent(name, arguments)) == value


async def test_function_learns_which_call_it_is() -> None:
    assert output(await sent("tell", effect=EffectClass.KEYED, key="k-1")) == ["wf_1", "k-1", True]


@pytest.mark.parametrize(("name", "how"), [("crash", "SIGSEGV"), ("leave", "exit code 7")])
async def test_death_of_the_process_is_an_unknown_outcome_and_the_worker_lives(name: str, how: str) -> None:
    certainty, kind, message = said(await sent(name))

    assert (certainty, kind) == (AttemptOutcome.UNKNOWN, FailureKind.SERVER_ERROR)
    assert how in message


async def test_deadline_kills_the_process_and_its_children_for_certain(tmp_path: Path) -> None:
    told = tmp_path / "pids"

    certainty, kind, _ = said(await sent("hog", {"path": str(told)}, seconds=6.0))

    assert (certainty, kind) == (AttemptOutcome.UNKNOWN, FailureKind.TIMEOUT)
    pids = [int(pid) for pid in told.read_text().split()]
    await until(lambda: not any(alive(pid) for pid in pids))


async def test_cancelled_call_leaves_no_process_behind(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    sending = asyncio.create_task(sent("hog", {"path": str(told)}))
    await until(lambda: told.exists() and len(told.read_text().split()) == 2)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    pids = [int(pid) for pid in told.read_text().split()]
    await until(lambda: not any(alive(pid) for pid in pids))


async def test_process_dies_with_its_worker(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    worker = textwrap.dedent(f"""
        import asyncio, sys
        from tests.ports import test_isolated_tools as tests
        asyncio.run(tests.sent("never", {{"path": {str(told)!r}}}))
    """)
    path = os.pathsep.join([str(Path.cwd()), *sys.path])
    process = subprocess.Popen([sys.executable, "-c", worker], env={**os.environ, "PYTHONPATH": path})
    try:
        await until(lambda: told.exists() and bool(told.read_text()))
        child = int(told.read_text())
        assert alive(child)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    await until(lambda: not alive(child))


async def test_memory_of_the_process_is_bounded_if_the_operator_says_so() -> None:
    certainty, _, message = said(await sent("eat", through=port(memory=1024**3)))

    assert certainty is AttemptOutcome.UNKNOWN
    assert "MemoryError" in message


@pytest.mark.parametrize(
    ("name", "certainty", "kind"),
    [
        ("refuse", AttemptOutcome.FAILED, FailureKind.TOOL_ERROR),
        ("later", AttemptOutcome.FAILED, FailureKind.RATE_LIMITED),
        ("breaks", AttemptOutcome.UNKNOWN, FailureKind.SERVER_ERROR),
        ("ends", AttemptOutcome.UNKNOWN, FailureKind.SERVER_ERROR),
    ],
)
async def test_what_it_raises_is_judged_as_in_the_worker(
    name: str, certainty: AttemptOutcome, kind: FailureKind
) -> None:
    outcome = await sent(name)

    assert said(outcome)[:2] == (certainty, kind)
    assert "s3cret" not in said(outcome)[2]
    assert (outcome.evidence is not None) == (certainty is AttemptOutcome.UNKNOWN)


async def test_function_that_is_not_installed_waits_for_a_worker_that_has_it() -> None:
    outcome = await sent("absent")

    assert said(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.WORKER_LOST)
    assert outcome.failure is not None
    assert outcome.failure.retry_after is not None


async def test_arguments_that_do_not_fit_are_refused_before_it_is_called() -> None:
    assert said(await sent("shout", {"tone": 1}))[:2] == (AttemptOutcome.NOT_SENT, FailureKind.INVALID_REQUEST)


async def test_child_ends_without_calling_when_nobody_tells_it_to_go(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    context = {"workflow_id": "wf_1", "call_id": "call_1", "attempt": 1, "key": None, "traceparent": None}
    asked = {
        "parent": os.getpid(), "where": "x", "memory": 0, "limit": LIMIT, "distribution": "acme-tools", "name": "never",
        "tool": "t", "arguments": {"path": str(told)}, "keyed": False, "key_argument": None, "seconds": 5.0,
        "context": context,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    ended = await asyncio.to_thread(
        lambda: subprocess.run(
            CHILD,
            input=json.dumps(asked).encode() + b"\n",
            env=environment,
            capture_output=True,
            timeout=AMPLE,
            start_new_session=True,
        )
    )

    assert json.loads(ended.stdout) == {"said": "ready", "length": 0}
    assert ended.returncode == 0
    assert not told.exists()


async def test_function_is_not_called_when_the_lease_is_no_longer_sure(tmp_path: Path) -> None:
    told = tmp_path / "pid"

    outcome = await port().send(call("never", {"path": str(told)}), seconds=AMPLE, may_send=lambda: False)

    assert said(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.WORKER_LOST)
    assert not told.exists()


async def test_call_that_finds_no_place_in_time_is_not_sent(tmp_path: Path) -> None:
    told, only = tmp_path / "pid", port(processes=1)
    holding = asyncio.create_task(sent("never", {"path": str(told)}, through=only))
    await until(told.exists)

    outcome = await sent("shout", {"text": "x"}, through=only, seconds=0.3)

    assert said(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.WORKER_LOST)
    assert "all 1 processes" in said(outcome)[2]
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("big", {"n": 50_000}, "cut before its end"),
        ("odd", {}, "not JSON"),
        ("surrogate", {}, "lone surrogate"),
    ],
)
async def test_result_that_cannot_be_kept_is_a_success_all_the_same(
    name: str, arguments: dict[str, Any], reason: str
) -> None:
    found = output(await sent(name, arguments))

    assert found["opaque"] is True
    assert reason in found["reason"]
