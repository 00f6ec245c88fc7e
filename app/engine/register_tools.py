"""Register tools for a tenant, so that definitions may name them without declaring them."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from app.domain import canonical, ids
from app.domain.outcomes import JSON
from app.engine import transactions
from app.store import plans
from app.store.database import Database


async def register_tools(
    database: Database, declarations: Mapping[str, JSON], *, tenant_id: UUID = ids.DEFAULT_TENANT
) -> None:
    """Name → declaration in the definition's format. A workflow that runs has pinned what it uses: nothing changes it."""
    rows = {name: (canonical.digest(declaration), declaration) for name, declaration in declarations.items()}

    async def work(connection: transactions.Connection) -> None:
        await plans.put_tools(connection, tenant_id, rows)

    await transactions.run(database, "bootstrap", work)
