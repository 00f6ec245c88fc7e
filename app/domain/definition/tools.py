"""Tool declarations: judged, and normalised for the plan. The same for `tools:` of a definition and registered ones.

Promises: a declaration without an effect class is treated as the worst (`at_most_once`, GET and HEAD `read_only`)
and says so in a warning; a keyed tool says how its key travels and how long the tool remembers it; the host of a URL
is never chosen by arguments; what runs in a worker is an entry point and never a path (`entry_points.py`). No network,
no DNS: addresses are judged at each send. Other tools that a declaration names (`probe`, `compensate`) are looked up in
`linking.py`: they may be registered later than it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from app.domain.definition import answering, compensations, consent, entry_points, probes, seen, tool_words
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings, shown
from app.domain.definition.seen import Reference
from app.domain.outcomes import JSON
from app.domain.schemas import check_schema, escape, expand
from app.domain.states import EffectClass

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
"""RFC 9110 §9.2.1: safe by definition of the method."""
ON_REPEAT: Final = ("ask", "return_recorded", "allow")

TOOL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z][A-Za-z0-9_-]*)*")
NAME_LENGTH: Final = 64
"""The Messages API's own bound for a tool's name."""
LEAST_OUTPUT: Final = 1024
"""Bytes: less would cut every error message."""
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
"""RFC 9110 §5.6.2, a token."""
_RESERVED_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "traceparent"}
)
_CONFIGURED: Final = frozenset({"arguments", "secrets"})
_SHAPED: Final = frozenset({"arguments"})
ANSWER_SEES: Final = frozenset({"status", "body"})
"""`output` of an http tool: the status and the parsed body of the answer."""
_EXPRESSION: Final = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)
_ORIGIN: Final = re.compile(r"(https?)://([^/?#]*)", re.IGNORECASE)


def check_tool(name: str, value: JSON, pointer: str, *, findings: Findings, catalogue: Catalogue) -> dict[str, Any]:
    """A declaration → the plan's form of it. What is wrong is in `findings`; then the result is not to be used."""
    if not TOOL_NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        fix = "Use letters, digits, _ and -, in parts separated by dots: calendar.create_event"
        findings.fault("bad_name", pointer, f"`{shown(name)}` is not a name for a tool.", fix)
    tool = findings.keys(value, tool_words.TOOL, pointer)
    schema = tool.get("input_schema")
    full = None
    if schema is not None:
        full = _schema(schema, f"{pointer}/input_schema", findings)
    python = entry_points.check_python(tool, pointer, schema=full, findings=findings)
    _one_place(tool, pointer, findings)
    http = _http(tool, pointer, findings, full)
    timeout_ms = findings.duration(tool, "timeout", pointer) or round(catalogue.tool_timeout * 1000)
    settle_ms = findings.duration(tool, "settle_time", pointer) or round(timeout_ms * catalogue.settle_factor)
    effect = _effect(tool, http.get("method"), pointer, findings)
    key = _key(tool, effect, http, pointer, findings)
    compensate, _ = compensations.check_compensation(
        tool.get("compensate"),
        f"{pointer}/compensate",
        effect=effect,
        schema=full,
        key_argument=key["key_argument"],
        findings=findings,
    )
    return {
        "name": name,
        "description": findings.text(tool, "description", pointer) or "",
        "input_schema": full,
        **_place(tool, http, python),
        "effect": effect or EffectClass.AT_MOST_ONCE.value,
        **key,
        "timeout_ms": timeout_ms,
        "settle_ms": settle_ms,
        "on_repeat": findings.choice(tool, "on_repeat", pointer, ON_REPEAT) or "ask",
        "probe": probes.check_probe(
            tool, effect=effect, schema=full, key_argument=key["key_argument"], pointer=pointer, findings=findings
        ),
        "compensate": compensate,
        **answering.check_answers(tool, effect=effect, pointer=pointer, findings=findings),
        **consent.check_consent(tool, pointer=pointer, findings=findings),
        **_most(tool, pointer, findings),
    }


def _place(tool: dict[str, Any], http: dict[str, Any], python: dict[str, Any] | None) -> dict[str, Any]:
    """Where the tool is; that of an MCP server's is filled in by `servers.py`."""
    if tool.get("mcp") is not None:
        return {}
    return {"http": http} if tool.get("python") is None else {"python": python}


