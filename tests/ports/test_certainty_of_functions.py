"""Certainty of Python tools, from the function up: all that a function can do, and what the attempt comes to.

`ENDS` and `REFUSALS` are docs/tools.md written out by hand; nothing in them is computed from the product's own table.
Each end is tried with an async function and with one that blocks, and with every effect class.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.function_certainty import NOT_CALLED, TABLE, Seen
from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, EffectClass
from app.ports.python_tools import PythonTools
from tests import packages
from tests.ports.function_calls import AMPLE, call, tools, until

EFFECTS = ("read_only", "idempotent", "keyed", "checkable", "at_most_once")
DONE = "succeeded"
RAISED = "unknown server_error"
NO = "failed tool_error, permanent"
NOT_NOW = "failed server_error, not executed"
LATER = "failed rate_limited, not executed, after"
ELSEWHERE = "not_sent worker_lost, after 8 s"

ENDS = {
    # --- it returned: it has executed, whatever its answer is worth
    "returns_a_value": ("return {'id': 7}", DONE),
    "returns_nothing": ("return None", DONE),
    "returns_bytes": ("return b'x'", DONE),
    "returns_a_set_within": ("return {'x': {1}}", DONE),
    "returns_itself": ("a = []; a.append(a); return a", DONE),
    "returns_nan": ("return float('nan')", DONE),
    "returns_half_a_character": ("return '\\ud800'", DONE),
    "returns_a_nul": ("return '\\x00'", DONE),
    "returns_more_than_is_kept": ("return 'x' * 5000", DONE),
    "returns_a_deep_list": ("exec('a = []\\nfor _ in range(9999): a = [a]', g := {}); return g['a']", DONE),
    "returns_what_cannot_be_shown": ("return Sly()", DONE),
    # --- it said that it did not act
    "says_not_executed": ("raise surefoot.NotExecuted('busy')", NOT_NOW),
    "says_come_back": ("raise surefoot.NotExecuted('busy', retry_after=7)", f"{LATER} 7 s"),
    "says_come_back_at_once": ("raise surefoot.NotExecuted('busy', retry_after=0)", f"{LATER} 0 s"),
    "says_come_back_never": ("raise surefoot.NotExecuted('busy', retry_after=1e99)", f"{LATER} 3.16224e+07 s"),
    "says_come_back_nan": ("raise surefoot.NotExecuted('busy', retry_after=float('nan'))", NOT_NOW),
    "says_come_back_before": ("raise surefoot.NotExecuted('busy', retry_after=-1)", NOT_NOW),
    "says_come_back_in_words": ("raise surefoot.NotExecuted('busy', retry_after='soon')", NOT_NOW),
    "says_not_executed_in_a_class_of_its_own": ("raise Closed", NOT_NOW),
    "says_failed": ("raise surefoot.ToolFailed('no such room')", NO),
    "says_failed_in_a_class_of_its_own": ("raise Rejected('no such room')", NO),
    # --- it raised: it may have acted before
    "raises_an_error": ("raise ValueError('x')", RAISED),
    "raises_a_timeout_of_its_own": ("raise TimeoutError", RAISED),
    "raises_stop_iteration": ("raise StopIteration(3)", RAISED),
    "raises_system_exit": ("sys.exit(3)", RAISED),
    "raises_keyboard_interrupt": ("raise KeyboardInterrupt", RAISED),
    "raises_generator_exit": ("raise GeneratorExit", RAISED),
    "raises_cancelled": ("raise asyncio.CancelledError", RAISED),
    "raises_a_group": ("raise BaseExceptionGroup('x', [SystemExit()])", RAISED),
    "raises_something_without_text": ("raise Mute", RAISED),
    "raises_not_executed_below_another": ("raise ValueError from surefoot.NotExecuted('busy')", RAISED),
}

HEAD = """
import asyncio, sys, surefoot

class Sly:
    def __repr__(self): raise ValueError
