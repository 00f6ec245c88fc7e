"""JSON Schema as definitions use it: the short form, what a schema may ask of us, and checking a value against one.

The short form maps property → JSON Schema: every property is required unless it has a `default`, no others are
allowed. A string `type` at the top (or another keyword that no property map would carry) means a full JSON Schema.

Promises: nothing is ever fetched (every `$ref` must stay inside its document), no pattern backtracks (the `regex`
crate is linear; look-around is refused), no schema may cost exponential time, checking a value never raises.
Never: coerces a value; `with_defaults` only fills in what is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

import jsonschema_rs

from app.domain.canonical import canonical_json
from app.domain.faults import Fault
from app.domain.outcomes import JSON

SCHEMA_DEPTH: Final = 48
"""Deepest nesting of a schema: a value may have 64 levels, a schema that describes more than half is generated."""
SCHEMA_NODES: Final = 10_000
"""Most keywords and subschemas of one schema: compiling one takes milliseconds up to here."""
IN_PLACE_PATHS: Final = 2_000
"""Most ways one value can be visited through allOf, anyOf, $ref …: two references in a row, thirty times, would
be a billion (measured: 18 times take 6 ms, each further one doubles)."""
MESSAGE_LENGTH: Final = 300
"""A message repeats the offending value; the value may be a megabyte."""
ERRORS_SHOWN: Final = 50
"""A list of 100,000 wrong items needs no 100,000 sentences."""

_FULL_FORM_MARKS: Final = frozenset({"$schema", "$ref", "$defs", "allOf", "anyOf", "oneOf"})
"""Keywords that mark a full schema besides a string `type`: none of them is a sensible property name."""
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE_SINGLE: Final = ("not", "if", "then", "else")
_VALUES_NOT_SCHEMAS: Final = frozenset({"const", "enum", "default", "examples", "required", "type"})


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaError:
    """One way in which a value breaks its schema. `pointer` is an RFC 6901 JSON Pointer into the value."""

    pointer: str
    message: str
    keyword: str = ""
    """The JSON Schema keyword that was broken: `required`, `type`, …"""


def is_full(schema: JSON) -> bool:
    """True for one full JSON Schema, False for the short form (a map from property to schema)."""
    if not isinstance(schema, Mapping):
        return True
    return isinstance(schema.get("type"), str) or not _FULL_FORM_MARKS.isdisjoint(schema)


def expand(short_or_full: JSON) -> dict[str, JSON]:
    """The full JSON Schema of either form. Trusts that `check_schema` found no fault."""
    if is_full(short_or_full):
        return dict(short_or_full)
    return {
        "type": "object",
        "properties": dict(short_or_full),
        "required": [
            name for name, schema in short_or_full.items() if not (isinstance(schema, Mapping) and "default" in schema)
        ],
        "additionalProperties": False,
    }


def check_schema(short_or_full: JSON) -> list[Fault]:
    """Everything wrong with a schema of either form; pointers are relative to what was written."""
    if not isinstance(short_or_full, Mapping):
        return [_fault("", "A schema is a map.", "Write property: {type: …} for each property, or one JSON Schema.")]
    faults = list(_walk_faults(short_or_full))
    if faults:
        return faults
    if is_full(short_or_full):
        return _compile_faults(dict(short_or_full), "")
    for name, schema in short_or_full.items():
        if not isinstance(schema, Mapping | bool):
            fix = f"Write `{name}: {{type: string}}`, or another JSON Schema."
            faults.append(_fault(f"/{escape(name)}", f"`{name}` is not a JSON Schema.", fix))
        elif isinstance(schema, Mapping) and not _refers_to_root(schema):
            faults.extend(_compile_faults(dict(schema), f"/{escape(name)}"))
    return faults or _compile_faults(expand(short_or_full), "")


def validate(schema: Mapping[str, JSON], value: JSON) -> list[SchemaError]:
    """How `value` breaks the full JSON Schema `schema`; empty if it fits. `format` is asserted. Never raises."""
    try:
        validator = _validator(canonical_json(schema))
    except ValueError as error:
        return [SchemaError(pointer="", message=f"The schema itself cannot be used: {_short(str(error))}")]
    errors: list[SchemaError] = []
    try:
        for found in validator.iter_errors(value):
            pointer = "".join(f"/{escape(str(part))}" for part in found.instance_path)
            errors.append(SchemaError(pointer=pointer, message=_short(found.message), keyword=found.kind.name))
            if len(errors) == ERRORS_SHOWN:
                break
    except (ValueError, TypeError, OverflowError) as error:
        # A lone surrogate or a nesting beyond the library's: the value is not JSON text, so it fits nothing.
        errors.append(SchemaError(pointer="", message=f"The value cannot be checked: {_short(str(error))}"))
    return errors


def with_defaults(schema: Mapping[str, JSON], value: JSON) -> JSON:
    """`value` with the `default` of every absent property, nested `properties` included; a new value."""
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    filled = dict(value)
    for name, inner in properties.items():
        if not isinstance(inner, Mapping):
            continue
        if name in filled:
            filled[name] = with_defaults(inner, filled[name])
        elif "default" in inner:
            filled[name] = inner["default"]
    return filled


def escape(part: str) -> str:
    """One segment of a JSON Pointer (RFC 6901 §3)."""
    return part.replace("~", "~0").replace("/", "~1")


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside this document; nothing is fetched")


@lru_cache(maxsize=512)
def _validator(canonical: bytes) -> Any:
    """Compiled once for each text. The retriever refuses everything: a fetched `$ref` would be SSRF."""
    # `validator_for` reads text as JSON: what was hashed is exactly what is compiled.
    text = canonical.decode("utf-8")
    return jsonschema_rs.validator_for(
        text,
        validate_formats=True,
        retriever=_refuse,
        pattern_options=jsonschema_rs.RegexOptions(),
    )


def _compile_faults(schema: dict[str, JSON], prefix: str) -> list[Fault]:
    try:
        _validator(canonical_json(schema))
    except jsonschema_rs.ValidationError as error:
        pointer = prefix + "".join(f"/{escape(str(part))}" for part in error.instance_path)
        return [_fault(pointer, _short(error.message), "Write valid JSON Schema (draft 2020-12).")]
    except ValueError as error:
        return [_fault(prefix, _short(str(error)), "Write valid JSON Schema (draft 2020-12).")]
    return _cost_faults(schema, prefix)


def _walk_faults(schema: Mapping[str, JSON]) -> Iterator[Fault]:
    """References that leave the document, and sizes. Iterative: the depth is what is being judged."""
    pending: list[tuple[JSON, str, int]] = [(schema, "", 1)]
    nodes = 0
    while pending:
        value, pointer, depth = pending.pop()
        nodes += 1
        if depth > SCHEMA_DEPTH or nodes > SCHEMA_NODES:
            limit = f"{SCHEMA_DEPTH} levels" if depth > SCHEMA_DEPTH else f"{SCHEMA_NODES} keywords"
            yield _fault(pointer, f"The schema is larger than {limit}.", "Describe less, or leave the inside open.")
            return
        if isinstance(value, Mapping):
            for key, inner in value.items():
                where = f"{pointer}/{escape(key)}"
                if key in _REFERENCES and isinstance(inner, str) and not inner.startswith("#"):
                    yield Fault(
                        code="remote_ref",
                        pointer=where,
                        detail=f"`{key}: {_short(inner)}` points outside this document; nothing is fetched.",
                        fix='Copy the schema under `$defs` and refer to it as "#/$defs/name".',
                    )
                elif key not in _VALUES_NOT_SCHEMAS:
                    pending.append((inner, where, depth + 1))
        elif isinstance(value, list):
            pending.extend((inner, f"{pointer}/{index}", depth + 1) for index, inner in enumerate(value))


def _cost_faults(schema: dict[str, JSON], prefix: str) -> list[Fault]:
    """In-place applicators multiply along references: bound the number of ways one value can be visited."""
    if _in_place_paths(schema, schema, open_refs=frozenset(), known={}) <= IN_PLACE_PATHS:
        return []
    detail = "Checking one value against this schema would visit it too often: allOf, anyOf and $ref multiply."
    return [_fault(prefix, detail, "Refer to each schema once, or write it out where it is used.")]


def _in_place_paths(schema: JSON, root: JSON, *, open_refs: frozenset[str], known: dict[int, int]) -> int:
    """An upper bound of visits to one value, capped just above the limit."""
    worst = IN_PLACE_PATHS + 1
    if not isinstance(schema, Mapping):
        return 1
    if id(schema) in known:
        return known[id(schema)]
    total = 1
    inner = [schema[key] for key in _IN_PLACE_SINGLE if key in schema]
    for key in _IN_PLACE_LISTS:
        inner.extend(schema[key] if isinstance(schema.get(key), list) else ())
    dependent = schema.get("dependentSchemas")
    inner.extend(dependent.values() if isinstance(dependent, Mapping) else ())
    for part in inner:
        total = min(worst, total + _in_place_paths(part, root, open_refs=open_refs, known=known))
    for key in _REFERENCES:
        reference = schema.get(key)
        if isinstance(reference, str) and reference not in open_refs and len(open_refs) < SCHEMA_DEPTH:
            target = _resolve(root, reference)
            total = min(worst, total + _in_place_paths(target, root, open_refs=open_refs | {reference}, known=known))
    known[id(schema)] = total
    return total


def _resolve(root: JSON, reference: str) -> JSON:
    target = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or name not in target:
            return None
        target = target[name]
    return target


def _refers_to_root(schema: Mapping[str, JSON]) -> bool:
    """A property whose `$ref` starts at the top can only be judged inside the expanded whole."""
    pending: list[JSON] = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            if any(isinstance(value.get(key), str) for key in _REFERENCES):
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False


def _fault(pointer: str, detail: str, fix: str) -> Fault:
    return Fault(code="invalid_schema", pointer=pointer, detail=detail, fix=fix)


def _short(text: str) -> str:
    return text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 60]} … {text[-55:]}"
