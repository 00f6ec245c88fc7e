"""A tool declared with `mcp`: one declaration of a server, which stands for all the tools that the server lists.

    check_server(name, value, …)     the declaration → its normalised form (`Server`), faults in `findings`
    carried(steps, unlisted)         the servers that a plan has to ask, and which step needs which
    expand(server)                   the tools of a server whose list is frozen in the declaration (`listed`)
    tools_of(server, definitions)    the same for a list that was discovered: (tools by name, what was left out)
    server_of(name, servers)         the server that a name like `git.log` or `git.*` belongs to

Promises: a tool whose declaration says nothing about its effect is `at_most_once`; what the server itself says about
its tools (`annotations`) counts only with `trust_annotations: true`; `command` is a list of words and never a shell
line; a description or schema that cannot be used (a remote `$ref`, for one) leaves that tool out, with the reason.
Never: connects. The same declaration and list give the same tools, in every process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from app.domain.definition import tool_words, tools
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings, shown
from app.domain.definition.vocabulary import nearest
from app.domain.outcomes import JSON
from app.domain.schemas import escape
from app.domain.servers import Definition, sha256_of
from app.domain.states import EffectClass

if TYPE_CHECKING:
    from app.domain.definition.steps import Judged  # which is judged with what is here

Server = Mapping[str, Any]
"""`name`, `place` (command and environment, or url and headers), `trust_annotations`, `include`, `common`, `tools`,
`listed`, `timeout_ms`, `tool_timeout`, `settle_factor`. JSON: a plan holds it until its list is known."""

LONGEST_COMMAND: Final = 100
"""Words. A longer one is generated, and belongs into a script."""
LONGEST_WORD: Final = 4096
MOST_LISTED: Final = 1000
"""Tools in one frozen list: no server has as many, and each is a row of the plan."""

_ENVIRONMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED: Final = frozenset({"PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "NODE_OPTIONS"})
"""What decides which program runs, and with what code: the operator's to say."""
_SECRETS: Final = frozenset({"secrets"})
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")


def is_server(declaration: JSON) -> bool:
    return isinstance(declaration, Mapping) and declaration.get("mcp") is not None


def check_server(name: str, value: JSON, pointer: str, *, findings: Findings, catalogue: Catalogue) -> dict[str, Any]:
    """A declaration → the plan's form of it. What is wrong is in `findings`; then the result is not to be used."""
    if not tools.TOOL_NAME.fullmatch(name) or len(name) > tools.NAME_LENGTH // 2:
        fix = f"Use up to {tools.NAME_LENGTH // 2} letters, digits, _ and -: git"
        findings.fault("bad_name", pointer, f"`{shown(name)}` is not a name for an MCP server.", fix)
    declared = findings.keys(value, tool_words.SERVER, pointer)
    common = {key: declared[key] for key in tool_words.OF_EACH_TOOL if declared.get(key) is not None}
    trusts = findings.flag(declared, "trust_annotations", pointer)
    _check_common(common, trusts, pointer, findings, catalogue)
    own = _overrides(declared.get("tools"), common, f"{pointer}/tools", findings, catalogue)
    server = {
        "name": name,
        "place": _place(declared["mcp"], f"{pointer}/mcp", findings),
        "trust_annotations": trusts,
        "include": _names(declared.get("include"), f"{pointer}/include", findings),
        "common": common,
        "tools": own,
        "timeout_ms": findings.duration(declared, "timeout", pointer) or round(catalogue.tool_timeout * 1000),
        "tool_timeout": catalogue.tool_timeout,
        "settle_factor": catalogue.settle_factor,
        "listed": None,
    }
    listed = _listed(declared.get("listed"), f"{pointer}/listed", findings)
    if listed is not None and not findings.faults:
        _agree(server, listed, pointer, findings)
    return {**server, "listed": listed}


def carried(steps: Iterable[Judged], unlisted: Mapping[str, Server], *, known: Collection[str]) -> dict[str, Any]:
    """The servers that a plan has to ask, and on each step which. Empty for a plan that knows all its tools. `known`:
    names of tools that need no asking."""
    wanted: set[str] = set()
    for step in steps:
        agent, tool = step.body.get("agent"), step.body.get("tool")
        names = agent["tools"] if agent else [tool] if isinstance(tool, str) else []
        asked = (server_of(name, unlisted) for name in names if name not in known)
        of_step = sorted({server for server in asked if server is not None})
        if of_step:
            step.body["servers"] = of_step
            wanted |= set(of_step)
    return {"servers": {name: unlisted[name] for name in sorted(wanted)}} if wanted else {}


def server_of(name: str, servers: Mapping[str, Server]) -> str | None:
    """The server of `git.log` or `git.*` among those whose lists are not known."""
    return next((server for server in servers if name.startswith(f"{server}.")), None)


