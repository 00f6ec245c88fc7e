"""Accept a workflow: judge what was submitted, then write it (`accept.py`); answer a repetition with what it began.

A 202 means committed. Dies the process before the commit, nothing happened and the client's repetition starts it;
after it, the repetition finds the key. A twin in flight waits on the key's unique index, then replays.

What a key was used for goes before what is wrong with a body: a submission that is refused is first looked up by its
key (`replay`), so that a repetition is answered whatever has changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain import schemas
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.plan import Plan
from app.engine import accept, definitions
from app.engine.accept import Asked, ToolsChanged, differing
from app.engine.services import Services
from app.engine.submission import Submission, Submitted
from app.errors import IdempotencyKeyReused, InputInvalid, OutboundForbidden, RequestInProgress
from app.store import submissions
from app.store.submissions import ROUTE

__all__ = ["ROUTE", "Submission", "Submitted", "replay", "submit"]

TRIES: Final = 3
"""Times that tools may be registered between the check of one submission and its commit."""


async def submit(services: Services, submission: Submission) -> Submitted:
    """Raises DefinitionInvalid, InputInvalid, OutboundForbidden (nothing is stored), IdempotencyKeyReused,
    RequestInProgress."""
    written, size = definitions.written_by(submission)
    workflow_id = uuid7()
    for _ in range(TRIES):
        known = await definitions.known(services, submission, written, size=size)
        given = _input(known.plan, submission.input)
        _outbound(services, submission, known.forbidden)
        asked = Asked(workflow_id=workflow_id, submission=submission, known=known, given=given)
        try:
            return await accept.accept(services, asked)
        except ToolsChanged:
            services.definitions.forget(written)
    raise RequestInProgress("The tenant's tools are being registered anew all the time.", retry_after=1)


async def replay(
    services: Services, *, tenant_id: UUID, key: str, fingerprint: str, field_hashes: Mapping[str, str]
) -> Submitted | None:
    """What was begun with that key; None if it is free. Raises IdempotencyKeyReused."""
    async with services.database.hot("keys", size=2) as connection:
        found = await submissions.owners(connection, [(tenant_id, key)])
    owner = found.get((tenant_id, key))
    if owner is None:
        return None
    if owner.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            f"The key {key!r:.80} was used with another body.", faults=differing(owner.field_hashes, field_hashes)
        )
    return Submitted(workflow_id=owner.workflow_id, replayed=True)


def _input(plan: Plan, given: JSON) -> JSON:
    if plan.input_schema is None:
        return given
    filled = schemas.with_defaults(plan.input_schema, given)
    found = schemas.validate(plan.input_schema, filled)
    if found:
        raise InputInvalid(
            faults=[
                Fault(
                    code=error.keyword or "invalid",
                    pointer=error.pointer,
                    detail=error.message,
                    fix="Correct the value; the definition's `input` says what it wants.",
                )
                for error in found
            ]
        )
    return filled


def _outbound(services: Services, submission: Submission, forbidden: tuple[Fault, ...]) -> None:
    """`forbidden`: of the definition; the webhook's address is the submission's own."""
    hooks = [("/webhook/url", submission.webhook["url"])] if submission.webhook else []
    faults = [*definitions.private_addresses(services, iter(hooks)), *forbidden]
    if faults:
        raise OutboundForbidden(faults[0].detail, faults=faults)
