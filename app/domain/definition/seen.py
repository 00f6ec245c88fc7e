"""What expressions see: compiling every `${{ }}` of a value, and judging the fields it reads where they are known.

Promises: each expression that does not compile is one fault at its own place; a field is accused only where its owner
is closed (a short schema, a `set`, an approval), never where it might exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.domain.definition import vocabulary
from app.domain.definition.findings import Findings, shown
from app.domain.expressions import Expression, ExpressionError, compile_expression
from app.domain.outcomes import JSON
from app.domain.references import Path, written
from app.domain.templates import is_dynamic, template_errors

WORKFLOW_SEES: Final = frozenset({"input", "workflow", "steps"})
ITEM_SEES: Final = WORKFLOW_SEES | {"item", "item_index"}
UNDO_SEES: Final = frozenset({"arguments", "input", "output"})
"""A compensation: of the call it undoes, and the workflow's input."""
PROBE_SEES: Final = frozenset({"arguments", "input", "key"})
"""What a probe asks: of the call it is about. Its `found` and `result` see what the probe's tool answered as well."""
FOUND_SEES: Final = PROBE_SEES | {"output"}

STEP_FIELDS: Final = ("output", "state", "error", "failures")

_OPEN_KEYWORDS: Final = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties")
_SCALARS: Final = {
    "string": "text",
    "integer": "a number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}

CLOSED: Final = {"type": "object", "additionalProperties": False}

WORKFLOW_SCHEMA: Final[Mapping[str, JSON]] = {
    **CLOSED,
    "properties": {name: {} for name in ("id", "name", "started_at")},
}
APPROVAL_OUTPUT: Final[Mapping[str, JSON]] = {
    **CLOSED,
    "properties": {name: {} for name in ("decision", "values", "comment", "by", "at")},
}
"""What a person's decision gives the steps after it."""
TEXT_OUTPUT: Final[Mapping[str, JSON]] = {"type": "string"}
"""The output of an agent without output_schema."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One path that an expression reads, and where the expression stands."""

    pointer: str
    path: Path


def in_template(value: JSON, names: frozenset[str], pointer: str, findings: Findings) -> list[Reference]:
    """Compiles everything in a JSON value; mistakes are faults, what is read comes back."""
    places, errors = template_errors(value, names=names)
    for error in errors:
        _accuse(error, f"{pointer}{error.pointer}", names, findings)
    return [
        Reference(pointer=f"{pointer}{place.pointer}", path=leaf.path)
        for place in places
        for leaf in place.expression.paths
    ]


def in_condition(value: JSON, pointer: str, findings: Findings) -> tuple[str | None, list[Reference]]:
    """`if`: bare CEL, or a plain true or false."""
    if isinstance(value, bool):
        return ("true" if value else "false"), []
    if not isinstance(value, str):
        findings.wrong_type(pointer, "`if` is an expression", value, "Write if: steps.plan.output.found")
        return None, []
    references = in_expression(value, WORKFLOW_SEES, pointer, findings)
    return (None, []) if references is None else (value, references)


def in_expression(value: str, names: frozenset[str], pointer: str, findings: Findings) -> list[Reference] | None:
    """Bare CEL: what it reads, or None if it does not compile."""
    try:
        expression: Expression = compile_expression(value, names=names)
    except ExpressionError as error:
        _accuse(error, pointer, names, findings)
        return None
    return [Reference(pointer=pointer, path=leaf.path) for leaf in expression.paths]


def _accuse(error: ExpressionError, pointer: str, names: frozenset[str], findings: Findings) -> None:
    place = "" if error.column is None else f" (column {error.column})"
    message, fix = error.message, error.fix
    # The general advice (add for_each) would be wrong where no step is seen at all.
    if "steps" not in names and message.startswith(("`item`", "`item_index`")):
        message = f"{message.split(' is ')[0]} is not known here."
        fix = f"Known are {', '.join(sorted(names))}; what an item gave the call is in arguments."
    findings.fault(error.code, pointer, f"{message}{place}", fix)


def check_fields(reference: Reference, schemas: Mapping[str, Mapping[str, JSON] | None], findings: Findings) -> None:
    """Accuses a field that cannot be there. `schemas`: what is known of each root, by name."""
    root = reference.path[0]
    schema = schemas.get(root) if isinstance(root, str) else None
    if schema is not None:
        follow(reference, 1, schema, findings)


def follow(reference: Reference, index: int, schema: Any, findings: Findings) -> None:
    """Walks `reference.path[index:]` through a JSON Schema as far as it says anything."""
    path = reference.path
    while index < len(path):
        if not isinstance(schema, Mapping) or any(keyword in schema for keyword in _OPEN_KEYWORDS):
            return
        part, kind = path[index], schema.get("type")
        before = written(path[:index])
        if isinstance(part, int):
            if kind != "array":
                return
            schema = schema.get("items")
        elif kind == "array" or kind in _SCALARS:
            what = "a list" if kind == "array" else _SCALARS[kind]
            fix = f"Write {before}[0] or a macro, as {before}.map(x, x.{part})" if kind == "array" else f"Use {before}."
            if schema is TEXT_OUTPUT:
                fix = "Give the agent's step an output_schema; without one its output is text."
            detail = f"`{before}` is {what}; it has no field `{shown(part)}`."
            findings.fault("unknown_output_field", reference.pointer, detail, fix)
            return
        else:
            properties = schema.get("properties")
            if isinstance(properties, Mapping) and part in properties:
                schema = properties[part]
            elif schema.get("additionalProperties") is False:
                _unknown_field(reference, index, list(properties or ()), findings)
                return
            else:
                return
        index += 1


def _unknown_field(reference: Reference, index: int, known: list[str], findings: Findings) -> None:
    part = str(reference.path[index])
    before = written(reference.path[:index])
    like = vocabulary.nearest(part, known)
    hint = f" Did you mean `{like}`?" if like else ""
    has = ", ".join(known[:12]) or "none"
    code = "unknown_output_field" if reference.path[0] == "steps" else "unknown_field"
    findings.fault(code, reference.pointer, f"`{before}` has no field `{shown(part)}`.{hint}", f"Its fields: {has}.")


def schema_of_literal(value: JSON) -> dict[str, JSON]:
    """What is known of a `set` step's output: its keys, and theirs."""
    if isinstance(value, dict):
        return {**CLOSED, "properties": {key: schema_of_literal(inner) for key, inner in value.items()}}
    if isinstance(value, list):
        return {"type": "array"}
    if is_dynamic(value):
        return {}
    if value is None:
        return {"type": "null"}
    if isinstance(value, bool):
        return {"type": "boolean"}
    return {"type": "string"} if isinstance(value, str) else {"type": "number"}
