"""MCP servers of a file asked for their tools from here, so that their lists are frozen before anything uses them.

For `surefoot tool register` and `surefoot tool check`: both are typed by a person at a terminal, who may start programs
and reach hosts that workers may not.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from app.cli import logs_aside
from app.cli.exits import UNREACHABLE, Stop
from app.domain.definition import compiling, servers
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings
from app.domain.outcomes import JSON
from app.domain.servers import McpServer
from app.settings import Settings


def with_list(name: str, declaration: Mapping[str, JSON], *, settings: Settings) -> dict[str, JSON]:
    """The declaration with its server's tools under `listed`. Raises `Stop`."""
    findings = Findings(lines={})
    declared = {key: value for key, value in declaration.items() if key != "listed"}
    server = servers.check_server(name, declared, "", findings=findings, catalogue=Catalogue())
    if findings.faults:
        fault = findings.faults[0]
        raise Stop(f"{name}{fault.pointer}: {fault.detail}", fix=fault.fix)
    place = compiling.server_of(name, server["place"], server["timeout_ms"])
    with logs_aside.on_stderr():
        return {**declared, "listed": asyncio.run(_asked(place, settings))}


async def _asked(server: McpServer, settings: Settings) -> list[dict[str, Any]]:
    from app.embedded.parts import OUTBOUND_DEFAULT
    from app.ports.addresses import OutboundPolicy
    from app.ports.mcp_tools import McpTools

    named = "SUREFOOT_OUTBOUND_ALLOW" in os.environ
    port = McpTools(
        OutboundPolicy.parse(settings.outbound_allow if named else OUTBOUND_DEFAULT),
        secrets=settings.secrets,
        response_limit=settings.definition_limit,
        commands=frozenset({"*"}),
        where="this machine",
    )
    outcome = await port.discover(server, seconds=server.timeout.total_seconds(), may_send=lambda: True)
    if outcome.failure is not None:
        raise Stop(outcome.failure.message, fix=outcome.failure.fix, code=UNREACHABLE)
    evidence = outcome.evidence
    if evidence is None or evidence.truncated:
        raise Stop(f"The list of {server.name} is too long to be registered.", fix="Name what is needed: include: […]")
    found: list[dict[str, Any]] = json.loads(evidence.body)["tools"]
    return found
