"""What a fresh database needs before anybody can use it: the tenant, its signing secret, a key."""

from __future__ import annotations

import secrets
from typing import Final

from uuid_utils.compat import uuid7

from app.domain import api_keys, ids
from app.engine import transactions
from app.ports.webhooks import new_secret
from app.store import tenants
from app.store.database import Database

TENANT_NAME: Final = "default"


async def ensure_first_key(database: Database, *, env: str = "live") -> str | None:
    """The tenant, and a key if there is none at all: its text, shown this once. None if somebody has a key already."""

    async def work(connection: transactions.Connection) -> bool:
        return await tenants.has_key(connection, ids.DEFAULT_TENANT)

    if await transactions.run(database, "bootstrap", work):
        return None
    key, _ = await ensure_tenant(database, env=env)
    return key


async def ensure_tenant(database: Database, *, env: str = "local") -> tuple[str, str]:
    """The tenant, made if it is not there, and a new key for it: (key text, webhook secret). The key is shown once
    and stored nowhere: keep it."""
    key = api_keys.new_key(env, secrets.token_bytes(api_keys.RANDOM_BYTES))

    async def work(connection: transactions.Connection) -> str:
        secret = await tenants.ensure(
            connection, tenant_id=ids.DEFAULT_TENANT, name=TENANT_NAME, signing_secret=new_secret()
        )
        await tenants.add_key(
            connection,
            key_id=uuid7(),
            tenant_id=ids.DEFAULT_TENANT,
            public_id=key.public_id,
            sha256=key.sha256,
            name=f"{env} key",
            scopes=list(api_keys.SCOPES),
        )
        return secret

    return key.text, await transactions.run(database, "bootstrap", work)
