"""Submissions for tests: as the API makes them, and judged as far as the accepting transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain import canonical, ids
from app.engine import definitions
from app.engine.accept import Asked
from app.engine.services import Services
from app.engine.submission import Submission
from tests.engine.world import tool

DEFINITION: dict[str, Any] = {
    "name": "one",
    "input": {"n": {"type": "integer", "default": 3}},
    "tools": {"do": tool("idempotent")},
    "steps": {"s": {"tool": "do", "with": {"n": "${{ input.n }}"}}},
}


def submission(
    definition: Any = DEFINITION, *, key: str = "k", given: Any = None, tenant: UUID = ids.DEFAULT_TENANT, **more: Any
) -> Submission:
    body = {"definition": definition, "input": given or {}}
    return Submission(
        tenant_id=tenant,
        key=key,
        fingerprint=canonical.digest(body),
        field_hashes={name: canonical.digest(value) for name, value in body.items()},
        definition=None if "text" in more else definition,
        definition_text=more.get("text"),
        source_name=more.get("source_name"),
        input=given or {},
        labels={},
        webhook=None,
        deadline=None,
        traceparent=None,
    )


async def judged(services: Services, wanted: Submission, *, given: Any = None) -> Asked:
    """`given`: an input that passed, whatever the schema says of it."""
    written, size = definitions.written_by(wanted)
    known = await definitions.known(services, wanted, written, size=size)
    return Asked(
        workflow_id=uuid7(), submission=wanted, known=known, given={"n": 3, **wanted.input} if given is None else given
    )
