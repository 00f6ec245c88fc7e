"""The four kinds of step: what each asks for, judged and normalised. Exactly one kind stands in a step.

Promises: a key that belongs to another kind is told where it belongs; every expression is compiled once here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.definition import agents, arguments, compensations, seen, servers, vocabulary
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.consent import APPROVER
from app.domain.definition.defaulting import Defaults
from app.domain.definition.findings import Findings, shown
from app.domain.definition.seen import Reference
from app.domain.outcomes import JSON
from app.domain.schemas import check_schema, expand
from app.domain.states import EffectClass

ALLOW: Final = ("approve", "reject")
ALLOW_LATER: Final = ("edit", "respond")

_BELONGS: Final = {
    "with": ("tool",),
    "idempotency_key": ("tool",),
    "prompt": ("agent",),
    "output_schema": ("agent",),
    "retry": ("tool", "agent"),
    "budget": ("tool", "agent"),
    "compensate": ("tool",),
    "on_unknown_outcome": ("tool",),
}
"""Keys that only some kinds have."""
_AGENTS_SAY: Final = {
    "compensate": "Write compensate on the tools that the agent may use: what it does is undone effect by effect.",
    "on_unknown_outcome": "Remove it; the classes of the agent's tools decide.",
}
ON_UNKNOWN: Final = ("probe", "ask", "abandon")


@dataclass(kw_only=True, slots=True)
class Context:
    """What every step of one document is checked with."""

    findings: Findings
    catalogue: Catalogue
    tools: Mapping[str, dict[str, Any]]
    """Every usable tool, normalised: those of the document over the registered ones."""
    agents: Mapping[str, dict[str, Any]]
    servers: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """MCP servers whose tools are not known before they are asked."""
    defaults: Defaults = field(default_factory=Defaults)


@dataclass(kw_only=True, slots=True)
class Kind:
    """A step's kind → what goes into the plan, what it reads, and what is known of its output."""

    kind: str | None
    body: dict[str, Any] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)
    output: Mapping[str, JSON] = field(default_factory=dict)
    """A JSON Schema; empty if nothing is known."""


def check_kind(
    step: Mapping[str, JSON], pointer: str, names: frozenset[str], context: Context, *, step_id: str
) -> Kind:
    findings = context.findings
    found = [kind for kind in vocabulary.KINDS if kind in step]
    if len(found) != 1:
        _not_one(step, found, pointer, findings)
        return Kind(kind=None)
    kind = found[0]
    for key, owners in _BELONGS.items():
        if key in step and kind not in owners:
            detail = f"`{key}` belongs to {' and '.join(owners)} steps; this is {_article(kind)} step."
            fix = _AGENTS_SAY.get(key) if kind == "agent" else None
            findings.fault("misplaced_key", f"{pointer}/{key}", detail, fix or f"Remove `{key}`.")
    if kind == "tool":
        return _tool(step, pointer, names, context)
    if kind == "agent":
        return _agent(step, pointer, names, context, step_id=step_id)
    if kind == "set":
        return _set(step, pointer, names, findings)
    return _approval(step, pointer, names, findings)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] == "a" else f"a {kind}"


def _not_one(step: Mapping[str, JSON], found: list[str], pointer: str, findings: Findings) -> None:
    kinds = ", ".join(vocabulary.KINDS)
    if found:
        names = " and ".join(f"`{kind}`" for kind in found)
        findings.fault("several_kinds", pointer, f"{names} in one step.", "Split it; order them with needs.")
    elif not any(_stands_for_kind(key) for key in step):
        findings.fault("missing_kind", pointer, "The step does not say what to do.", f"Add exactly one of {kinds}.")


def _stands_for_kind(key: str) -> bool:
    """A key that was already accused and would have been the kind: accusing the step again helps nobody."""
    if key in vocabulary.LATER_KINDS:
        return True
    word = vocabulary.meant(key, vocabulary.STEP) if key not in vocabulary.STEP.known else None
    return word is not None and word.split(".")[0] in (*vocabulary.KINDS, *vocabulary.LATER_KINDS)


# --- tool ----------------------------------------------------------------------------------------------------------


