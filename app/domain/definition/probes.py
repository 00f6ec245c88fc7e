"""A tool's `probe`: the read_only call that tells whether another call took effect.

Promises: a probe that would answer the same whatever the world says, or read a key that nobody sends, is a fault; the
tool it names is judged where the other tools are known (`linking.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.domain.definition import arguments, seen, tool_words
from app.domain.definition.findings import Findings
from app.domain.definition.seen import Reference
from app.domain.outcomes import JSON
from app.domain.states import EffectClass

DEADLINE_MS: Final = 5 * 60 * 1000
"""Indexes of mail servers and search engines lag by seconds to minutes; then a person is the faster way to know."""

_KEY: Final[Mapping[str, JSON]] = {"type": "string"}
_PROBED: Final = frozenset({EffectClass.KEYED.value, EffectClass.CHECKABLE.value})
_FOUND: Final = "Write found: size(output.messages) > 0"


def check_probe(
    tool: Mapping[str, Any],
    *,
    effect: str | None,
    schema: Mapping[str, JSON] | None,
    key_argument: str | None,
    pointer: str,
    findings: Findings,
) -> dict[str, Any] | None:
    """The `probe` of the declaration `tool` (at `pointer`) by itself → the plan's form; None if there is none.

    `effect`: None if it is not known what was meant.
    """
    written, where = tool.get("probe"), f"{pointer}/probe"
    if written is None:
        if effect == EffectClass.CHECKABLE.value:
            fix = 'Add probe: {tool: email.search, with: {…}, found: "size(output.messages) > 0"}, or at_most_once.'
            findings.fault("missing_key", pointer, "A checkable tool says how it is checked: it needs a probe.", fix)
        return None
    if effect is not None and effect not in _PROBED:
        detail = f"`probe` belongs to checkable and keyed tools; this one is {effect}."
        fix = "Remove it." if effect == EffectClass.READ_ONLY.value else "Declare effect: checkable, or remove it."
        findings.fault("misplaced_key", where, detail, fix)
    probe = findings.keys(written, tool_words.PROBE, where)
    if isinstance(written, dict):
        _complete(probe, where, findings)
    asked = probe.get("with")
    if asked is not None:
        arguments.check_arguments(asked, None, key_argument=None, pointer=f"{where}/with", findings=findings)
    found, reads = _found(probe, where, findings)
    asks = _read(probe, "with", seen.PROBE_SEES, where, findings)
    for reference in (*asks, *reads, *_read(probe, "result", seen.FOUND_SEES, where, findings)):
        _fits(reference, effect, schema, key_argument, findings)
    if found is not None:
        _tells_apart([*asks, *reads], where, findings)
    return {
        "tool": findings.text(probe, "tool", where),
        "with": {} if asked is None else asked,
        "found": found,
        "result": probe.get("result"),
        "deadline_ms": findings.duration(probe, "deadline", where) or DEADLINE_MS,
    }


def _complete(probe: Mapping[str, Any], where: str, findings: Findings) -> None:
    if probe.get("tool") is None:
        fix = "Add tool: with the name of a read_only tool."
        findings.fault("missing_key", where, "A probe names the tool that is asked.", fix)
    if probe.get("found") is None:
        findings.fault("missing_key", where, "A probe says when the effect counts as found.", _FOUND)


def _tells_apart(references: list[Reference], where: str, findings: Findings) -> None:
    if not any(reference.path[0] in seen.PROBE_SEES for reference in references):
        findings.warn(
            "same_probe",
            where,
            "The probe asks the same for every call: another call's effect would be taken for this one's.",
            "Use arguments or key in `with` or in `found`.",
        )


def _found(probe: Mapping[str, Any], where: str, findings: Findings) -> tuple[str | None, list[Reference]]:
    value, pointer = probe.get("found"), f"{where}/found"
    if value is None:
        return None, []
    if not isinstance(value, str):
        findings.wrong_type(pointer, "`found` is an expression", value, _FOUND)
        return None, []
    reads = seen.in_expression(value, seen.FOUND_SEES, pointer, findings)
    if reads is None:
        return None, []
    if not any(reference.path[0] == "output" for reference in reads):
        detail = "`found` does not read `output`: it is decided before anything was asked."
        findings.fault("constant_probe", pointer, detail, _FOUND)
        return None, []
    return value, reads


def _read(probe: Mapping[str, Any], key: str, names: frozenset[str], where: str, findings: Findings) -> list[Reference]:
    return [] if probe.get(key) is None else seen.in_template(probe[key], names, f"{where}/{key}", findings)


def _fits(
    reference: Reference,
    effect: str | None,
    schema: Mapping[str, JSON] | None,
    key_argument: str | None,
    findings: Findings,
) -> None:
    if reference.path[0] == "key" and effect not in (None, EffectClass.KEYED.value):
        # A search for null finds what it likes, and that would be taken for the effect.
        detail = f"`key` is null here: the tool is {effect}, and only a keyed tool sends a key."
        findings.fault("key_not_used", reference.pointer, detail, "Use arguments that tell this call from others.")
    elif key_argument is not None and reference.path[:2] == ("arguments", key_argument):
        detail = f"`arguments.{key_argument}` is filled in when the request is sent; it is not among the arguments."
        findings.fault("unknown_field", reference.pointer, detail, "Write key.")
    else:
        seen.check_fields(reference, {"arguments": schema, "key": _KEY}, findings)