def _one_place(tool: dict[str, Any], pointer: str, findings: Findings) -> None:
    places = [key for key in ("http", "python") if tool.get(key) is not None]
    if tool.get("mcp") is not None and places:
        detail = f"A tool is in one place: `mcp` and `{places[0]}` are both there."
        findings.fault("several_kinds", pointer, detail, "Keep one of them.")


def _most(tool: dict[str, Any], pointer: str, findings: Findings) -> dict[str, int]:
    """Left out where nothing is said: then the server's own limit counts."""
    most = findings.whole(tool, "max_output", pointer, least=LEAST_OUTPUT)
    return {} if most is None else {"max_output": most}


def _schema(schema: JSON, pointer: str, findings: Findings) -> dict[str, Any] | None:
    faults = check_schema(schema)
    for fault in faults:
        findings.fault(fault.code, f"{pointer}{fault.pointer}", fault.detail, fault.fix)
    return None if faults else expand(schema)


def _effect(tool: dict[str, Any], method: str | None, pointer: str, findings: Findings) -> str | None:
    """None if a word stands there that means nothing: then nothing is said of keys that hang on the class."""
    if tool.get("effect") is None:
        if method in SAFE_METHODS:
            return EffectClass.READ_ONLY.value
        findings.warn(
            "effect_undeclared",
            pointer,
            "It declares no effect; it is treated as at_most_once: never repeated after an unknown outcome.",
            "Declare effect: read_only, idempotent, keyed, checkable or at_most_once.",
        )
        return EffectClass.AT_MOST_ONCE.value
    return findings.choice(tool, "effect", pointer, [effect.value for effect in EffectClass])


def _key(
    tool: dict[str, Any], effect: str | None, http: dict[str, Any], pointer: str, findings: Findings
) -> dict[str, Any]:
    header = findings.text(tool, "key_header", pointer)
    argument = findings.text(tool, "key_argument", pointer)
    ttl = findings.duration(tool, "key_ttl", pointer)
    if effect != EffectClass.KEYED.value:
        for key in ("key_header", "key_argument", "key_ttl"):
            if effect is not None and tool.get(key) is not None:
                detail = f"`{key}` belongs to keyed tools; this one is {effect}."
                findings.fault("misplaced_key", f"{pointer}/{key}", detail, "Write effect: keyed, or leave it out.")
        return {"key_header": None, "key_argument": None, "key_ttl_ms": None}
    travels = ("key_header", "key_argument", "python")  # a function reads it in its context
    if all(tool.get(key) is None for key in travels):
        findings.fault(
            "missing_key",
            pointer,
            "A keyed tool says how the key travels.",
            "Add key_header: Idempotency-Key, or key_argument with the name of an argument.",
        )
    if tool.get("key_ttl") is None:
        findings.fault(
            "missing_key",
            pointer,
            "A keyed tool says how long it remembers a key: repeating is safe only that long.",
            "Add key_ttl: 24h, from the tool's documentation.",
        )
    if header is not None:
        _header_name(header, f"{pointer}/key_header", findings)
        if header.lower() in {name.lower() for name in http.get("headers", {})}:
            detail = f"`{header}` is both key_header and one of the headers."
            findings.fault("misplaced_key", f"{pointer}/key_header", detail, "Remove it from http.headers.")
    return {"key_header": header, "key_argument": argument, "key_ttl_ms": ttl}


def _http(tool: dict[str, Any], pointer: str, findings: Findings, schema: dict[str, Any] | None) -> dict[str, Any]:
    where = f"{pointer}/http"
    if tool.get("http") is None:
        if "mcp" not in tool and tool.get("python") is None:
            fix = "Add http: {method: POST, url: https://…}, python: acme-tools:shout, or mcp: {command: […]}."
            findings.fault("missing_key", pointer, "A tool says where it is.", fix)
        return {}
    http = findings.keys(tool["http"], tool_words.HTTP, where)
    references: list[Reference] = []
    method = http.get("method")
    if method is None:
        findings.fault("missing_key", where, "`method` is missing.", f"Write one of {', '.join(METHODS)}.")
    else:
        upper = {"method": method.upper() if isinstance(method, str) else method}
        method = findings.choice(upper, "method", where, METHODS)
    url = findings.text(http, "url", where)
    if http.get("url") is None:
        findings.fault("missing_key", where, "`url` is missing.", "Write url: https://…")
    elif url is not None:
        _url(url, f"{where}/url", findings)
        references += seen.in_template(url, _CONFIGURED, f"{where}/url", findings)
    path = _map(http, "path", where, findings)
    for name in path:
        if url is not None and f"{{{name}}}" not in url:
            detail = f"The url has no place {{{shown(name)}}} for it."
            fix = f"Write {{{shown(name)}}} in the url."
            findings.fault("unknown_key", f"{where}/path/{escape(name)}", detail, fix)
    headers = _headers(http, where, findings)
    for key, names in (("path", _CONFIGURED), ("headers", _CONFIGURED), ("query", _CONFIGURED), ("body", _SHAPED)):
        if http.get(key) is not None:
            references += seen.in_template(http[key], names, f"{where}/{key}", findings)
    for reference in references:
        seen.check_fields(reference, {"arguments": schema} if schema else {}, findings)
    return {
        "method": method,
        "url": url,
        "headers": headers,
        "path": path or None,
        "query": _map(http, "query", where, findings) or None,
        "body": http.get("body"),
        **_output(http, where, findings),
    }


