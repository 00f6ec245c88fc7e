"""What the tests of definitions share: a catalogue with the demo tools, and the shortest way to a check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.domain.definition.catalogue import Catalogue, Checked
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.plan import Plan
from app.embedded.tool_declarations import declarations

EXAMPLES = Path(__file__).parents[2] / "examples"
CATALOGUE = Catalogue(
    tools=declarations("https://tools.example.com"), models={"fast": "claude-fast-1", "smart": "claude-smart-1"}
)
KEYED: dict[str, Any] = {
    "http": {"method": "POST", "url": "https://x.io/e"},
    "effect": "keyed",
    "key_header": "Idempotency-Key",
    "key_ttl": "24h",
}
TOOL: dict[str, Any] = {"http": {"method": "POST", "url": "https://x.io/e"}, "effect": "idempotent"}
READ: dict[str, Any] = {"http": {"method": "GET", "url": "https://x.io/e"}}
MAIL: dict[str, Any] = {"to": {"type": "string"}, "subject": {"type": "string"}}
PROBE: dict[str, Any] = {
    "tool": "search",
    "with": {"to": "${{ arguments.to }}"},
    "found": "output.messages.exists(m, m.subject == arguments.subject)",
}
SEARCH: dict[str, Any] = {**READ, "input_schema": {"to": {"type": "string"}}}
"""What PROBE asks."""
CHECKABLE: dict[str, Any] = {
    "http": {"method": "POST", "url": "https://x.io/send"},
    "input_schema": MAIL,
    "effect": "checkable",
    "probe": PROBE,
}


def checked(steps: Any, **top: Any) -> Checked:
    return check({"name": "x", "steps": steps, **top}, catalogue=CATALOGUE)


def found(result: Checked) -> list[tuple[str, str]]:
    return [(fault.code, fault.pointer) for fault in result.faults]


def plan_of(steps: Any, **top: Any) -> Plan:
    """The plan of a definition in which nothing is wrong."""
    result = checked(steps, **top)
    assert result.faults == ()
    assert result.plan_body is not None
    return compile_plan(result.plan_body)
