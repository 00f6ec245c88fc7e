"""Agents: named under `agents:` or written inline in a step; both become the same frozen snapshot.

Promises: a model alias is resolved here, once, so that a later change of settings changes no accepted workflow; the
tools keep their order, because a model sees it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from app.domain.definition import vocabulary
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings, shown
from app.domain.outcomes import JSON
from app.domain.templates import is_dynamic

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
"""As the Messages API knows them."""
MOST_TOOLS: Final = 128
"""More tools than a model can choose among; the API's own bound is near."""
MOST_TOKENS: Final = 1_000_000

_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,199}")


def check_agent(
    name: str,
    value: JSON,
    pointer: str,
    *,
    tools: Mapping[str, JSON],
    findings: Findings,
    catalogue: Catalogue,
) -> dict[str, Any]:
    """An agent → the plan's form of it."""
    agent = findings.keys(value, vocabulary.AGENT, pointer)
    alias = findings.text(agent, "model", pointer)
    if agent.get("model") is None and isinstance(value, dict):
        fix = f"Write model: {next(iter(catalogue.models), 'a full model id')}"
        findings.fault("missing_key", pointer, "An agent says which model.", fix)
    instructions = findings.text(agent, "instructions", pointer)
    if is_dynamic(instructions):
        findings.fault(
            "bad_expression",
            f"{pointer}/instructions",
            "Instructions are the same for every workflow; expressions are not evaluated in them.",
            "Put what changes into the prompt.",
        )
    return {
        "name": name,
        "model": None if alias is None else _model(alias, f"{pointer}/model", findings, catalogue),
        "alias": alias,
        "instructions": instructions,
        "tools": _tools(agent.get("tools"), f"{pointer}/tools", tools, findings),
        "max_tokens": findings.whole(agent, "max_tokens", pointer, most=MOST_TOKENS) or catalogue.max_tokens,
        "effort": findings.choice(agent, "effort", pointer, EFFORTS),
        "max_turns": findings.whole(agent, "max_turns", pointer, most=catalogue.max_turns) or catalogue.max_turns,
    }


def _model(alias: str, pointer: str, findings: Findings, catalogue: Catalogue) -> str:
    known = catalogue.models.get(alias)
    if known is not None:
        return known
    # A model id has a dash or a digit in it (claude-…, gpt5): a bare word is an alias that is not there.
    bare = alias.isalpha()
    if bare or not _MODEL_ID.fullmatch(alias):
        like = vocabulary.nearest(alias, catalogue.models)
        hint = f" Did you mean `{like}`?" if like else ""
        aliases = ", ".join(catalogue.models) or "none"
        findings.fault(
            "unknown_model",
            pointer,
            f"`{shown(alias)}` is neither an alias nor a model id.{hint}",
            f"Known aliases: {aliases}. Or write a full model id.",
        )
    return alias


def _tools(value: JSON, pointer: str, known: Mapping[str, JSON], findings: Findings) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        findings.wrong_type(pointer, "`tools` is a list of names", value, "Write tools: [calendar.free_busy]")
        return []
    names: list[str] = []
    for index, entry in enumerate(value):
        where = f"{pointer}/{index}"
        if not isinstance(entry, str):
            findings.wrong_type(where, "a tool is named by its text", entry, "Declare it under tools: and name it.")
            continue
        found = _matching(entry, known)
        if not found:
            unknown_tool(entry, where, known, findings)
        names.extend(name for name in found if name not in names)
    if len(names) > MOST_TOOLS:
        findings.fault("out_of_range", pointer, f"An agent has at most {MOST_TOOLS} tools.", "Offer fewer.")
    return names


def _matching(entry: str, known: Mapping[str, JSON]) -> list[str]:
    if not entry.endswith(".*"):
        return [entry] if entry in known else []
    # Sorted: the order of registration must not change what a model sees.
    return sorted(name for name in known if name.startswith(entry[:-1]))


def unknown_tool(name: str, pointer: str, known: Mapping[str, JSON], findings: Findings) -> None:
    like = vocabulary.nearest(name, known)
    hint = f" Did you mean `{like}`?" if like else ""
    listed = ", ".join(sorted(known)[:12]) or "none"
    detail = f"There is no tool `{shown(name)}`.{hint}"
    findings.fault("unknown_tool", pointer, detail, f"Declare it under tools:. Known: {listed}.")
