"""Durations and money as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain.amounts import counted, dollars, price, took, usd


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (5.75, "5.75 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (365, "6 m 05 s"),
        (7_500, "2 h 05 m"),
        (273_600, "3 d 04 h"),
        (-1.0, "0.00 s"),
    ],
)
def test_took_names_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert took(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("micro", "sentence", "exact"),
    [
        (0, "$0.00", "0.0000"),
        (42_000, "$0.042", "0.0420"),
        (12_100, "$0.0121", "0.0121"),
        (500_000, "$0.50", "0.5000"),
        (12_345_678, "$12.35", "12.345678"),
        (49, "under $0.0001", "0.000049"),
    ],
)
def test_money_is_exact_in_json_and_short_in_a_sentence(micro: int, sentence: str, exact: str) -> None:
    assert dollars(micro) == sentence
    assert usd(micro) == exact


def test_an_unknown_price_stays_unknown_when_shown_as_usd() -> None:
    assert usd(None) is None


def test_price_shows_more_digits_when_four_would_show_nothing() -> None:
    assert [price(12_100), price(45), price(0)] == ["0.0121", "0.000045", "0.0000"]


def test_counted_uses_the_plural_when_there_is_not_exactly_one() -> None:
    assert [counted(1, "step"), counted(0, "step"), counted(1930, "try", plural="tries")] == [
        "1 step",
        "0 steps",
        "1,930 tries",
    ]
