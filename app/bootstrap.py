"""The only place that picks real adapters. Built once per process, on the event loop that everything runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from app.domain.rules import Rules
from app.engine.lease import Lease
from app.engine.plans import Plans
from app.engine.services import Services
from app.ports.bell import RedisBell
from app.ports.http_tools import HttpTools
from app.ports.isolated_tools import IsolatedTools
from app.ports.marker import Marker
from app.ports.mcp_commands import allowed_commands
from app.ports.mcp_tools import McpTools
from app.ports.model import ClaudeModel
from app.ports.outbound import OutboundPolicy
from app.ports.partial_texts import PartialReader, PartialTexts
from app.ports.python_tools import PythonTools
from app.ports.settled_hints import SettledHints
from app.ports.tools import Tools
from app.ports.webhooks import Webhooks
from app.settings import Settings
from app.store.database import Database


@dataclass(kw_only=True, slots=True)
class RealServices(Services):
    """Services with real adapters, and how to let go of them."""

    closing: list[Callable[[], Awaitable[object]]]

    async def warm(self) -> None:
        """Load what the first call would wait for: the model SDK takes seconds to import. Say which tools are here."""
        if isinstance(self.tools, Tools):
            await self.tools.python.warm()
        if isinstance(self.models, ClaudeModel):
            await self.models.warm()

    async def close(self) -> None:
        for close in self.closing:
            await close()


def rules_of(settings: Settings) -> Rules:
    """The numbers that decisions need."""
    return Rules(
        poison_after=settings.poison_after,
        items_limit=settings.items_limit,
        model_windows=settings.model_windows,
        breaker_failures=settings.breaker_failures,
        breaker_window=settings.breaker_window,
        breaker_open=settings.breaker_open,
        breaker_open_longest=settings.breaker_open_longest,
        retry_burst=settings.retry_burst,
        retry_rate=settings.retry_rate,
        retry_share=settings.retry_share,
    )


def build_services(settings: Settings, *, worker_name: str | None) -> RealServices:
    """`worker_name`: a worker process, with ports and a lease; None: an API process, which performs nothing."""
    policy = OutboundPolicy.parse(settings.outbound_allow)
    database = Database(
        settings.database_url, pool_size=settings.pool_size, statement_timeout=settings.statement_timeout
    )
    bell = RedisBell(settings.redis_url)
    services = RealServices(
        settings=settings,
        database=database,
        bell=bell,
        plans=Plans(database),
        rules=rules_of(settings),
        outbound=policy,
        tell_settled=bell.tell_settled,
        closing=[],
    )
    if worker_name is not None:
        _equip_worker(services, settings, worker_name)
    else:
        services.settled_hints = SettledHints(settings.redis_url)
        services.closing.append(services.settled_hints.aclose)
        if settings.partial_text:
            services.partial_reader = PartialReader(settings.redis_url)
            services.closing.append(services.partial_reader.aclose)
    services.closing += [partial(asyncio.to_thread, bell.close), database.close]
    return services


def _equip_worker(services: RealServices, settings: Settings, name: str) -> None:
    key = settings.anthropic_api_key
    tools = Tools(
        http=HttpTools(services.outbound, secrets=settings.secrets, response_limit=settings.response_limit),
        python=PythonTools(
            secrets=settings.secrets, response_limit=settings.response_limit, threads=settings.concurrency, where=name
        ),
        isolated=IsolatedTools(
            secrets=settings.secrets,
            response_limit=settings.response_limit,
            processes=settings.isolated_processes,
            memory=settings.isolated_memory,
            where=name,
        ),
        mcp=McpTools(
            services.outbound,
            secrets=settings.secrets,
            response_limit=settings.response_limit,
            commands=allowed_commands(settings.mcp_commands),
            where=name,
        ),
    )
    services.lister = tools
    models = ClaudeModel(base_url=settings.anthropic_base_url, api_key=None if key is None else key.get_secret_value())
    webhooks, marker = Webhooks(services.outbound), Marker(settings.redis_url)
    services.credential = models.credential
    services.tools, services.models, services.webhooks, services.marker = tools, models, webhooks, marker
    services.lease = Lease(
        settings.database_url,
        name=name,
        slots=settings.concurrency,
        lease=settings.lease,
        heartbeat=settings.heartbeat,
        margin=settings.fence_margin,
    )
    services.closing += [tools.aclose, models.close, webhooks.aclose, marker.aclose]
    if settings.partial_text:
        services.partials = PartialTexts(settings.redis_url)
        services.closing.append(partial(asyncio.to_thread, services.partials.close))
