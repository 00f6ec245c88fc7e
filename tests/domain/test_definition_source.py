"""Definition text: YAML without its surprises, lines for every pointer, and no text that hurts."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.domain.definition.source import read_text


def test_text_reads_as_people_expect_it() -> None:
    text = "yes: on\nno: 1:30\nmode: 0755\nday: 2026-11-22\nn: 12\nf: -1.5e3\nt: true\nz: ~\n"
    text += "q: '5'\nhex: 0x1f\ninf: .inf\n1: x\n"

    source = read_text(text)

    assert source.faults == ()
    assert source.tree == {
        "yes": "on",
        "no": "1:30",
        "mode": "0755",
        "day": "2026-11-22",
        "n": 12,
        "f": -1500.0,
        "t": True,
        "z": None,
        "q": "5",
        "hex": "0x1f",
        "inf": ".inf",
        "1": "x",
    }


def test_text_gives_the_line_of_every_pointer() -> None:
    source = read_text("a:\n  - b: 1\n    c: [1, {d: 2}]\n\nx/y: |\n  long\n  text\nlast: 1\n")

    assert source.lines == {
        "": 1,
        "/a": 1,
        "/a/0": 2,
        "/a/0/b": 2,
        "/a/0/c": 3,
        "/a/0/c/0": 3,
        "/a/0/c/1": 3,
        "/a/0/c/1/d": 3,
        "/x~1y": 5,
        "/last": 8,
    }


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("a: 1\nb: 2\na: 3", "duplicate_key", 3),
        ("a:\n  with: { email: ${{ item }} }", "yaml_expression", 2),
        ("x: 1\na: ${{ input.x }}: y", "yaml_expression", 2),
        ("a: ${{ {'b': 1} }}", "yaml_expression", 1),
        ("a: {{ x }}", "yaml_expression", 1),
        ("a: 1\n\tb: 2", "yaml", 2),
        ("a: [1, 2", "yaml", 1),
        ("a: !!python/object:os.system x", "yaml", 1),
        ("a: !secret x", "yaml", 1),
        ("a: 1\n---\nb: 2", "yaml", 2),
        ("a: *nobody", "yaml", 1),
        ("a: &x [*x]", "yaml", 1),
        ("<<: {a: 1}", "yaml", 1),
        ("? [a]\n: 1", "yaml", 1),
        ("a: 1\nb: \x00", "not_json", 2),
        ('a: "\\0"', "not_json", 1),
        ("a: 1\nb: \ud800", "not_json", 2),
        ("a: " + "9" * 5000, "not_json", 1),
        ("a: 1e999", "not_json", 1),
        ("[" * 65 + "]" * 65, "too_deep", 1),
    ],
)
def test_text_is_refused_with_its_line_and_a_fix(text: str, code: str, line: int) -> None:
    source = read_text(text)

    assert [(fault.code, fault.line) for fault in source.faults] == [(code, line)]
    assert source.tree is None
    assert source.faults[0].fix


def test_text_says_quote_it_when_an_expression_is_unquoted_in_a_flow_map() -> None:
    (fault,) = read_text("with: { email: ${{ item }} }").faults

    assert fault.fix == 'Put the whole value in quotes: "${{ … }}"'


def test_text_shares_values_through_aliases() -> None:
    source = read_text("a: &x {b: [1]}\nc: *x\n")

    assert source.tree == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(10)),
        "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(100)),
        "[" * 200_000,
        "{a: " * 100_000,
        "- " * 200_000,
        "? " * 100_000,
        "&a " * 100_000,
        '"' + "\\u0000" * 100_000,
        "{" + ",".join(f"k{n}" for n in range(300_000)) + "}",
        "x" * 5_000_000,
    ],
)
def test_text_is_refused_quickly_when_it_is_hostile(text: str) -> None:
    began = time.process_time()

    source = read_text(text)

    assert len(source.faults) == 1
    assert time.process_time() - began < 10


JSONS = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(10**20), 10**20)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(alphabet=some.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(
            some.text(alphabet=some.characters(codec="ascii", min_codepoint=32), max_size=6), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSONS)
def test_text_reads_any_json_as_json(value: object) -> None:
    source = read_text(json.dumps({"v": value}))

    assert source.faults == ()
    assert source.tree == {"v": value}


@given(some.text(alphabet=some.sampled_from("ab:-{}[]&*!|>'\"#?,% \n\t$0\\~<"), max_size=80))
def test_text_never_raises_when_it_is_noise(text: str) -> None:
    source = read_text(text)

    assert source.faults == () or source.tree is None
