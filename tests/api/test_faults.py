"""How a value that does not fit is told: by a name a person recognises, and the value once."""

from __future__ import annotations

from typing import Any

import pytest

from app.api.faults import faults_of


def error(loc: tuple[str | int, ...], msg: str, value: Any) -> dict[str, Any]:
    return {"type": "value_error", "loc": loc, "msg": f"Value error, {msg}", "input": value}


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        (error(("webhook", "events", 0), "an event is known", "x"), "/webhook/events/0",
         "events.0: an event is known, not 'x'."),
        (error(("deadline",), "'soon' is not a duration", "soon"), "/deadline", "deadline: 'soon' is not a duration."),
        (error(("labels", "a"), "text", 1), "/labels/a", "a: text, not 1."),
        (error(("query", "limit"), "a number", "x"), "?limit", "limit: a number, not 'x'."),
    ],
)  # fmt: skip
def test_fault_names_its_place_and_the_value_once_when_a_value_does_not_fit(
    given: dict[str, Any], pointer: str, detail: str
) -> None:
    (fault,) = faults_of([given])

    assert (fault.pointer, fault.detail) == (pointer, detail)
