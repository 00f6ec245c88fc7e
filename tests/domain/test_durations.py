"""Durations: one number, one unit, nothing implied."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("10s", 10),
        ("1.5h", 5400),
        ("5m", 300),
        ("7d", 604_800),
        ("0.001s", 0.001),
        ("3650d", 3650 * 86400),
    ],
)
def test_parse_duration_reads_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert durations.parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", 5, True, None, "5 m", "-1s", "1h30m", "0s", "3651d", "٣s", "1e9d", "s", ["1s"]]
)
def test_parse_duration_refuses_what_is_not_a_number_with_a_unit(text: object) -> None:
    with pytest.raises(durations.DurationError):
        durations.parse_duration(text)


@pytest.mark.parametrize("text", ["250ms", "90s", "2m", "36h", "7d"])
def test_format_duration_writes_what_parse_duration_reads(text: str) -> None:
    assert durations.format_duration(durations.parse_duration(text)) == text
