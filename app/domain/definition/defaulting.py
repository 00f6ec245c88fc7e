"""`defaults` of a definition: what its agents and steps say unless they say otherwise.

    defaults: { agent: {…}, retry: {…}, timeout: 5m }

Promises: each key is judged once, where it is written; a step's or agent's own word stands above it, key by key.
`agent` is for every agent, `retry` for tool and agent steps, and so is `timeout`: a person's time is not meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.definition import agents, retrying, vocabulary
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings
from app.domain.outcomes import JSON

_POINTER: Final = "/defaults"
_TIMED: Final = ("tool", "agent")


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    agent: Mapping[str, Any] = field(default_factory=dict)
    retry: Mapping[str, Any] = field(default_factory=dict)
    timeout_ms: int | None = None

    def timeout_of(self, kind: str | None) -> int | None:
        """Of a step of that kind, in milliseconds."""
        return self.timeout_ms if kind in _TIMED else None


def check_defaults(
    value: JSON,
    *,
    tools: Mapping[str, JSON],
    servers: Mapping[str, JSON],
    findings: Findings,
    catalogue: Catalogue,
) -> Defaults:
    if value is None:
        return Defaults()
    said = findings.keys(value, vocabulary.DEFAULTS, _POINTER)
    agent: Mapping[str, Any] = {}
    if said.get("agent") is not None:
        agent = agents.check_defaults(
            said["agent"],
            f"{_POINTER}/agent",
            tools=tools,
            servers=servers,
            findings=findings,
            catalogue=catalogue,
        )
    return Defaults(
        agent=agent,
        retry=retrying.check_retry(said.get("retry"), f"{_POINTER}/retry", findings, catalogue=catalogue),
        timeout_ms=findings.duration(said, "timeout", _POINTER),
    )
