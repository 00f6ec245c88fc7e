"""`with` against the tool's `input_schema`, as far as it is written out: expressions fit whatever is wanted.

Promises: an error is reported only if no value of the expressions could make it disappear.
"""

from __future__ import annotations

from typing import Any, Final

from app.domain.definition.findings import Findings
from app.domain.outcomes import JSON
from app.domain.schemas import escape, validate
from app.domain.templates import is_dynamic

_ABOUT_KEYS: Final = frozenset({"required", "additionalProperties", "minProperties", "maxProperties"})
"""Keywords that look at the names in a map, which are never expressions."""


_STEP_KEY: Final = "Remove it, and write idempotency_key: … on the step."


def check_arguments(
    value: JSON,
    schema: dict[str, Any] | None,
    *,
    key_argument: str | None,
    key_fix: str = _STEP_KEY,
    pointer: str,
    findings: Findings,
) -> None:
    """`value`: the `with` at `pointer`. `schema`: the tool's, None if it takes anything."""
    if is_dynamic(value):
        return
    if not isinstance(value, dict):
        fix = 'Write with: {name: "${{ … }}"}'
        findings.wrong_type(pointer, "`with` is a map of arguments", value, fix)
        return
    if key_argument is not None and key_argument in value:
        findings.fault(
            "misplaced_key",
            f"{pointer}/{escape(key_argument)}",
            f"`{key_argument}` carries the tool's key; it is filled in.",
            key_fix,
        )
    if schema is None:
        return
    dynamic = set(_dynamic(value, ""))
    around = {prefix for place in dynamic for prefix in _prefixes(place)}
    for error in validate(schema, value):
        if error.pointer in dynamic or (error.pointer in around and error.keyword not in _ABOUT_KEYS):
            continue
        if error.keyword == "required" and key_argument is not None and f'"{key_argument}"' in error.message:
            continue
        findings.fault(
            "invalid_argument",
            f"{pointer}{error.pointer}",
            f"The tool does not take this: {error.message}",
            "See the tool's input_schema.",
        )


def _dynamic(value: JSON, pointer: str) -> list[str]:
    if is_dynamic(value):
        return [pointer]
    if isinstance(value, dict):
        return [place for key, inner in value.items() for place in _dynamic(inner, f"{pointer}/{escape(key)}")]
    if isinstance(value, list):
        return [place for index, inner in enumerate(value) for place in _dynamic(inner, f"{pointer}/{index}")]
    return []


def _prefixes(pointer: str) -> list[str]:
    parts = pointer.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]
