"""Text from outside cannot act on a terminal."""

from __future__ import annotations

import pytest

from app.domain.plain import cells, clipped, plain


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("over\rwritten", "over\\x0dwritten"),
        ("two\nlines\r\nand\tmore", "two lines and more"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("half\ud800", "half\\ud800"),
        ("line\u2028separator", "line\\u2028separator"),
        ("\U000e0041tag", "\\U000e0041tag"),
        ("Zoë 山 ok", "Zoë 山 ok"),
        ("", ""),
    ],
)
def test_plain_shows_what_would_act_as_a_visible_escape(hostile: str, shown: str) -> None:
    assert plain(hostile) == shown


def test_clipped_marks_the_cut_when_the_text_is_too_long() -> None:
    assert clipped("a" * 11, 10) == "a" * 9 + "…"
    assert clipped("a" * 10, 10) == "a" * 10


def test_cells_counts_two_columns_when_a_character_is_wide() -> None:
    assert cells("a山") == 3
    assert cells("e\u0301") == 1
