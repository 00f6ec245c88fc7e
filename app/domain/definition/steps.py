"""Steps: from the map or list that was written to one normalised form, with everything any kind may have.

Promises: document order is kept; a list means strictly one after the other, so each item needs the one before it;
the id, the pointer and the line of a step stay together through the whole check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.definition import budgeting, kinds, retrying, seen, vocabulary
from app.domain.definition.findings import Findings, shown
from app.domain.definition.kinds import Context
from app.domain.definition.seen import Reference
from app.domain.outcomes import JSON
from app.domain.schemas import escape
from app.domain.templates import is_dynamic

ID_LENGTH: Final = 64
MOST_PARALLEL: Final = 1000

_ID: Final = re.compile(r"[a-z][a-z0-9_]*")
_CEL_WORDS: Final = frozenset({"in", "true", "false", "null"})
"""Words that CEL cannot read after `steps.`"""


@dataclass(kw_only=True, slots=True)
class Written:
    """A step as it was written."""

    id: str
    pointer: str
    body: Mapping[str, JSON]
    after: str | None
    """The step before it in a list."""


@dataclass(kw_only=True, slots=True)
class Judged:
    """A step after its own check, before it is compared with the others."""

    id: str
    pointer: str
    body: dict[str, Any]
    references: list[Reference]
    needs: list[tuple[str, str]] = field(default_factory=list)
    """(step, pointer) as declared, or implied by a list."""
    output: Mapping[str, JSON] = field(default_factory=dict)


def read_steps(value: JSON, findings: Findings, *, limit: int) -> list[Written]:
    """Every step with a usable id, in document order."""
    pointer = "/steps"
    if isinstance(value, dict):
        entries = [(name, body, f"{pointer}/{escape(name)}") for name, body in value.items()]
    elif isinstance(value, list):
        entries = [_entry(item, f"{pointer}/{index}", findings) for index, item in enumerate(value)]
    else:
        fix = "Write steps: {plan: {agent: …}}"
        findings.wrong_type(pointer, "`steps` is a map from id to step, or a list", value, fix)
        return []
    if not entries:
        findings.fault("missing_key", pointer, "The definition has no steps.", "Add at least one step.")
    if len(entries) > limit:
        fix = "Use for_each, or several workflows."
        findings.fault("out_of_range", pointer, f"The definition has {len(entries)} steps; {limit} are allowed.", fix)
        return []
    return _with_ids(entries, findings, chained=isinstance(value, list))


def _entry(item: JSON, pointer: str, findings: Findings) -> tuple[str | None, JSON, str]:
    """An item of a list: a map with `id`, or a map of one id to its step."""
    if isinstance(item, dict) and isinstance(item.get("id"), str):
        return item["id"], {key: value for key, value in item.items() if key != "id"}, pointer
    if isinstance(item, dict) and len(item) == 1:
        name, body = next(iter(item.items()))
        if name not in vocabulary.STEP.known:
            return name, body, f"{pointer}/{escape(name)}"
    fix = "Write - id: plan, or - plan: {…}"
    findings.fault("missing_key", pointer, "A step in a list has an id.", fix)
    return None, item, pointer


def _with_ids(
    entries: list[tuple[str | None, JSON, str]] | list[tuple[str, JSON, str]], findings: Findings, *, chained: bool
) -> list[Written]:
    steps: dict[str, Written] = {}
    before: str | None = None
    for name, body, pointer in entries:
        if name is None:
            continue
        if not _ID.fullmatch(name) or len(name) > ID_LENGTH or name in _CEL_WORDS:
            fix = f"Write {_suggested(name)}: small letters, digits and _, a letter first."
            findings.fault("bad_name", pointer, f"`{shown(name)}` is not an id for a step.", fix)
        if name in steps:
            findings.fault("duplicate_key", pointer, f"There are two steps `{shown(name)}`.", "Rename one of them.")
            continue
        if not isinstance(body, dict):
            findings.wrong_type(pointer, "a step is a map", body, "Write its kind: {tool: calendar.free_busy}")
            body = {}
            continue
        steps[name] = Written(id=name, pointer=pointer, body=body, after=before if chained else None)
        before = name
    return list(steps.values())


def _suggested(name: str) -> str:
    word = re.sub(r"[^a-z0-9_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:ID_LENGTH]).lower()).strip("_")
    return word if _ID.fullmatch(word) and word not in _CEL_WORDS else f"step_{word}".rstrip("_")


def judge(step: Written, context: Context) -> Judged:
    """Everything that can be said of one step by itself."""
    findings, pointer = context.findings, step.pointer
    body = findings.keys(step.body, vocabulary.STEP, pointer)
    names = seen.ITEM_SEES if body.get("for_each") is not None else seen.WORKFLOW_SEES
    kind = kinds.check_kind(body, pointer, names, context, step_id=step.id)
    references = list(kind.references)
    condition = None
    if body.get("if") is not None:
        condition, found = seen.in_condition(body["if"], f"{pointer}/if", findings)
        references += found
    title = findings.text(body, "title", pointer)
    if title is not None:
        references += seen.in_template(title, names, f"{pointer}/title", findings)
    references += _for_each(body, pointer, context)
    output = kind.output
    if body.get("for_each") is not None and output:
        output = {"type": "array", "items": dict(output)}
    return Judged(
        id=step.id,
        pointer=pointer,
        references=references,
        needs=_needs(step, body, findings),
        output={"type": "array"} if body.get("for_each") is not None and not output else output,
        body={
            "id": step.id,
            "kind": kind.kind,
            "line": findings.line(pointer),
            "title": title,
            "if": condition,
            "for_each": body.get("for_each"),
            "max_parallel": _max_parallel(body, pointer, context),
            "timeout_ms": findings.duration(body, "timeout", pointer) or context.defaults.timeout_of(kind.kind),
            "retry": retrying.check_retry(
                body.get("retry"),
                f"{pointer}/retry",
                findings,
                catalogue=context.catalogue,
                agent=kind.kind != "tool",
            ),
            "on_error": findings.choice(body, "on_error", pointer, ("fail", "continue")) or "fail",
            "pivot": findings.flag(body, "pivot", pointer),
            "budget": budgeting.check_budget(body.get("budget"), f"{pointer}/budget", findings, whole=False),
            **kind.body,
        },
    )


def _for_each(body: Mapping[str, JSON], pointer: str, context: Context) -> list[Reference]:
    value, where, findings = body.get("for_each"), f"{pointer}/for_each", context.findings
    if value is None:
        return []
    if isinstance(value, list):
        if len(value) > context.catalogue.items_limit:
            detail = f"for_each has {len(value)} items; {context.catalogue.items_limit} are allowed."
            findings.fault("out_of_range", where, detail, "Split the list over several workflows.")
        return seen.in_template(value, seen.WORKFLOW_SEES, where, findings)
    if not isinstance(value, str):
        findings.wrong_type(where, "`for_each` is a list", value, "Write for_each: ${{ steps.plan.output.items }}")
        return []
    if not is_dynamic(value):
        fix = f"Write for_each: ${{{{ {shown(value).strip('{} ')} }}}}"
        findings.fault("wrong_type", where, "`for_each` is a list, not text.", fix)
        return []
    references = seen.in_template(value, seen.WORKFLOW_SEES, where, findings)
    text = value.strip()
    if references and not (text == value and value.startswith("${{") and value.count("${{") == 1):
        findings.fault(
            "wrong_type", where, "Text around an expression makes it text, not a list.", "Write the expression alone."
        )
    return references


def _max_parallel(body: Mapping[str, JSON], pointer: str, context: Context) -> int:
    written = context.findings.whole(body, "max_parallel", pointer, most=MOST_PARALLEL)
    if body.get("max_parallel") is not None and body.get("for_each") is None:
        detail = "`max_parallel` limits the items of for_each; this step has none."
        context.findings.fault("misplaced_key", f"{pointer}/max_parallel", detail, "Add for_each, or remove it.")
    return written or context.catalogue.max_parallel


def _needs(step: Written, body: Mapping[str, JSON], findings: Findings) -> list[tuple[str, str]]:
    value, where = body.get("needs"), f"{step.pointer}/needs"
    needs = [] if step.after is None else [(step.after, step.pointer)]
    if value is None:
        return needs
    if not isinstance(value, list):
        fix = f"Write needs: [{value if isinstance(value, str) and _ID.fullmatch(value) else 'plan'}]"
        findings.wrong_type(where, "`needs` is a list of steps", value, fix)
        return needs
    for index, name in enumerate(value):
        if isinstance(name, str):
            needs.append((name, f"{where}/{index}"))
        else:
            findings.wrong_type(f"{where}/{index}", "a need is the id of a step", name, "Write its id.")
    return needs
