"""Canonical JSON and digests: equal things are found equal, order matters only where order is meaning."""

from __future__ import annotations

from app.domain import canonical


def test_canonical_json_is_the_same_for_any_key_order_and_spacing() -> None:
    one = {"b": [1, {"y": None, "x": "é"}], "a": True}
    other = {"a": True, "b": [1, {"x": "é", "y": None}]}

    written = canonical.canonical_json(one)

    assert written == '{"a":true,"b":[1,{"x":"é","y":null}]}'.encode()
    assert written == canonical.canonical_json(other)


def test_canonical_json_keeps_numbers_by_their_literal_when_they_are_numerically_equal() -> None:
    assert canonical.canonical_json([1, 1.0, 10**30]) == b"[1,1.0,1000000000000000000000000000000]"


def test_canonical_json_encodes_a_lone_surrogate_without_raising() -> None:
    assert canonical.canonical_json("\ud800") == b'"\xed\xa0\x80"'
    assert canonical.digest("\ud800") != canonical.digest("\ud801")


def test_document_digest_differs_when_the_order_of_steps_differs() -> None:
    one = {"steps": {"a": {}, "b": {}}}
    other = {"steps": {"b": {}, "a": {}}}

    assert canonical.digest(one) == canonical.digest(other)
    assert canonical.document_digest(one) != canonical.document_digest(other)
    assert canonical.document_digest(one).startswith("sha256:")
