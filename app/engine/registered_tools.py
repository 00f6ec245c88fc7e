"""Registered tools through the API: listed, put, removed. What is put is judged as in a definition.

An MCP server's list of tools is not asked for here, because nothing in a request of the API goes out to others: whoever
registers brings it along (`listed`, which `surefoot tool register` asks the server for), or each workflow asks anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain import canonical
from app.domain.definition.checking import check_declaration
from app.domain.outcomes import JSON
from app.engine import definitions, transactions
from app.engine.services import Services
from app.errors import DefinitionInvalid, NotFound, OutboundForbidden
from app.store import plans, tools
from app.store.tools import Registered

__all__ = ["Registered", "listed", "put", "remove"]


async def listed(services: Services, tenant_id: UUID) -> list[Registered]:
    async with services.database.hot("tools", size=2) as connection:
        return await tools.listed(connection, tenant_id)


async def put(
    services: Services, tenant_id: UUID, *, name: str, declaration: Mapping[str, JSON], by: str
) -> Registered:
    """Register it, or replace what has that name. Raises DefinitionInvalid, OutboundForbidden."""
    faults = check_declaration(name, dict(declaration), catalogue=definitions.catalogue(services, {}))
    if faults:
        raise DefinitionInvalid(faults=faults)
    forbidden = [
        replace(fault, pointer=fault.pointer.removeprefix("/definition/tools").partition("/")[2].partition("/")[2])
        for fault in definitions.forbidden(services, {"tools": {name: declaration}})
    ]
    if forbidden:
        raise OutboundForbidden(
            forbidden[0].detail, faults=[replace(each, pointer=f"/{each.pointer}") for each in forbidden]
        )
    digest = canonical.digest(dict(declaration))

    async def work(connection: transactions.Connection) -> Registered:
        await plans.put_tools(connection, tenant_id, {name: (digest, dict(declaration))})
        data = {"digest": digest}
        await tools.audit(
            connection, tenant_id=tenant_id, action="tool.put", name=name, by=by, data=data, audit_id=uuid7()
        )
        return next(each for each in await tools.listed(connection, tenant_id) if each.name == name)

    return await transactions.run(services.database, "operate", work, size=services.settings.pool_size)


async def remove(services: Services, tenant_id: UUID, *, name: str, by: str) -> None:
    """Raises NotFound."""

    async def work(connection: transactions.Connection) -> bool:
        return await tools.remove(connection, tenant_id=tenant_id, name=name, by=by, audit_id=uuid7())

    if not await transactions.run(services.database, "operate", work, size=services.settings.pool_size):
        raise NotFound(f"No tool {name!r:.80} is registered.", fix="GET /v1/tools lists them.")
