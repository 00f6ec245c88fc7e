"""What a verb of the engine works with: built once per process by `app/bootstrap.py`, passed first to every verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from app.domain.breakers import Advice
from app.domain.dependencies import NO_CREDENTIAL
from app.domain.rules import Rules
from app.engine.conversations import Conversations
from app.engine.definitions import Definitions
from app.engine.gather import Gatherer
from app.engine.lease import Lease
from app.engine.plans import Plans
from app.engine.seen import Seen
from app.ports.marker import Marker
from app.ports.outbound import OutboundPolicy
from app.ports.partial_texts import PartialReader, PartialTexts
from app.ports.settled_hints import SettledHints
from app.ports.world import Bell, Feed, ModelPort, ToolLister, ToolPort, WebhookPort
from app.settings import Settings
from app.store.claims import Claimed
from app.store.database import Database

if TYPE_CHECKING:  # they work with services themselves
    from app.engine import accept
    from app.engine.claim import Asked
    from app.engine.depend import Report
    from app.engine.follow import Settled
    from app.engine.sending import Watch
    from app.engine.submission import Submitted

TellSettled = Callable[[Sequence[UUID]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A call that is claimed, and is to be performed."""

    claimed: Claimed
    worker_id: UUID
    """The incarnation it was claimed under."""
    before_claim: float
    """Boot time before the transaction that claimed it: its deadline counts from here."""


@dataclass(kw_only=True, slots=True)
class Services:
    settings: Settings
    database: Database
    bell: Bell
    plans: Plans
    rules: Rules
    outbound: OutboundPolicy
    tools: ToolPort | None = None
    lister: ToolLister | None = None
    """Asks MCP servers what tools they have."""
    models: ModelPort | None = None
    webhooks: WebhookPort | None = None
    marker: Marker | None = None
    lease: Lease | None = None
    """Only in a worker process: who we are while we claim."""
    feed: Feed | None = None
    """Only in a worker process: its own pool."""
    ready: dict[UUID, Ready] = field(default_factory=dict)
    """Calls that were claimed with the record of the one before, until their task begins (`app/engine/follow.py`)."""
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
    credential: str = NO_CREDENTIAL
    """Which key this worker shows to model providers: the beginning of its SHA-256."""
    seen: Seen = field(default_factory=Seen)
    reports: Gatherer[Report, Advice | None] | None = None
    """Outcomes that say something about what was called, gathered like those that are recorded."""
    watch: Watch | None = None
    """The attempts of this process that are on their way."""
    conversations: Conversations = field(default_factory=Conversations)
    """Those that this process has sent, up to where it has: read and checked."""
    partials: PartialTexts | None = None
    """Only in a worker process: who is told what models are writing."""
    partial_reader: PartialReader | None = None
    """Only in an API process: who knows what models are writing."""