def _output(http: dict[str, Any], where: str, findings: Findings) -> dict[str, JSON]:
    """What is made of the answer; without it the output is the body."""
    if http.get("output") is None:
        return {}
    references = seen.in_template(http["output"], ANSWER_SEES, f"{where}/output", findings)
    if not references and not findings.faults:
        detail = "It reads nothing of the answer: every call would have the same output."
        findings.warn("constant_output", f"{where}/output", detail, "Write output: ${{ body.data }}, or leave it out.")
    return {"output": http["output"]}


def check_url(url: str, pointer: str, *, names: frozenset[str], findings: Findings) -> None:
    """A URL that is always the same but for its secrets."""
    _url(url, pointer, findings)
    seen.in_template(url, names, pointer, findings)


def check_headers(owner: dict[str, Any], where: str, *, names: frozenset[str], findings: Findings) -> dict[str, str]:
    headers = _headers(owner, where, findings)
    seen.in_template(headers, names, f"{where}/headers", findings)
    return headers


def check_template(value: JSON, pointer: str, *, names: frozenset[str], findings: Findings) -> None:
    seen.in_template(value, names, pointer, findings)


def _url(url: str, pointer: str, findings: Findings) -> None:
    """The origin is fixed by the declaration: secrets in headers must not follow an argument to another host."""
    if any(letter.isspace() or not letter.isprintable() for letter in _EXPRESSION.sub("", url)):
        findings.fault("bad_url", pointer, "The url has white space in it.", "Write it without spaces.")
    expressions = iter(_EXPRESSION.findall(url))
    marked = _EXPRESSION.sub("\x00", url)
    origin = _ORIGIN.match(marked)
    if origin is None and not marked.startswith("\x00"):
        findings.fault("bad_url", pointer, f"`{shown(url)}` is not an http(s) URL.", "Write https://host/path")
        return
    head = origin.group() if origin else marked.split("/", 1)[0]
    if origin and not origin.group(2).strip():
        findings.fault("bad_url", pointer, "The url names no host.", "Write https://host/path")
    if any("arguments" in next(expressions, "") for _ in range(head.count("\x00"))):
        findings.fault(
            "bad_url",
            pointer,
            "The host is chosen by the call's arguments.",
            "Write the host into the url; arguments belong into path, query and body.",
        )


def _headers(http: dict[str, Any], where: str, findings: Findings) -> dict[str, str]:
    headers = {}
    for name, value in _map(http, "headers", where, findings).items():
        pointer = f"{where}/headers/{escape(name)}"
        _header_name(name, pointer, findings)
        if not isinstance(value, str):
            findings.wrong_type(pointer, "a header is text", value, "Put it in quotes.")
        elif any(letter in value for letter in "\r\n"):
            findings.fault("bad_header", pointer, "A header is one line.", "Remove the line break; use > or quotes.")
        else:
            headers[name] = value
    return headers


def _header_name(name: str, pointer: str, findings: Findings) -> None:
    if not _HEADER.fullmatch(name):
        fix = "Use letters, digits and -: X-Request-Id"
        findings.fault("bad_header", pointer, f"`{shown(name)}` is not a name for a header.", fix)
    elif name.lower() in _RESERVED_HEADERS or name.lower().startswith("surefoot-"):
        findings.fault("bad_header", pointer, f"`{name}` is set by Surefoot itself.", "Remove it.")


def _map(owner: dict[str, Any], key: str, pointer: str, findings: Findings) -> dict[str, Any]:
    value = owner.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        findings.wrong_type(f"{pointer}/{key}", f"`{key}` is a map", value, f"Write {key}: {{name: …}}")
        return {}
    return value