class Rejected(surefoot.ToolFailed): pass
class Closed(surefoot.NotExecuted):
    def __init__(self): pass
class Mute(BaseException):
    def __str__(self): raise ValueError
"""

REFUSALS = {
    "nothing_there": ("", ELSEWHERE, "has no attribute 'nothing_there'"),
    "a_class": ("class a_class: pass", ELSEWHERE, "is no function"),
    "a_value": ("a_value = 3", ELSEWHERE, "is no function"),
    "a_generator": ("def a_generator(): yield", ELSEWHERE, "is a generator"),
    "an_async_generator": ("async def an_async_generator(): yield", ELSEWHERE, "is a generator"),
    "by_position": ("def by_position(a, /): return a", ELSEWHERE, "positional-only parameters (`a`)"),
    "needs_more": ("def needs_more(a, b): return a", "not_sent invalid_request", "requires `a`, `b`"),
}
BROKEN = {
    "raises": ("1 / 0", "raised ZeroDivisionError: division by zero"),
    "exits": ("import sys; sys.exit('no')", "raised SystemExit: no"),
    "is no Python": ("def", "raised SyntaxError"),
    "wants what is not there": ("import acme_missing", "No module named 'acme_missing'"),
}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """Every end twice: `returns_nothing` is async, `returns_nothing_blocking` is not."""
    source = [HEAD]
    for name, (body, _) in ENDS.items():
        source.append(f"async def {name}(key=None): {body}\ndef {name}_blocking(key=None): {body}\n")
    source += [f"{text}\n" for text, _, _ in REFUSALS.values()]
    names = [*ENDS, *(f"{name}_blocking" for name in ENDS), *REFUSALS]
    with packages.on_path(packages.write(tmp_path, "\n".join(source), names)):
        yield


def in_words(outcome: Outcome) -> str:
    failure = outcome.failure
    if failure is None:
        return outcome.certainty.value
    words = [f"{outcome.certainty.value} {failure.kind.value}"]
    words += [mark.replace("_", " ") for mark in ("not_executed", "permanent") if failure.detail.get(mark)]
    if failure.retry_after is not None:
        words.append(f"after {failure.retry_after.total_seconds():g} s")
    return ", ".join(words)


async def outcomes(port: PythonTools, name: str) -> dict[str, Outcome]:
    """By effect class."""
    found = {}
    for effect in EFFECTS:
        keyed = effect == "keyed"
        request = call(
            name, effect=EffectClass(effect), key="k-1" if keyed else None, key_argument="key" if keyed else None
        )
        found[effect] = await port.send(request, seconds=AMPLE, may_send=lambda: True)
    return found


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
@pytest.mark.parametrize("name", ENDS)
async def test_attempt_is_as_certain_as_what_the_function_did(installed: None, name: str, blocking: bool) -> None:
    port = tools()

    seen = await outcomes(port, f"{name}_blocking" if blocking else name)

    assert {effect: in_words(outcome) for effect, outcome in seen.items()} == dict.fromkeys(EFFECTS, ENDS[name][1])
    for outcome in seen.values():
        assert outcome.sent_after is not None
        assert outcome.received_after is not None
        assert 0 <= outcome.sent_after <= outcome.received_after
        assert outcome.failure is None or outcome.failure.message.startswith("calendar.book ")
    assert port.threads.busy == port.threads.abandoned == 0


@pytest.mark.parametrize("name", REFUSALS)
async def test_function_that_cannot_be_called_so_is_never_sent(installed: None, name: str) -> None:
    seen = {effect: await outcome for effect, outcome in _refused(name).items()}

    _, says, because = REFUSALS[name]
    assert {effect: in_words(outcome) for effect, outcome in seen.items()} == dict.fromkeys(seen, says)
    for outcome in seen.values():
        assert outcome.sent_after is None
        assert outcome.failure is not None
        assert because in outcome.failure.message


@pytest.mark.parametrize("why", BROKEN)
async def test_package_that_cannot_be_imported_is_never_sent_and_says_where_and_why(tmp_path: Path, why: str) -> None:
    source, because = BROKEN[why]
    with packages.on_path(packages.write(tmp_path, source, ["book"])):
        outcome = await tools().send(call("book"), seconds=AMPLE, may_send=lambda: True)

    assert in_words(outcome) == ELSEWHERE
    assert outcome.failure is not None
    assert because in outcome.failure.message
    assert "worker.7" in outcome.failure.message


@pytest.mark.parametrize(
    ("name", "distribution", "because"),
    [
        ("returns_nothing", "other-tools", "worker.7 has no distribution `other-tools`"),
        ("returns_noting", "acme-tools", "`acme-tools` 1.2 on worker.7 declares no `returns_noting` in surefoot.tools"),
        ("main", "acme-tools", "declares no `main`"),  # an entry point, of another group
        ("acme", "acme-tools", "declares no `acme`"),
    ],
)
async def test_tool_that_is_not_installed_is_due_elsewhere_after_a_growing_pause(
    installed: None, name: str, distribution: str, because: str
) -> None:
    port = tools()

    tries = [
        await port.send(
            call(name, distribution=distribution, headers={"Surefoot-Attempt": str(n)}),
            seconds=AMPLE,
            may_send=lambda: True,
        )
        for n in (1, 2, 3, 9, 1000)
    ]

    pauses = [one.failure.retry_after.total_seconds() for one in tries if one.failure and one.failure.retry_after]
    assert pauses == [2, 4, 8, 300, 300]
    assert [one.certainty for one in tries] == [AttemptOutcome.NOT_SENT] * 5
    assert tries[0].failure is not None
    assert because in tries[0].failure.message


async def test_function_that_outlives_its_deadline_is_unknown_for_every_class(tmp_path: Path) -> None:
    source = """
    import asyncio, threading
    async def waits(key=None): await asyncio.Event().wait()
    over = threading.Event()
    def blocks(key=None): over.wait()
    """
    port, module = tools(threads=10), packages.module_name()
    with packages.on_path(packages.write(tmp_path, source, ["waits", "blocks"], module=module)):
        # First known, so that the short deadline is none for the import.
        for name in ("waits", "blocks"):
            await port.send(call(name, {"x": 1}), seconds=AMPLE, may_send=lambda: True)
        asked = [
            port.send(
                call(name, effect=EffectClass(effect), key="k", key_argument="key"), seconds=0.2, may_send=lambda: True
            )
            for effect in EFFECTS
            for name in ("waits", "blocks")
        ]
        seen = await asyncio.gather(*asked)
        left = (port.threads.busy, port.threads.abandoned)
        sys.modules[module].over.set()
        await until(lambda: port.threads.busy == 0)

    assert [in_words(outcome) for outcome in seen] == ["unknown timeout"] * 10
    assert all(outcome.sent_after is not None for outcome in seen)
    assert all("in time (0.2 s)" in outcome.failure.message for outcome in seen if outcome.failure)
    assert left == (5, 5)
    assert port.threads.abandoned == 0


def test_table_of_functions_calls_not_sent_exactly_what_comes_before_the_call() -> None:
    away = {"not_installed", "not_loaded", "loading", "no_thread", "no_process"}

    assert {seen.value for seen in NOT_CALLED} == {"fenced", "arguments_unfit", "key_lost", *away}
    assert set(TABLE) == set(Seen)
    assert {row.outcome for seen, row in TABLE.items() if seen in (Seen.RAISED, Seen.DEADLINE, Seen.DIED)} == {
        AttemptOutcome.UNKNOWN
    }


def _refused(name: str) -> dict[str, asyncio.Task[Outcome]]:
    port = tools()
    return {
        effect: asyncio.create_task(
            port.send(
                call(name, effect=EffectClass(effect), key="k", key_argument="key" if effect == "keyed" else None),
                seconds=AMPLE,
                may_send=lambda: True,
            )
        )
        for effect in EFFECTS
    }
