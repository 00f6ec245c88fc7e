"""The switch at 2 AM: hold every call of a tool, a model or the tenant, and release them.

    hold       a row; from its commit on no such call is claimed: one that is due is held(operator) when it would be
    hold_call  the worker that found the switch holds the call, unless it was released meanwhile
    release    the row goes, and what it held is due again within a sweep

What is in flight is finished: nothing can call back what has left.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.facts import SwitchedOff
from app.engine import transactions
from app.engine.advance import Advanced, advance, ring
from app.engine.services import Services
from app.errors import InvalidValue
from app.store import switches
from app.store.switches import Switch

__all__ = ["Switch", "hold", "hold_call", "listed", "release"]

_SCOPE: Final = re.compile(r"tenant|(tool|model):[^\s:][^\s]{0,199}")


async def hold(services: Services, tenant_id: UUID, *, scope: str, reason: str | None, by: str) -> datetime:
    """Since when it is held; the same again changes nothing. Raises InvalidValue."""
    _check(scope)

    async def work(connection: transactions.Connection) -> datetime:
        return await switches.hold(connection, tenant_id=tenant_id, scope=scope, reason=reason, by=by, audit_id=uuid7())

    return await transactions.run(services.database, "operate", work, size=services.settings.pool_size)


async def hold_call(services: Services, tenant_id: UUID, workflow_id: UUID, found: SwitchedOff) -> None:
    """The switch's row is locked first: a release either comes before, then the call stays due, or wakes it after."""

    async def work(connection: transactions.Connection) -> Advanced:
        if not await switches.stands(connection, tenant_id=tenant_id, scope=found.scope):
            return Advanced()
        return await advance(services, connection, {workflow_id: [found]})

    ring(services, await transactions.run(services.database, "expire", work, size=services.settings.pool_size))


async def release(services: Services, tenant_id: UUID, *, scope: str, by: str) -> int:
    """How many calls it held. A scope that is not held: 0. Raises InvalidValue."""
    _check(scope)

    async def work(connection: transactions.Connection) -> int:
        return await switches.release(connection, tenant_id=tenant_id, scope=scope, by=by, audit_id=uuid7())

    return await transactions.run(services.database, "operate", work, size=services.settings.pool_size)


async def listed(services: Services, tenant_id: UUID) -> list[Switch]:
    async def work(connection: transactions.Connection) -> list[Switch]:
        return await switches.listed(connection, tenant_id=tenant_id)

    return await transactions.run(services.database, "operate", work, size=services.settings.pool_size)


def _check(scope: str) -> None:
    if not _SCOPE.fullmatch(scope):
        raise InvalidValue(
            f"There is no scope {scope!r:.80}.", fix="Name tool:<name>, model:<id or alias>, or tenant for everything."
        )
