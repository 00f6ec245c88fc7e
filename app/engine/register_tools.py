"""Register tools for a tenant, so that definitions may name them without declaring them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from app.domain import canonical, ids, schemas
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check_declaration
from app.domain.outcomes import JSON
from app.engine import transactions
from app.errors import DefinitionInvalid
from app.store import plans
from app.store.database import Database


async def register_tools(
    database: Database, declarations: Mapping[str, JSON], *, tenant_id: UUID = ids.DEFAULT_TENANT
) -> None:
    """Name → declaration in the definition's format; DefinitionInvalid for one that has faults.

    A workflow that runs has pinned what it uses: nothing changes it.
    """
    faults = [
        replace(fault, pointer=f"/{schemas.escape(name)}{fault.pointer}")
        for name, declaration in declarations.items()
        for fault in check_declaration(name, declaration, catalogue=Catalogue())
    ]
    if faults:
        raise DefinitionInvalid(faults=faults)
    rows = {name: (canonical.digest(declaration), declaration) for name, declaration in declarations.items()}

    async def work(connection: transactions.Connection) -> None:
        await plans.put_tools(connection, tenant_id, rows)

    await transactions.run(database, "bootstrap", work)
