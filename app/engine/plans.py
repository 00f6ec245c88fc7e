"""Compiled plans by digest, kept per process: a plan never changes, so it is read and compiled once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from uuid import UUID

from app.domain.definition.compiling import compile_plan
from app.domain.plan import Plan
from app.store import plans as rows
from app.store.database import Database

KEPT: Final = 500
"""Plans held in one process; a plan of ten steps takes some 50 KB."""


class Plans:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[tuple[UUID, str], Plan] = OrderedDict()

    def keep(self, tenant_id: UUID, plan: Plan) -> Plan:
        self._kept[(tenant_id, plan.digest)] = plan
        self._kept.move_to_end((tenant_id, plan.digest))
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return plan

    def known(self, tenant_id: UUID, digest: str) -> Plan | None:
        """The plan of that digest, if this process has it."""
        return self._kept.get((tenant_id, digest))

    async def get(self, tenant_id: UUID, digest: str) -> Plan:
        """The plan of that digest; read on a connection of its own if this process has not seen it."""
        kept = self._kept.get((tenant_id, digest))
        if kept is not None:
            return self.keep(tenant_id, kept)
        async with self._database.hot("plans") as connection:
            body = await rows.body(connection, tenant_id, digest)
        return self.keep(tenant_id, compile_plan(body))
