"""`compensate`, on a tool or on a step: the call that undoes an effect.

Promises: what cannot be undone (a read) and what undoes nothing (a read) are faults; a compensation that may end in
doubt itself is a warning. What it passes is judged against the input_schema of the tool it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.definition import agents, arguments, seen, tool_words
from app.domain.definition.findings import Findings, shown
from app.domain.definition.seen import Reference
from app.domain.outcomes import JSON
from app.domain.states import EffectClass


def check_compensation(
    value: JSON,
    pointer: str,
    *,
    effect: str | None,
    schema: Mapping[str, JSON] | None,
    key_argument: str | None,
    findings: Findings,
) -> tuple[dict[str, Any] | None, list[Reference]]:
    """By itself: its plan form (None if there is none or it cannot be used) and what it reads.

    `effect`, `schema` and `key_argument` are those of the tool that is undone; None: not known.
    """
    if value is None:
        return None, []
    if effect == EffectClass.READ_ONLY.value:
        detail = "The tool is read_only: there is nothing to undo."
        findings.fault("misplaced_key", pointer, detail, "Remove it, or declare the tool's effect.")
    undo = findings.keys(value, tool_words.COMPENSATE, pointer)
    name = findings.text(undo, "tool", pointer)
    if isinstance(value, dict) and undo.get("tool") is None:
        fix = 'Write compensate: {tool: calendar.delete_event, with: {event_id: "${{ output.event_id }}"}}'
        findings.fault("missing_key", pointer, "A compensation names the tool that undoes.", fix)
    given, where = undo.get("with"), f"{pointer}/with"
    references: list[Reference] = []
    if given is not None:
        arguments.check_arguments(given, None, key_argument=None, pointer=where, findings=findings)
        references = seen.in_template(given, seen.UNDO_SEES, where, findings)
    for reference in references:
        if key_argument is not None and reference.path[:2] == ("arguments", key_argument):
            detail = f"`arguments.{key_argument}` is filled in when the request is sent; it is not among the arguments."
            findings.fault("unknown_field", reference.pointer, detail, "Read what the tool answered: output.")
        else:
            seen.check_fields(reference, {"arguments": schema}, findings)
    if name is None or not (given is None or isinstance(given, dict | str)):
        return None, references
    return {"tool": name, "with": {} if given is None else given}, references


def check_undoing(
    undo: Mapping[str, Any], pointer: str, tools: Mapping[str, dict[str, Any]], findings: Findings
) -> None:
    """Against the tool that it names. `undo` is the plan form, `tools` every usable tool."""
    name, where = undo["tool"], f"{pointer}/tool"
    tool = tools.get(name)
    if tool is None:
        agents.unknown_tool(name, where, tools, findings)
        return
    if tool["effect"] == EffectClass.READ_ONLY.value:
        detail = f"`{shown(name)}` is read_only: it undoes nothing."
        findings.fault("read_only_tool", where, detail, "Name a tool that changes the world back.")
        return
    if tool["effect"] == EffectClass.AT_MOST_ONCE.value:
        findings.warn(
            "undo_at_most_once",
            where,
            f"`{shown(name)}` is at_most_once: if its outcome is unknown a person must settle it.",
            "Declare it idempotent, keyed or checkable, if it is.",
        )
    arguments.check_arguments(
        undo["with"],
        tool["input_schema"],
        key_argument=tool["key_argument"],
        key_fix="Remove it: the key of a compensation is made for it.",
        pointer=f"{pointer}/with" if undo["with"] else pointer,
        findings=findings,
    )
