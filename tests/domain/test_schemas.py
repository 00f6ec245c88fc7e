"""Schemas: the short form, what a schema may ask of us, and values that break one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.domain import schemas

SHORT = {"title": {"type": "string"}, "minutes": {"type": "integer", "default": 30}}


def test_expand_makes_every_property_required_unless_it_has_a_default() -> None:
    full = schemas.expand(SHORT)

    assert full["required"] == ["title"]
    assert full["additionalProperties"] is False
    assert list(full["properties"]) == ["title", "minutes"]


def test_expand_leaves_a_full_schema_as_it_is_when_its_type_is_text() -> None:
    full = {"type": "array", "items": {"type": "string"}}

    assert schemas.expand(full) == full
    assert schemas.expand({"type": {"type": "string"}})["required"] == ["type"]


def test_validate_names_every_error_with_its_pointer() -> None:
    errors = schemas.validate(
        schemas.expand({"a": {"type": "array", "items": {"type": "integer"}}}), {"a": [1, "x"], "b": 1}
    )

    assert {(error.pointer, error.keyword) for error in errors} == {("/a/1", "type"), ("", "additionalProperties")}


@pytest.mark.parametrize(
    ("form", "good", "bad"), [("email", "ana@x.io", "ana"), ("date-time", "2026-11-22T10:00:00Z", "Tuesday")]
)
def test_validate_asserts_formats_when_the_schema_names_one(form: str, good: str, bad: str) -> None:
    schema = {"type": "string", "format": form}

    assert schemas.validate(schema, good) == []
    assert [error.keyword for error in schemas.validate(schema, bad)] == ["format"]


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, 10**400, float("nan"), "a\x00b"])
def test_validate_never_raises_when_the_value_is_not_json(value: Any) -> None:
    errors = schemas.validate({"type": "integer"}, value)

    assert [error.pointer for error in errors] == ([] if isinstance(value, int) else [""])


def test_validate_shortens_its_message_when_the_value_is_large() -> None:
    (error,) = schemas.validate({"type": "integer"}, "x" * 1_000_000)

    assert len(error.message) < 400


@pytest.mark.parametrize(
    "reference", ["http://169.254.169.254/x", "https://x.io/s.json", "file:///etc/passwd", "other.json"]
)
def test_check_schema_refuses_a_reference_that_leaves_the_document(reference: str) -> None:
    faults = schemas.check_schema({"type": "object", "properties": {"a": {"items": [{"$ref": reference}]}}})

    assert [(fault.code, fault.pointer) for fault in faults] == [("remote_ref", "/properties/a/items/0/$ref")]


def test_check_schema_allows_a_reference_inside_the_document() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}

    assert schemas.check_schema(schema) == []
    assert len(schemas.validate(schema, {"a": 1})) == 1


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"a": {"type": "strin"}}, "/a/type"),
        ({"a": "string"}, "/a"),
        ({"type": "string", "pattern": "(?=a)b"}, "/pattern"),
        ({"type": "object", "required": "a"}, "/required"),
        ([], ""),
        ("string", ""),
    ],
)
def test_check_schema_points_at_what_is_not_a_schema(schema: Any, pointer: str) -> None:
    faults = schemas.check_schema(schema)

    assert [fault.pointer for fault in faults] == [pointer]


def test_check_schema_refuses_references_that_multiply() -> None:
    definitions: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    definitions["d40"] = {"type": "integer"}
    began = time.process_time()

    faults = schemas.check_schema({"$ref": "#/$defs/d0", "$defs": definitions})

    assert [fault.code for fault in faults] == ["invalid_schema"]
    assert time.process_time() - began < 2


def test_check_schema_refuses_nesting_without_an_end() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(5000):
        schema = {"type": "object", "properties": {"a": schema}}

    assert len(schemas.check_schema(schema)) == 1


def test_with_defaults_fills_in_what_is_absent_and_leaves_the_argument_alone() -> None:
    schema = schemas.expand({**SHORT, "inner": {"type": "object", "properties": {"x": {"default": [1]}}}})
    value = {"title": "a", "inner": {}}

    filled = schemas.with_defaults(schema, value)

    assert filled == {"title": "a", "inner": {"x": [1]}, "minutes": 30}
    assert value == {"title": "a", "inner": {}}


def test_with_defaults_keeps_a_null_that_was_given() -> None:
    assert schemas.with_defaults(schemas.expand(SHORT), {"minutes": None}) == {"minutes": None}