def _tool(step: Mapping[str, JSON], pointer: str, names: frozenset[str], context: Context) -> Kind:
    findings = context.findings
    name = step["tool"]
    tool = None
    if not isinstance(name, str):
        findings.wrong_type(f"{pointer}/tool", "`tool` names a tool", name, "Declare it under tools: and name it here.")
    elif name in context.tools:
        tool = context.tools[name]
    elif servers.server_of(name, context.servers) is None or name.endswith("*"):
        agents.unknown_tool(name, f"{pointer}/tool", context.tools, findings)
    given = step.get("with")
    references = [] if given is None else seen.in_template(given, names, f"{pointer}/with", findings)
    if tool is not None:
        arguments.check_arguments(
            {} if given is None else given,
            tool["input_schema"],
            key_argument=tool["key_argument"],
            pointer=f"{pointer}/with" if given is not None else pointer,
            findings=findings,
        )
    elif given is not None:
        arguments.check_arguments(given, None, key_argument=None, pointer=f"{pointer}/with", findings=findings)
    key = findings.text(step, "idempotency_key", pointer)
    if key is not None:
        references += seen.in_template(key, names, f"{pointer}/idempotency_key", findings)
        _key_fits(key, tool, f"{pointer}/idempotency_key", findings)
    undo, reads = _compensation(step, tool, f"{pointer}/compensate", context)
    body = {
        "tool": name,
        "with": given,
        "key": key,
        "compensate": undo,
        "on_unknown_outcome": _on_unknown(step, tool, pointer, findings),
    }
    return Kind(kind="tool", body=body, references=[*references, *reads])


def _compensation(
    step: Mapping[str, JSON], tool: dict[str, Any] | None, pointer: str, context: Context
) -> tuple[dict[str, Any] | None, list[Reference]]:
    """The step's own; it stands before the tool's."""
    undo, reads = compensations.check_compensation(
        step.get("compensate"),
        pointer,
        effect=None if tool is None else tool["effect"],
        schema=None if tool is None else tool["input_schema"],
        key_argument=None if tool is None else tool["key_argument"],
        findings=context.findings,
    )
    if undo is not None:
        compensations.check_undoing(undo, pointer, context.tools, context.findings)
    return undo, reads


def _on_unknown(step: Mapping[str, JSON], tool: dict[str, Any] | None, pointer: str, findings: Findings) -> str | None:
    """It tightens what the effect class allows: nothing here can make a repeat of what must not be repeated."""
    wish, where = findings.choice(step, "on_unknown_outcome", pointer, ON_UNKNOWN), f"{pointer}/on_unknown_outcome"
    if wish is None or tool is None:
        return wish
    if tool["effect"] == EffectClass.READ_ONLY.value:
        detail = f"`{tool['name']}` is read_only: an unknown outcome does no harm, it is asked again."
        findings.fault("misplaced_key", where, detail, "Remove it.")
    elif wish == "probe" and tool["probe"] is None:
        detail = f"`{tool['name']}` has no probe."
        findings.fault("misplaced_key", where, detail, "Declare a probe on the tool (effect: checkable or keyed).")
    return wish


def _key_fits(key: str, tool: dict[str, Any] | None, pointer: str, findings: Findings) -> None:
    if not key.strip():
        findings.fault("out_of_range", pointer, "The key is empty.", "Use an id of your own system.")
    if tool is not None and tool["effect"] != EffectClass.KEYED.value:
        detail = f"`{tool['name']}` is {tool['effect']}; only a keyed tool uses a key."
        findings.fault("key_not_used", pointer, detail, "Remove it, or declare the tool effect: keyed.")


# --- agent ---------------------------------------------------------------------------------------------------------


