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
FINISH: Final = ("fail", "gracefully")
"""What an agent does at a limit; the first is the default."""
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
    servers: Mapping[str, JSON],
    findings: Findings,
    catalogue: Catalogue,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An agent → the plan's form of it, with the definition's `defaults` under what it says itself. `servers`: MCP
    servers whose tools are not known yet; what names them stays as it is written until they are."""
    own = _written(value, pointer, tools=tools, servers=servers, findings=findings, catalogue=catalogue)
    under = defaults or {}
    if "alias" not in own and "alias" not in under and isinstance(value, dict) and value.get("model") is None:
        fix = f"Write model: {next(iter(catalogue.models), 'a full model id')}"
        findings.fault("missing_key", pointer, "An agent says which model.", fix)
    return {
        "name": name,
        "model": None,
        "alias": None,
        "instructions": None,
        "tools": [],
        "max_tokens": catalogue.max_tokens,
        "effort": None,
        "max_turns": catalogue.max_turns,
        "finish": FINISH[0],
        **under,
        **own,
    }


def check_defaults(
    value: JSON,
    pointer: str,
    *,
    tools: Mapping[str, JSON],
    servers: Mapping[str, JSON],
    findings: Findings,
    catalogue: Catalogue,
) -> dict[str, Any]:
    """What every agent says that does not say otherwise (`defaults.agent`)."""
    return _written(value, pointer, tools=tools, servers=servers, findings=findings, catalogue=catalogue)


def _written(
    value: JSON,
    pointer: str,
    *,
    tools: Mapping[str, JSON],
    servers: Mapping[str, JSON],
    findings: Findings,
    catalogue: Catalogue,
) -> dict[str, Any]:
    """Only what was said, in the plan's form."""
    agent = findings.keys(value, vocabulary.AGENT, pointer)
    alias = findings.text(agent, "model", pointer)
    instructions = findings.text(agent, "instructions", pointer)
    if is_dynamic(instructions):
        findings.fault(
            "bad_expression",
            f"{pointer}/instructions",
            "Instructions are the same for every workflow; expressions are not evaluated in them.",
            "Put what changes into the prompt.",
        )
    listed = _tools(agent.get("tools"), f"{pointer}/tools", tools, servers, findings)
    said = {
        "model": None if alias is None else model_id(alias, f"{pointer}/model", findings, catalogue),
        "alias": alias,
        "instructions": instructions,
        "tools": None if agent.get("tools") is None else listed,
        "max_tokens": findings.whole(agent, "max_tokens", pointer, most=MOST_TOKENS),
        "effort": findings.choice(agent, "effort", pointer, EFFORTS),
        "max_turns": findings.whole(agent, "max_turns", pointer, most=catalogue.max_turns),
        "finish": findings.choice(agent, "finish", pointer, FINISH),
    }
    return {key: item for key, item in said.items() if item is not None}


def model_id(alias: str, pointer: str, findings: Findings, catalogue: Catalogue) -> str:
    """The provider's id that `alias` stands for now, or a full id as it is."""
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


def _tools(
    value: JSON, pointer: str, known: Mapping[str, JSON], servers: Mapping[str, JSON], findings: Findings
) -> list[str]:
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
        if entry not in found and any(entry.startswith(f"{server}.") for server in servers):
            found = [*found, entry]
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
