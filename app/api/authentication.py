"""Who asks: `Authorization: Bearer sf_…` → `Caller`, or 401; what they may do: scopes, or 403.

The key's text is hashed, its row found by its public id, the hashes compared in constant time. A valid key is
remembered for `REMEMBERED` seconds, so a revoked one works that much longer; an unknown one is never remembered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, cast
from uuid import UUID

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from app.api.context import services_of
from app.domain import api_keys
from app.engine.services import Services
from app.errors import Forbidden, Unauthorized
from app.store import tenant_views

REMEMBERED: Final = 5.0
"""Seconds. Saves a query per request; a revocation is felt within it."""
MOST_REMEMBERED: Final = 1024

BEARER = HTTPBearer(
    scheme_name="ApiKey", bearerFormat="sf_<env>_<id>_<secret>", description="An API key.", auto_error=False
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    tenant_id: UUID
    key: str
    """Public id of the key: what the log and `by` say."""
    scopes: frozenset[str]

    @property
    def name(self) -> str:
        return f"key:{self.key}"


class KnownKeys:
    """The keys seen lately, by their SHA-256."""

    def __init__(self) -> None:
        self._callers: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()

    async def recognise(self, services: Services, text: str) -> Caller:
        """Raises Unauthorized, without saying whether the key exists."""
        try:
            parsed = api_keys.parse(text)
        except api_keys.MalformedKey as malformed:
            raise Unauthorized(f"The API key is {malformed}.") from malformed
        now = asyncio.get_running_loop().time()
        remembered = self._callers.get(parsed.sha256)
        if remembered is not None and now < remembered[1]:
            return remembered[0]
        async with services.database.reading() as connection:
            known = await tenant_views.api_key(connection, public_id=parsed.public_id)
        if known is None or not api_keys.same_secret(known.sha256, parsed.sha256):
            raise Unauthorized("The API key is unknown, revoked or expired.")
        caller = Caller(tenant_id=known.tenant_id, key=known.public_id, scopes=known.scopes)
        left = REMEMBERED if known.valid_for is None else min(REMEMBERED, known.valid_for.total_seconds())
        self._callers[parsed.sha256] = (caller, now + left)
        self._callers.move_to_end(parsed.sha256)
        while len(self._callers) > MOST_REMEMBERED:
            self._callers.popitem(last=False)
        return caller


def needs(scope: str) -> Callable[..., Awaitable[Caller]]:
    """The dependency of a route: the caller, who has that scope."""

    async def caller(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
    ) -> Caller:
        if credentials is None:
            raise Unauthorized("The request carries no Authorization: Bearer header.")
        keys = cast(KnownKeys, request.app.state.known_keys)
        found = await keys.recognise(services_of(request), credentials.credentials)
        if not api_keys.allows(found.scopes, scope):
            raise Forbidden(f"This needs the scope {scope}; the key has {', '.join(sorted(found.scopes)) or 'none'}.")
        return found

    return caller
