"""Bytes from outside: what becomes a value, what becomes opaque, and that nothing ever raises or takes long."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.bodies import MAX_DEPTH, hygiene, opaque, parse_strict_json, read_body, storable_text

JSON_TYPE = "application/json"


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("body", "media_type", "value"),
    [
        (b'{"a":[1,2.5,null,true]}', JSON_TYPE, {"a": [1, 2.5, None, True]}),
        (b'{"a":1}', "application/problem+json; charset=utf-8", {"a": 1}),
        (b'{"a":1}', "Application/JSON", {"a": 1}),
        (b"\xef\xbb\xbf[1]", JSON_TYPE, [1]),
        (b'{"a":1,"a":2}', JSON_TYPE, {"a": 2}),
        (b"", JSON_TYPE, None),
        (b"", None, None),
        (b'{"a":1}', None, {"a": 1}),
        (b"hello", None, "hello"),
        (b'{"a":1}', "text/plain", '{"a":1}'),
        (b"<a/>", "application/xml", "<a/>"),
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1", "é"),
        (nested(MAX_DEPTH), JSON_TYPE, json.loads(nested(MAX_DEPTH))),
        (b"9" * 1000, JSON_TYPE, int("9" * 1000)),
        (b'"a\\\\u0000"', JSON_TYPE, "a\\u0000"),
        (b'"\\ud83d\\ude00"', JSON_TYPE, "\U0001f600"),
        (b'"NaN"', JSON_TYPE, "NaN"),
    ],
)
def test_reader_gives_the_value_when_the_reply_is_readable(body: bytes, media_type: str | None, value: Any) -> None:
    assert read_body(body, media_type, truncated=False) == value


UNREADABLE = {
    "nul": b'{"a":"\\u0000"}',
    "nul in a key": b'{"\\u0000":1}',
    "lone surrogate": b'["\\ud800"]',
    "lone low surrogate": b'["\\udfff"]',
    "nan": b"[NaN]",
    "infinity": b"-Infinity",
    "beyond a double": b"1e400",
    "beyond jsonb": b"1e131073",
    "1001 digits": b"1" * 1001,
    "4301 digits": b"1" * 4301,
    "a million digits": b"1" * 1_000_000,
    "65 levels": nested(MAX_DEPTH + 1),
    "20,000 levels": nested(20_000),
    "20,000 objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "20,000 brackets open": b"[" * 20_000,
    "invalid utf-8": b'"\xff\xfe"',
    "utf-16": '{"a":1}'.encode("utf-16"),
    "not json": b"{'a': 1}",
    "trailing garbage": b"{} {}",
    "raw control character": b'"\x01"',
    "html": b"<html>502 Bad Gateway</html>",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_reader_gives_an_opaque_value_when_the_reply_is_not_storable(name: str) -> None:
    body = UNREADABLE[name]

    value = read_body(body, JSON_TYPE, truncated=False)

    assert value["opaque"] is True
    assert value["reason"]
    assert value["bytes"] == len(body)
    assert value["sha256"] == hashlib.sha256(body).hexdigest()
    assert hygiene(value) == []


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"a\x00b", "text/plain"),
        (b"\xff", "text/plain"),
        (b"a", "text/plain; charset=klingon"),
        (b"a", "text/plain; charset=rot13"),
        (b"%PDF-1.7", "application/pdf"),
        (b"abc", "image/png"),
        (b"abc", "application/octet-stream"),
        (b"\xff\x00", None),
    ],
)
def test_reader_gives_an_opaque_value_when_the_reply_is_not_text(body: bytes, media_type: str | None) -> None:
    assert read_body(body, media_type, truncated=False)["opaque"] is True


def test_reader_gives_an_opaque_value_when_the_reply_was_cut() -> None:
    assert read_body(b"[1]", JSON_TYPE, truncated=True)["reason"] == "the answer was cut before its end"


@given(body=st.binary(max_size=200), media_type=st.none() | st.text(max_size=40), truncated=st.booleans())
def test_reader_never_raises_whatever_comes(body: bytes, media_type: str | None, truncated: bool) -> None:
    assert hygiene(read_body(body, media_type, truncated=truncated)) == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON_VALUES)
def test_reader_and_hygiene_agree_about_what_is_storable(value: Any) -> None:
    body = json.dumps(value).encode()

    read = read_body(body, JSON_TYPE, truncated=False)

    if hygiene(json.loads(body)):
        assert read["opaque"] is True
    else:
        assert read == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 3_300_000 + b"0]",
        b"9" * 10_000_000,
        b'"' + b'\\"' * 5_000_000,
        nested(5_000_000),
        b'{"a":' * 2_000_000,
    ],
    ids=["many lists", "digits", "unterminated quotes", "brackets", "objects"],
)
def test_reader_takes_linear_time_when_the_reply_is_10_megabytes(body: bytes) -> None:
    began = time.process_time()

    read_body(body, JSON_TYPE, truncated=False)

    assert time.process_time() - began < 10  # a quadratic reader takes minutes


# --- hygiene -------------------------------------------------------------------------------------------------------


def test_hygiene_names_every_place_with_its_pointer() -> None:
    value = {"a/b": ["x", "\x00"], "~": {"n": float("nan")}, "s": "\ud800", "big": 10**1000, "k\x00": 1}

    found = dict(hygiene(value))

    assert found == {
        "/a~1b/1": "a NUL character",
        "/~0/n": "a number that is not finite or too large",
        "/s": "a lone surrogate",
        "/big": "an integer of more than 1000 digits",
        "/k\ufffd": "the key holds a NUL character",
    }


def test_hygiene_finds_nothing_when_the_value_is_plain() -> None:
    assert hygiene({"a": [1, -1.5, "é", None, True, {"b": []}], "n": -(10**1000) + 1}) == []


def test_hygiene_names_the_place_that_is_too_deep() -> None:
    deep: Any = []
    for _ in range(MAX_DEPTH):
        deep = [deep]

    assert hygiene(deep) == [("/0" * MAX_DEPTH, "nested deeper than 64 levels")]


# --- requests ------------------------------------------------------------------------------------------------------


def test_strict_parser_gives_the_value_when_the_text_is_plain() -> None:
    assert parse_strict_json(b'{"a": [1, "x", 1.0, null]}').value == {"a": [1, "x", 1.0, None]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,}', "line 1, column"),
        (b"{\n'a': 1}", "line 2, column 1"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 100, "line 1, column 101"),
    ],
)
def test_strict_parser_names_the_position_when_the_text_is_no_json(body: bytes, words: str) -> None:
    parsed = parse_strict_json(body)

    assert parsed.malformed is not None
    assert words in parsed.malformed


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": {"b": 1, "b": 2}}', "/a/b"),
        (b'[{"x": 1}, {"x": 1, "x": 1}]', "/1/x"),
        (b'{"a": NaN}', "/a"),
        (b'{"a": [1, -Infinity]}', "/a/1"),
        (b'{"a": 1e999}', "/a"),
        (b'{"a": "\\u0000"}', "/a"),
        (b'{"a": "\\ud800"}', "/a"),
        (b'{"a": %s}' % (b"1" * 1001), "/a"),
        (b'{"a": %s}' % (b"1" * 5000), "/a"),
        (b'{"a": -%s}' % (b"1" * 200_000), "/a"),
        (nested(MAX_DEPTH + 1), "/0" * MAX_DEPTH),
        (nested(20_000), ""),
    ],
)
def test_strict_parser_points_at_the_place_when_a_value_is_not_allowed(body: bytes, pointer: str) -> None:
    parsed = parse_strict_json(body)

    assert parsed.malformed is None
    assert [fault.pointer for fault in parsed.faults] == [pointer]
    assert parsed.faults[0].fix


def test_strict_parser_reports_all_faults_at_once() -> None:
    parsed = parse_strict_json(b'{"a": NaN, "b": "\\u0000", "c": {"d": 1, "d": 2}}')

    assert {fault.pointer for fault in parsed.faults} == {"/a", "/b", "/c/d"}


@given(body=st.binary(max_size=100))
def test_strict_parser_never_raises_whatever_comes(body: bytes) -> None:
    parsed = parse_strict_json(body)

    assert parsed.malformed or parsed.faults or hygiene(parsed.value) == []


def test_excerpt_is_storable_whatever_it_was() -> None:
    text = storable_text("a\x00\x1b[31m\ud800é\u202e\n" + "z" * 600, limit=20)

    assert text == "a\ufffd\ufffd[31m\ufffdé\ufffd\n" + "z" * 9
    assert hygiene(text) == []


def test_opaque_value_survives_a_hostile_media_type() -> None:
    assert hygiene(opaque(b"x", "text/\x00\ud800" + "a" * 1000, reason="cut")) == []
