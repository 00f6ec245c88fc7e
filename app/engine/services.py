"""What a verb of the engine works with: built once per process by `app/bootstrap.py`, passed first to every verb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from app.domain.rules import Rules
from app.engine.lease import Lease
from app.engine.plans import Plans
from app.ports.marker import Marker
from app.ports.outbound import OutboundPolicy
from app.ports.world import Bell, ModelPort, ToolPort, WebhookPort
from app.settings import Settings
from app.store.database import Database

Feed = Callable[[UUID], bool]


@dataclass(kw_only=True, slots=True)
class Services:
    settings: Settings
    database: Database
    bell: Bell
    plans: Plans
    rules: Rules
    outbound: OutboundPolicy
    tools: ToolPort | None = None
    models: ModelPort | None = None
    webhooks: WebhookPort | None = None
    marker: Marker | None = None
    lease: Lease | None = None
    """Only in a worker process: who we are while we claim."""
    feed: Feed | None = None
    """Only in a worker process: offers a call to its own pool; False if that has no room, then the bell rings."""
    gatherers: dict[str, object] = field(default_factory=dict)
    """Claims and outcomes of this process, gathered (`perform`, `record`)."""