def _agent(step: Mapping[str, JSON], pointer: str, names: frozenset[str], context: Context, *, step_id: str) -> Kind:
    findings = context.findings
    value = step["agent"]
    agent: dict[str, Any] | None = None
    if isinstance(value, str):
        agent = context.agents.get(value)
        if agent is None:
            like = vocabulary.nearest(value, context.agents)
            hint = f" Did you mean `{like}`?" if like else ""
            fix = "Declare it under agents:, or write it here: agent: {model: fast}"
            findings.fault("unknown_agent", f"{pointer}/agent", f"There is no agent `{shown(value)}`.{hint}", fix)
    elif isinstance(value, dict):
        agent = agents.check_agent(
            step_id,
            value,
            f"{pointer}/agent",
            tools=context.tools,
            servers=context.servers,
            findings=findings,
            catalogue=context.catalogue,
            defaults=context.defaults.agent,
        )
    else:
        fix = "Write agent: {model: fast}"
        findings.wrong_type(f"{pointer}/agent", "`agent` is the name of an agent, or a map", value, fix)
    prompt = findings.text(step, "prompt", pointer)
    references: list[Reference] = []
    if step.get("prompt") is None:
        findings.fault("missing_key", pointer, "An agent step has a prompt.", 'Add prompt: "…"')
    elif prompt is not None:
        references = seen.in_template(prompt, names, f"{pointer}/prompt", findings)
    schema, known = step.get("output_schema"), True
    full: dict[str, Any] | None = None
    if schema is not None:
        faults = check_schema(schema)
        for fault in faults:
            findings.fault(fault.code, f"{pointer}/output_schema{fault.pointer}", fault.detail, fault.fix)
        full, known = (None, False) if faults else (expand(schema), True)
    output: Mapping[str, JSON] = full if full is not None else seen.TEXT_OUTPUT if known else {}
    body = {"agent": agent, "prompt": prompt, "output_schema": full}
    return Kind(kind="agent", body=body, references=references, output=output)


# --- set and approval ----------------------------------------------------------------------------------------------


def _set(step: Mapping[str, JSON], pointer: str, names: frozenset[str], findings: Findings) -> Kind:
    values = step["set"]
    if not isinstance(values, dict):
        fix = 'Write set: {name: "${{ … }}"}'
        findings.wrong_type(f"{pointer}/set", "`set` is a map of names to values", values, fix)
        return Kind(kind="set")
    references = seen.in_template(values, names, f"{pointer}/set", findings)
    return Kind(kind="set", body={"values": values}, references=references, output=seen.schema_of_literal(values))


def _approval(step: Mapping[str, JSON], pointer: str, names: frozenset[str], findings: Findings) -> Kind:
    where = f"{pointer}/approval"
    asked = findings.keys(step["approval"], vocabulary.APPROVAL, where)
    title = findings.text(asked, "title", where)
    if asked.get("title") is None and isinstance(step["approval"], dict):
        findings.fault("missing_key", where, "An approval says what is asked.", 'Add title: "May this be sent?"')
    references = [] if title is None else seen.in_template(title, names, f"{where}/title", findings)
    if asked.get("show") is not None:
        references += seen.in_template(asked["show"], names, f"{where}/show", findings)
    expires_ms = findings.duration(asked, "expires", where)
    on_expire = findings.choice(asked, "on_expire", where, ("reject", "fail"))
    if asked.get("on_expire") is not None and asked.get("expires") is None:
        detail = "`on_expire` without `expires`: it never expires."
        findings.fault("misplaced_key", f"{where}/on_expire", detail, "Add expires: 2h")
    body = {
        "title": title,
        "show": asked.get("show"),
        "allow": _allow(asked.get("allow"), f"{where}/allow", findings),
        "expires_ms": expires_ms,
        "on_expire": on_expire or "reject",
        "on_reject": findings.choice(asked, "on_reject", where, ("continue", "fail")) or "continue",
        "approver": findings.choice(asked, "approver", where, APPROVER) or "anyone",
    }
    return Kind(kind="approval", body={"approval": body}, references=references, output=seen.APPROVAL_OUTPUT)


def _allow(value: JSON, pointer: str, findings: Findings) -> list[str]:
    if value is None:
        return list(ALLOW)
    if not isinstance(value, list) or not value:
        findings.wrong_type(pointer, "`allow` is a list", value, "Write allow: [approve, reject]")
        return list(ALLOW)
    for index, word in enumerate(value):
        where = f"{pointer}/{index}"
        if word in ALLOW_LATER:
            detail = f"`{word}` is not carried out by this version."
            findings.fault("unsupported", where, detail, "Write allow: [approve, reject]")
        elif word not in ALLOW:
            detail = f"{shown(word)} is not something a person can decide."
            findings.fault("unknown_value", where, detail, "Write allow: [approve, reject]")
    allowed = [word for word in ALLOW if word in value]
    if "approve" not in allowed and all(word in ALLOW for word in value if isinstance(word, str)):
        detail = "Nobody could ever approve it."
        findings.fault("out_of_range", pointer, detail, "Add approve.")
    return allowed
