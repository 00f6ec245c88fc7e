"""Ask an MCP server what tools it has: what a `discover` call sends. `domain/discovering.py` reads the answer."""

from __future__ import annotations

from app.domain.outcomes import Evidence, Outcome
from app.domain.plan import Plan
from app.domain.states import AttemptOutcome
from app.engine.sending import Sending
from app.engine.services import Services
from app.store.claims import Claimed


async def send_discovery(
    services: Services, plan: Plan, claimed: Claimed, sending: Sending, *, seconds: float
) -> Outcome:
    if services.lister is None:
        raise RuntimeError("this process asks no MCP server")
    server = plan.servers.get(claimed.request["server"])
    if server is None:  # another step's answer was pinned since: nobody looks at a second one
        evidence = Evidence(body=b'{"tools":[]}', media_type="application/json")
        return Outcome(certainty=AttemptOutcome.SUCCEEDED, evidence=evidence)
    return await services.lister.discover(server, seconds=seconds, may_send=sending.may_send)