def expand(server: Server) -> dict[str, dict[str, Any]]:
    """The tools of a server whose list is frozen in its declaration, by their names here."""
    return tools_of(server, server["listed"])[0]


def tools_of(
    server: Server, definitions: Sequence[Definition]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """(name here → tool in the plan's form, what was left out and why). In the order of their names."""
    made: dict[str, dict[str, Any]] = {}
    left_out: list[dict[str, str]] = []
    for definition in sorted(definitions, key=lambda each: str(each["name"])):
        if server["include"] is not None and definition["name"] not in server["include"]:
            continue
        name = own_name(str(server["name"]), str(definition["name"]))
        findings = Findings(lines={})
        tool = _tool(name, server, definition, findings)
        if findings.faults:
            left_out.append({"tool": str(definition["name"]), "reason": findings.faults[0].detail})
        else:
            made[name] = tool
    return made, left_out


def own_name(server: str, tool: str) -> str:
    """`git.git_log`. A name that is none here (a slash, too long) is made one, and stays its own."""
    plain = f"{server}.{tool}"
    if tools.TOOL_NAME.fullmatch(plain) and len(plain) <= tools.NAME_LENGTH:
        return plain
    digest = hashlib.sha256(tool.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{server}.t_{_ODD.sub('_', tool)[: tools.NAME_LENGTH - len(server) - 12]}_{digest}"


# --- one tool ------------------------------------------------------------------------------------------------------


def _tool(name: str, server: Server, definition: Definition, findings: Findings) -> dict[str, Any]:
    own = server["tools"].get(definition["name"], {})
    declared = {
        "description": definition.get("description") or "",
        "input_schema": {**(definition.get("input_schema") or {}), "type": "object"},
        "mcp": True,
        "effect": _effect(server, definition),
        **server["common"],
        **own,
    }
    if "effect" in own and own["effect"] != EffectClass.KEYED.value:  # what the server says of keys is not its own
        declared = {key: each for key, each in declared.items() if key not in ("key_argument", "key_ttl") or key in own}
    catalogue = Catalogue(tool_timeout=server["tool_timeout"], settle_factor=server["settle_factor"])
    body = tools.check_tool(name, declared, "", findings=findings, catalogue=catalogue)
    return {
        **body,
        "mcp": {**server["place"], "server": server["name"], "timeout_ms": server["timeout_ms"]}
        | {"definition": dict(definition), "sha256": sha256_of(definition)},
    }


def _effect(server: Server, definition: Definition) -> str:
    """By the server's own word, if that is to be trusted; else the worst."""
    said = definition.get("annotations") or {}
    if server["trust_annotations"] and said.get("read_only_hint") is True:
        return EffectClass.READ_ONLY.value
    if server["trust_annotations"] and said.get("idempotent_hint") is True:
        return EffectClass.IDEMPOTENT.value
    return EffectClass.AT_MOST_ONCE.value


# --- the declaration -----------------------------------------------------------------------------------------------


def _place(value: JSON, pointer: str, findings: Findings) -> dict[str, Any]:
    mcp = findings.keys(value, tool_words.MCP, pointer)
    if (mcp.get("command") is None) == (mcp.get("url") is None) and isinstance(value, dict):
        detail = "An MCP server is a command or a url."
        fix = "Write mcp: {command: [mcp-server-git, --repository, .]} or mcp: {url: https://…/mcp}"
        findings.fault("several_kinds" if mcp.get("url") else "missing_key", pointer, detail, fix)
        return {}
    for key, owner in (("env", "command"), ("headers", "url")):
        if mcp.get(key) is not None and mcp.get(owner) is None:
            detail = f"`{key}` belongs to a server with `{owner}`."
            findings.fault("misplaced_key", f"{pointer}/{key}", detail, "Remove it.")
    if mcp.get("command") is not None:
        return {
            "command": _command(mcp["command"], f"{pointer}/command", findings),
            "env": _environment(mcp.get("env"), f"{pointer}/env", findings),
        }
    url = findings.text(mcp, "url", pointer)
    if url is not None:
        tools.check_url(url, f"{pointer}/url", names=_SECRETS, findings=findings)
    return {"url": url, "headers": tools.check_headers(mcp, pointer, names=_SECRETS, findings=findings)}


def _command(value: JSON, pointer: str, findings: Findings) -> list[str]:
    fix = "Write the program and its arguments as a list: [mcp-server-git, --repository, .]"
    if not isinstance(value, list) or not value or len(value) > LONGEST_COMMAND:
        findings.fault("wrong_type", pointer, "`command` is a list: a program and its arguments.", fix)
        return []
    for index, word in enumerate(value):
        where = f"{pointer}/{index}"
        if not isinstance(word, str) or not word or "\x00" in word or len(word) > LONGEST_WORD:
            findings.fault("wrong_type", where, "A word of a command is text that is not empty.", fix)
        elif "${{" in word:
            fix = "Put what is secret into env: {TOKEN: ${{ secrets.token }}}; nothing else varies."
            findings.fault("bad_expression", where, "A command is fixed: other processes can read it.", fix)
    return [str(word) for word in value]


def _environment(value: JSON, pointer: str, findings: Findings) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        findings.wrong_type(pointer, "`env` is a map of names to text", value, "Write env: {TOKEN: …}")
        return {}
    for name, text in value.items():
        where = f"{pointer}/{escape(name)}"
        if not _ENVIRONMENT.fullmatch(name) or name in _RESERVED:
            why = "is the operator's to set" if name in _RESERVED else "is not a name for a variable"
            findings.fault("bad_name", where, f"`{shown(name)}` {why}.", "Remove it, or choose another name.")
        elif not isinstance(text, str):
            findings.wrong_type(where, "a variable is text", text, "Put it in quotes.")
        else:
            tools.check_template(text, where, names=_SECRETS, findings=findings)
    return value


def _check_common(
    common: Mapping[str, JSON], trusts: bool, pointer: str, findings: Findings, catalogue: Catalogue
) -> None:
    _check_words({**common, "effect": common.get("effect") or "at_most_once"}, pointer, findings, catalogue)
    if common.get("effect") is None and not trusts:
        findings.warn(
            "effect_undeclared",
            pointer,
            "It declares no effect; its tools are treated as at_most_once: never repeated after an unknown outcome.",
            "Declare effect for all, tools: {name: {effect: …}} for one, or trust_annotations: true.",
        )


def _overrides(
    value: JSON, common: Mapping[str, JSON], pointer: str, findings: Findings, catalogue: Catalogue
) -> dict[str, dict[str, Any]]:
    """What is said of single tools, by the names that the server gives them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        findings.wrong_type(pointer, "`tools` is a map from name to keys", value, "Write tools: {log: {effect: …}}")
        return {}
    for name, own in value.items():
        where = f"{pointer}/{escape(name)}"
        said = findings.keys(own, tool_words.SERVER_TOOL, where)
        effect = said.get("effect") or common.get("effect") or "at_most_once"
        _check_words(
            {**(common if effect == common.get("effect") else {}), **said, "effect": effect}, where, findings, catalogue
        )
    return {name: own for name, own in value.items() if isinstance(own, dict)}


def _check_words(words: Mapping[str, JSON], pointer: str, findings: Findings, catalogue: Catalogue) -> None:
    """Everything that can be said of each tool, judged as if it were said of one."""
    if words.get("effect") == EffectClass.CHECKABLE.value:
        detail = "A tool of an MCP server has no probe here, so nobody can check what became of it."
        findings.fault("unknown_value", f"{pointer}/effect", detail, "Write at_most_once, or keyed with key_argument.")
        return
    kept = {key: each for key, each in words.items() if key in (*tool_words.OF_EACH_TOOL, "description")}
    tools.check_tool("x", {**kept, "mcp": True}, pointer, findings=findings, catalogue=catalogue)


def _names(value: JSON, pointer: str, findings: Findings) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        findings.wrong_type(pointer, "`include` is a list of the server's tools", value, "Write include: [git_log]")
        return None
    return list(value)


def _listed(value: JSON, pointer: str, findings: Findings) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    fits = isinstance(value, list) and all(
        isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"] for each in value
    )
    if not fits or len(value) > MOST_LISTED:
        fix = "Let `surefoot tool register` write it, or leave it out: then the server is asked when a step needs it."
        findings.fault("wrong_type", pointer, "`listed` is what the server listed: its tools with their names.", fix)
        return None
    return [{key: each[key] for key in ("name", *tool_words.LISTED) if each.get(key) is not None} for each in value]


def _agree(server: Server, listed: Sequence[Definition], pointer: str, findings: Findings) -> None:
    """What the declaration names, and what the server has; and what of it cannot be used."""
    known = [str(each["name"]) for each in listed]
    for key in ("include", "tools"):
        for name in server[key] or ():
            if name not in known:
                like = nearest(name, known)
                hint = f" Did you mean `{shown(like)}`?" if like else ""
                detail = f"The server has no tool `{shown(name)}`.{hint}"
                fix = f"It has: {', '.join(shown(each) for each in known[:12]) or 'none'}."
                findings.fault("unknown_tool", f"{pointer}/{key}", detail, fix)
    for gone in tools_of(server, listed)[1]:
        detail = f"Its tool `{shown(gone['tool'])}` is left out: {gone['reason']}"
        findings.warn("tool_left_out", f"{pointer}/listed", detail, "Ask the server's author to mend its schema.")
