"""One-time tokens with which an asynchronous tool reports its result: made for one attempt, stored nowhere.

A token is HMAC-SHA256 (RFC 2104) over call and attempt with a secret of the installation. It is good once because
only an attempt without an outcome takes a result; the same result again is a replay.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final
from uuid import UUID

from app.engine import transactions
from app.engine.services import Services
from app.store import result_secret

PREFIX: Final = "srt_"
_DOMAIN: Final = b"surefoot/result-token/v1"
_SECRET_BYTES: Final = 32


async def make(services: Services, *, call_id: UUID, attempt_id: UUID) -> str:
    return PREFIX + attempt_id.hex + await _mac(services, call_id, attempt_id)


async def attempt_of(services: Services, *, call_id: UUID, token: str) -> UUID | None:
    """The attempt a token was made for; None if it is not one of ours for that call."""
    text = token.removeprefix(PREFIX)
    if not token.startswith(PREFIX) or len(text) != 96 or not text.isascii():
        return None
    try:
        attempt_id = UUID(hex=text[:32])
    except ValueError:
        return None
    expected = await _mac(services, call_id, attempt_id)
    return attempt_id if hmac.compare_digest(expected, text[32:]) else None


async def _mac(services: Services, call_id: UUID, attempt_id: UUID) -> str:
    message = b"\x1f".join((_DOMAIN, call_id.bytes, attempt_id.bytes))
    return hmac.new(await _secret(services), message, hashlib.sha256).hexdigest()


async def _secret(services: Services) -> bytes:
    """Read once in a process."""
    if services.result_secret is None:

        async def work(connection: transactions.Connection) -> str:
            return await result_secret.ensure(connection, secret=secrets.token_hex(_SECRET_BYTES))

        found = await transactions.run(services.database, "operate", work, size=services.settings.pool_size)
        services.result_secret = found.encode()
    return services.result_secret
