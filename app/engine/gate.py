"""The gate once more, after the claim and before the first byte: are these the bytes that a person approved?

The domain holds the call and releases it (`app/domain/gating.py`). This is for a request that was changed in the
database after the word was given, and for any way around the gate that nobody has thought of. A tool that asks nobody
costs nothing here.
"""

from __future__ import annotations

from typing import Final

import structlog

from app.domain import gating
from app.domain.outcomes import Failure, Outcome
from app.domain.plan import Tool
from app.domain.states import AttemptOutcome, CallKind, FailureKind
from app.engine.services import Services
from app.store import approved
from app.store.claims import Claimed

log = structlog.get_logger(__name__)

CONNECTIONS: Final = 2


async def shut(services: Services, claimed: Claimed, tool: Tool) -> Outcome | None:
    """Why the claimed call is not sent, or None."""
    if tool.approve == "never" or claimed.kind == CallKind.PROBE:
        return None
    async with services.database.hot("gate", size=CONNECTIONS) as connection:
        word = await approved.word(connection, workflow_id=claimed.workflow_id, call_id=claimed.call_id)
    if gating.may_be_sent(tool, claimed.request["arguments"], asked=word.asked, approved=word.approved):
        return None
    log.error("gate.not_approved", tool=tool.name, asked=word.asked)
    failure = Failure(
        kind=FailureKind.INTERNAL,
        message=f"Nobody has approved {tool.name} with the arguments that are stored; nothing was sent.",
        fix="Find out who changed the stored request; POST …/retry asks a person again.",
    )
    return Outcome(certainty=AttemptOutcome.NOT_SENT, failure=failure)
