"""What people see of an answer while it is written: in words, in a trace, and made fit for them."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import partials
from app.domain.partials import NAME_MOST, TEXT_MOST, TOOLS_MOST, Partial
from app.domain.spans import Trace
from app.domain.trace import build_trace
from app.domain.trace_text import render_text
from tests.domain.fabricated_rows import at, attempt, model_call, step, workflow


def partial(**changed: Any) -> Partial:
    return Partial(**({"characters": 1240, "thought": 0, "text": "Dear Ana", "tools": ()} | changed))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (partial(), "writing… 1,240 characters"),
        (partial(characters=0, thought=310), "thinking… 310 characters"),
        (partial(tools=("mail-send",)), "writing… 1,240 characters, asks for mail-send"),
        (partial(characters=0, tools=("a", "b")), "asking for tools…, asks for a, b"),
    ],
)
def test_line_says_what_the_model_is_doing(told: Partial, said: str) -> None:
    assert partials.line(told) == said


@pytest.mark.parametrize(
    "value", [None, [], "text", {}, {"characters": "many", "thought": 0}, {"characters": 1, "thought": None}]
)
def test_reader_takes_nothing_that_is_no_partial_answer(value: Any) -> None:
    assert partials.read(value) is None


def test_reader_bounds_and_cleans_what_somebody_has_told() -> None:
    told = {"characters": 9, "thought": 1, "text": "\x1b[2J\x00" + "x" * 9000, "tools": ["t" * 500, 7] * 50}

    found = partials.read(told)

    assert found is not None
    assert found.text.startswith("\ufffd[2J\ufffd")
    assert len(found.text) == TEXT_MOST
    assert len(found.tools) == TOOLS_MOST
    assert {len(name) for name in found.tools} == {NAME_MOST}


def test_partial_answer_is_the_same_on_both_sides_of_the_wire() -> None:
    told = partial(tools=("mail-send",), thought=7)

    assert partials.read(told.to_json()) == told


def test_trace_says_what_is_being_written_under_its_step() -> None:
    call = model_call(1, "write", state="intended")
    trying = attempt(1, call, began=0.1, ended=None)

    trace = build_trace(
        workflow(status="running", ended_at=None),
        [step("write", 0, began=0.1, ended=None, kind="agent")],
        [call],
        [trying],
        now=at(4),
        partials={trying["id"]: partial()},
    )

    text = render_text(Trace.from_json(trace.to_json()), width=100)
    assert "◌ writing… 1,240 characters" in text
    assert "Dear Ana" not in text
