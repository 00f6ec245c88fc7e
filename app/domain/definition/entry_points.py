"""A tool's `python`: the entry point of an installed distribution, written `<distribution>:<entry point name>`.

Both parts are there so that no package can take another's place. It is never a module path: what may be called is what
an installed distribution declares in the group `surefoot.tools`. Whether it is installed is known to the workers, and
told at each call.

Promises: a key that could change nothing for a function (it answers with no status, it is sent no header) is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from app.domain.definition.findings import Findings, shown
from app.domain.outcomes import JSON

CONTEXT: Final = "context"
"""The parameter of a function that gets its `ToolContext`; no argument can have that name."""

_SPELLING: Final = re.compile(
    r"(?P<distribution>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?):(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})"
)
"""A project name as packaging's core metadata wants it, and an entry point's name of the recommended letters."""
ISOLATE: Final = ("process", "never")
"""`process`: each call in a process of its own, which can be stopped and whose death is its own."""
_SEPARATORS: Final = re.compile(r"[-_.]+")

_OF_HTTP: Final[Mapping[str, str]] = {
    "key_header": "A function is sent no headers: it reads context.key, or the argument named by key_argument.",
    "on_5xx": "A function answers with no status: let it raise surefoot.NotExecuted where that is certain.",
    "on_3xx": "A function answers with no status: let it raise surefoot.NotExecuted where that is certain.",
    "on_408": "A function answers with no status: let it raise surefoot.NotExecuted where that is certain.",
    "on_repeat_status": "A function answers with no status: let it return what it finds done already.",
    "on_202": "A function answers with no status; a result that comes later needs an HTTP tool.",
    "result_within": "A function answers with no status; a result that comes later needs an HTTP tool.",
}


def check_python(
    tool: Mapping[str, Any], pointer: str, *, schema: Mapping[str, JSON] | None, findings: Findings
) -> dict[str, Any] | None:
    """The `python` of the declaration at `pointer` → the plan's form; None if it has none or it means nothing.

    `schema`: the full `input_schema`, None if it takes anything.
    """
    isolate = findings.choice(tool, "isolate", pointer, ISOLATE)
    if tool.get("python") is None:
        if tool.get("isolate") is not None:
            detail = "`isolate` belongs to python tools: they alone run inside a worker."
            findings.fault("misplaced_key", f"{pointer}/isolate", detail, "Remove it.")
        return None
    if tool.get("http") is not None:
        detail = "A tool is in one place: `http` and `python` are both there."
        findings.fault("several_kinds", pointer, detail, "Keep one of them.")
    for key, fix in _OF_HTTP.items():
        if tool.get(key) is not None:
            findings.fault("misplaced_key", f"{pointer}/{key}", f"`{key}` belongs to http tools.", fix)
    _reserved(tool, pointer, schema, findings)
    written = findings.text(tool, "python", pointer)
    spelling = None if written is None else _SPELLING.fullmatch(written)
    if spelling is None:
        if written is not None:
            findings.fault(
                "bad_entry_point",
                f"{pointer}/python",
                f"`{shown(written)}` is not <distribution>:<entry point name>.",
                "Write python: acme-tools:shout, for what acme-tools declares in the group surefoot.tools.",
            )
        return None
    where = {"distribution": normalised(spelling["distribution"]), "name": spelling["name"]}
    return {**where, "isolate": True} if isolate == "process" else where


def normalised(distribution: str) -> str:
    """One spelling for all of `Acme_Tools`, `acme.tools` and `acme-tools`, as package indexes compare names."""
    return _SEPARATORS.sub("-", distribution).lower()


def _reserved(tool: Mapping[str, Any], pointer: str, schema: Mapping[str, JSON] | None, findings: Findings) -> None:
    properties = (schema or {}).get("properties")
    detail = f"`{CONTEXT}` is the parameter that tells a function which call this is; no argument has that name."
    if isinstance(properties, dict) and CONTEXT in properties:
        findings.fault("bad_name", f"{pointer}/input_schema", detail, "Give the argument another name.")
    if tool.get("key_argument") == CONTEXT:
        fix = "Leave it out, and read context.key."
        findings.fault("bad_name", f"{pointer}/key_argument", detail, fix)
