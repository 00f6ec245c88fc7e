"""Calls that no worker can make because something is not installed: the headline says it while it is so."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import function_certainty, mcp_certainty
from app.domain.headlines import step_headline, workflow_headline
from app.domain.trace import build_trace
from app.domain.uninstalled import among
from tests.domain import why_stories
from tests.domain.fabricated_rows import at, attempt, call, step, workflow

PACKAGE = function_certainty.judge(
    function_certainty.Seen.NOT_INSTALLED, tool="mail.send", detail="worker.2 has no distribution `acme-tools`"
).failure
PROGRAM = mcp_certainty.judge(
    mcp_certainty.Seen.NOT_INSTALLED, tool="git.log", detail="worker.2 has no program `mcp-server-git`"
).failure
FENCED = function_certainty.judge(function_certainty.Seen.FENCED, tool="mail.send").failure

RUNNING = workflow(status="running", ended_at=None, steps_done=1, open_calls=1)
SAID = (
    "mail.send was not called: worker.2 has no distribution `acme-tools`; install it where workers run (surefoot tool "
    "installed shows what is there) and restart them, or correct `python` of the tool"
)

Row = dict[str, Any]


def tried(number: int, failure: Any, **columns: Any) -> tuple[Row, Row]:
    """A call that is due again, and its last attempt."""
    waiting = {"state": "due", "due_at": at(30 + number)}
    asked = call(number, f"send.{number}", tool="mail.send", **waiting | columns)
    last = attempt(number, asked, began=1, ended=None, outcome="not_sent", failure=failure.to_json())
    return asked | {"attempt_id": last["id"]}, last


def found(*pairs: tuple[Row, Row]) -> Any:
    return among([asked for asked, _ in pairs], {asked["id"]: [last] for asked, last in pairs})


def test_headline_says_what_is_missing_and_what_to_do_when_a_package_is_not_there() -> None:
    headline = workflow_headline(RUNNING, steps=[], calls=[], missing=found(tried(1, PACKAGE)))

    assert headline == f"Running; 1 of 5 steps done. {SAID} (the next try is at 14:02:42 UTC)."


def test_headline_says_it_of_the_program_of_an_mcp_server() -> None:
    headline = step_headline(step("log", 0, began=0, ended=None), missing=found(tried(1, PROGRAM)))

    assert headline == (
        "Running. git.log was not called: worker.2 has no program `mcp-server-git`; install the program where workers "
        "run, or correct `mcp.command` (the next try is at 14:02:42 UTC)."
    )


def test_headline_counts_the_calls_that_wait_like_this_and_names_the_next_try() -> None:
    headline = workflow_headline(
        RUNNING, steps=[], calls=[], missing=found(tried(2, PROGRAM), tried(1, PACKAGE), tried(3, PACKAGE))
    )

    assert headline.endswith(f"{SAID} (3 calls wait like this, the next try is at 14:02:42 UTC).")


@pytest.mark.parametrize(
    "pair",
    [
        tried(1, FENCED),
        tried(1, PACKAGE, state="intended", due_at=None),
        tried(1, PACKAGE, state="succeeded", due_at=None),
        (tried(1, PACKAGE)[0], tried(1, PACKAGE)[1] | {"id": workflow()["id"]}),
        (tried(1, PACKAGE)[0], tried(1, PACKAGE)[1] | {"outcome": "succeeded", "failure": None}),
    ],
    ids=["a worker that was unsure", "being tried", "done", "an earlier attempt", "answered"],
)
def test_headline_says_nothing_when_it_is_not_so(pair: tuple[Row, Row]) -> None:
    assert found(pair) is None
    assert workflow_headline(RUNNING, steps=[], calls=[], missing=found(pair)) == "Running; 1 of 5 steps done."


def test_trace_says_it_of_the_workflow_and_its_step() -> None:
    asked, last = tried(1, PACKAGE)
    row = step("send.1", 0, began=0, ended=None, parent=None, item_index=None)

    trace = build_trace(RUNNING, [row], [asked], [last], now=at(9))

    assert SAID in trace.root.headline
    assert SAID in trace.root.children[0].headline


def test_why_says_what_to_do_about_it() -> None:
    asked, last = tried(1, PACKAGE)

    [reason] = why_stories.reasons(
        RUNNING, asked, dues=(why_stories.due("call", asked["id"], 90),), attempts=[why_stories.tried(asked) | last]
    )

    assert reason.headline == f"{SAID}. It is tried again at 14:03:41 UTC, on whichever worker is free."
