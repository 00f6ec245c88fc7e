"""What a verb of the engine works with: built once per process by `app/bootstrap.py`, passed first to every verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from app.domain.rules import Rules
from app.engine.definitions import Definitions
from app.engine.gather import Gatherer
from app.engine.lease import Lease
from app.engine.plans import Plans
from app.ports.marker import Marker
from app.ports.outbound import OutboundPolicy
from app.ports.settled_hints import SettledHints
from app.ports.world import Bell, ModelPort, ToolPort, WebhookPort
from app.settings import Settings
from app.store.database import Database

if TYPE_CHECKING:  # they work with services themselves
    from app.engine import accept
    from app.engine.perform import Asked
    from app.engine.record import Settled
    from app.engine.sending import Watch
    from app.engine.submission import Submitted
    from app.store.claims import Claimed

Feed = Callable[[UUID], bool]
TellSettled = Callable[[Sequence[UUID]], None]


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
    tell_settled: TellSettled | None = None
    """After a commit: these workflows ended or wait for a person. A hint for requests that are held until then."""
    settled_hints: SettledHints | None = None
    """Only in an API process: hears those hints."""
    claims: Gatherer[Asked, tuple[Claimed | None, bool]] | None = None
    outcomes: Gatherer[Settled, None] | None = None
    """Of this process, gathered into transactions; made by the first that needs them, on its event loop."""
    submissions: Gatherer[accept.Asked, Submitted] | None = None
    """The same for what clients submit."""
    definitions: Definitions = field(default_factory=Definitions)
    result_secret: bytes | None = None
    """What result tokens are made with, once it was read."""
    watch: Watch | None = None
    """The attempts of this process that are on their way."""
