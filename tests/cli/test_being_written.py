"""What the command line shows of an answer while a model writes it."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli import looking

CALL: dict[str, Any] = {
    "id": "call_1", "n": 1, "kind": "model", "tool": None, "effect": "read_only", "state": "intended", "key": None,
    "recovery": [], "attempt_list": [],
}  # fmt: skip
STEP: dict[str, Any] = {
    "path": "write", "headline": "", "kind": "agent", "state": "running", "needs": [], "started_at": None,
    "ended_at": None, "input": None, "output": None, "failure": None, "call_list": [CALL],
}  # fmt: skip


def test_step_shows_what_is_written_so_far_under_its_call(capsys: pytest.CaptureFixture[str]) -> None:
    partial = {
        "call": "call_1",
        "attempt": 1,
        "characters": 1240,
        "thought": 0,
        "text": "Dear Ana,\nhello",
        "tools": [],
    }

    looking._show_step("wf_1", STEP | {"partial": partial})

    shown = capsys.readouterr().out
    assert "◌ writing… 1,240 characters" in shown
    assert shown.index("Dear Ana,") < shown.index("hello") < shown.index("surefoot show wf_1 write --call 1")


def test_step_shows_nothing_more_when_nothing_is_being_written(capsys: pytest.CaptureFixture[str]) -> None:
    looking._show_step("wf_1", STEP | {"partial": None})

    assert "writing" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "status", "redrawn"),
    [("model", "open", True), ("model", "succeeded", False), ("mail.send", "open", False)],
)
def test_followed_picture_is_redrawn_between_events_while_a_model_call_is_open(
    name: str, status: str, redrawn: bool
) -> None:
    attempt = {"kind": "attempt", "name": name, "status": status, "children": []}
    call = {"kind": "call", "name": name, "status": "intended", "children": [attempt]}

    assert looking._being_written({"kind": "step", "name": "write", "status": "running", "children": [call]}) is redrawn
