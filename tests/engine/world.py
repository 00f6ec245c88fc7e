"""A small world for engine tests: real Postgres, scripted ports, two workers that live only if told to."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from app.bootstrap import rules_of
from app.domain import canonical, ids
from app.domain.outcomes import Evidence, Failure, Outcome, Usage
from app.domain.states import AttemptOutcome, FailureKind, Lane
from app.engine import claim, perform, resolve, submit, sweep
from app.engine.lease import Lease
from app.engine.plans import Plans
from app.engine.services import Services
from app.ports.outbound import OutboundPolicy
from app.ports.world import MaySend, ModelRequest, ToolRequest
from app.settings import Settings
from app.store.database import Database
from tests.engine.outliving import outlive

_numbers = itertools.count(1)

Answer = Any
"""A JSON value (the tool's body), a Failure, an Outcome, or a callable of the request that gives one of them."""


def unknown(kind: FailureKind = FailureKind.TIMEOUT) -> Outcome:
    return Outcome(
        certainty=AttemptOutcome.UNKNOWN, failure=Failure(kind=kind, message="No answer within 1 s."), sent_after=0.001
    )


def not_sent(kind: FailureKind = FailureKind.NETWORK) -> Outcome:
    return Outcome(certainty=AttemptOutcome.NOT_SENT, failure=Failure(kind=kind, message="Connection refused."))


def refused(status: int = 404) -> Outcome:
    failure = Failure(kind=FailureKind.TOOL_ERROR, message=f"The tool answered {status}.", status_code=status)
    return Outcome(
        certainty=AttemptOutcome.FAILED, failure=failure, status_code=status, sent_after=0.001, received_after=0.002
    )


def rate_limited(seconds: float) -> Outcome:
    failure = Failure(
        kind=FailureKind.RATE_LIMITED, message="429", status_code=429, retry_after=timedelta(seconds=seconds)
    )
    return Outcome(certainty=AttemptOutcome.FAILED, failure=failure, status_code=429, sent_after=0.001)


def accepted() -> Outcome:
    """A 202 of a tool that tells its result later."""
    failure = Failure(kind=FailureKind.TIMEOUT, message="accepted (202)", status_code=202, detail={"pending": True})
    return Outcome(
        certainty=AttemptOutcome.UNKNOWN,
        failure=failure,
        evidence=Evidence(body=b"{}", media_type="application/json"),
        status_code=202,
        sent_after=0.001,
        received_after=0.002,
        pending=True,
    )


def ok(value: Any, *, usage: Usage | None = None) -> Outcome:
    evidence = Evidence(body=json.dumps(value).encode(), media_type="application/json")
    return Outcome(
        certainty=AttemptOutcome.SUCCEEDED,
        evidence=evidence,
        status_code=200,
        sent_after=0.001,
        received_after=0.002,
        usage=usage,
    )


def says(text: str, *, stop_reason: str = "end_turn", cost: int = 100) -> Outcome:
    """A model's final answer."""
    message = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop_reason,
    }
    return ok(message, usage=Usage(input_tokens=10, output_tokens=5, model="claude-haiku-5-5", cost_microusd=cost))


def uses(*tools: tuple[str, dict[str, Any]]) -> Outcome:
    """A model that asks for tools (wire names)."""
    content = [
        {"type": "tool_use", "id": f"toolu_{n}_{next(_numbers)}", "name": name, "input": arguments}
        for n, (name, arguments) in enumerate(tools)
    ]
    message = {"type": "message", "role": "assistant", "content": content, "stop_reason": "tool_use"}
    return ok(message, usage=Usage(input_tokens=10, output_tokens=5, model="claude-haiku-5-5", cost_microusd=100))


@dataclass
class ScriptedTools:
    """Answers in the order of the script, per tool; keeps a ledger of what left."""

    script: dict[str, list[Answer]] = field(default_factory=dict)
    ledger: list[ToolRequest] = field(default_factory=list)

    async def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        if not may_send():
            return not_sent(FailureKind.WORKER_LOST)
        self.ledger.append(request)
        answers = self.script.get(request.tool.name, [])
        answer = answers.pop(0) if answers else {"ok": True}
        if callable(answer):
            answer = answer(request)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, Outcome) else ok(answer)

    def sent(self, tool: str) -> list[ToolRequest]:
        return [request for request in self.ledger if request.tool.name == tool]


@dataclass
class ScriptedModel:
    answers: list[Any] = field(default_factory=list)
    requests: list[ModelRequest] = field(default_factory=list)

    async def send(self, request: ModelRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        if not may_send():
            return not_sent(FailureKind.WORKER_LOST)
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else "done"
        if callable(answer):
            answer = answer(request)
        return answer if isinstance(answer, Outcome) else says(answer)


@dataclass
class DeadBell:
    """A bell that nobody hears: what must happen, happens by the sweep."""

    rung: list[tuple[Lane, UUID]] = field(default_factory=list)
    broker_away: bool = False

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None:
        self.rung += [(lane, ref) for ref in ids]


class StillLease(Lease):
    """A lease that beats when told to."""

    async def start(self, *, within: float = 30.0) -> None:
        self._loop = asyncio.get_running_loop()
        with psycopg.connect(self._url, autocommit=True) as connection:
            self._register(connection)
            self._beat(connection)

    async def beat(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            self._beat(connection)
            if self.worker_id:
                self._register(connection)
        await asyncio.sleep(0)


@dataclass
class Worker:
    """One worker process' worth of services over the world's ports."""

    services: Services
    lease: StillLease

    async def run(self, call_id: UUID) -> None:
        await perform.perform(self.services, call_id)

    async def claim(self, call_id: UUID) -> Any:
        """Claim and die: what a SIGKILL between the intent and the answer leaves."""
        asked = claim.Asked(call_id=call_id, attempt_id=uuid7())
        [(claimed, _)] = await claim.claim(self.services, [asked])
        return claimed


class World:
    def __init__(self, database_url: str, **knobs: Any) -> None:
        self.url = database_url
        self.settings = Settings(database_url=database_url, outbound_allow="127.0.0.0/8", **knobs)
        self.tools = ScriptedTools()
        self.model = ScriptedModel()
        self.bell = DeadBell()
        self.databases: list[Database] = []

    def services(self, lease: Lease | None = None) -> Services:
        database = Database(self.url, pool_size=2)
        self.databases.append(database)
        return Services(
            settings=self.settings,
            database=database,
            bell=self.bell,
            plans=Plans(database),
            rules=rules_of(self.settings),
            outbound=OutboundPolicy.parse(self.settings.outbound_allow),
            tools=self.tools,
            models=self.model,
            lease=lease,
        )

    async def worker(self, name: str = "worker.1", *, lease_url: str | None = None) -> Worker:
        """`lease_url`: where its heartbeats go, if not over the world's own wire (they block the loop)."""
        lease = StillLease(
            lease_url or self.url,
            name=name,
            slots=10,
            lease=self.settings.lease,
            heartbeat=self.settings.heartbeat,
            margin=self.settings.fence_margin,
        )
        await lease.start()
        return Worker(services=self.services(lease), lease=lease)

    async def submit(self, definition: dict[str, Any], *, key: str = "k-1", input: Any = None, **more: Any) -> UUID:
        given = {"definition": definition, "input": input or {}}
        submission = submit.Submission(
            tenant_id=ids.DEFAULT_TENANT,
            key=key,
            fingerprint=canonical.digest(given),
            field_hashes={name: canonical.digest(value) for name, value in given.items()},
            definition=definition,
            definition_text=more.get("definition_text"),
            source_name=None,
            input=input or {},
            labels={},
            webhook=more.get("webhook"),
            deadline=more.get("deadline"),
            traceparent=None,
            budget=more.get("budget"),
            by=more.get("by", "sam"),
        )
        return (await submit.submit(self.api, submission)).workflow_id

    @property
    def api(self) -> Services:
        if not hasattr(self, "_api_services"):
            self._api_services = self.services()
        return self._api_services

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = await connection.execute(sql, values or None)
            return await cursor.fetchall() if cursor.description else []

    async def row(self, sql: str, *values: Any) -> dict[str, Any]:
        [row] = await self.rows(sql, *values)
        return row

    async def workflow(self, workflow_id: UUID) -> dict[str, Any]:
        return await self.row("SELECT * FROM workflows WHERE id = %s", workflow_id)

    async def due_calls(self) -> list[UUID]:
        due = "SELECT ref FROM dues d JOIN calls c ON c.id = ref AND state = 'due' WHERE d.kind = 'call'"
        return [row["ref"] for row in await self.rows(f"{due} AND due_at <= clock_timestamp() ORDER BY ref")]

    async def hurry(self) -> None:
        """Bring every backoff, quarantine of nobody's, forward: what would come with time comes now."""
        await self.rows("UPDATE dues SET due_at = clock_timestamp(), ring_at = clock_timestamp() WHERE kind = 'call'")

    async def run(self, worker: Worker, *, hurry: bool = True, rounds: int = 200) -> None:
        """Perform whatever is due until nothing is. Without hurry each call once: what is to be tried again waits,
        also if chance made its pause so short that it is due already."""
        tried: set[UUID] = set()
        for _ in range(rounds):
            if hurry:
                await outlive(self, worker)
            calls = [call for call in await self.due_calls() if hurry or call not in tried]
            if not calls:
                return
            tried.update(calls)
            await asyncio.gather(*(worker.run(call) for call in calls))
        raise AssertionError("the workflow does not come to rest")

    async def once(self, worker: Worker) -> None:
        """Perform what is due now or with time, each once; what follows from it waits."""
        await self.hurry()
        await asyncio.gather(*(worker.run(call) for call in await self.due_calls()))

    async def ripen(self, worker: Worker, kind: str) -> None:
        """The time of every due of that kind comes, and the sweep finds it."""
        await self.rows("UPDATE dues SET due_at = clock_timestamp(), ring_at = clock_timestamp() WHERE kind = %s", kind)
        await self.sweep(worker)

    async def lose(self, worker: Worker, *, proof: bool = False) -> None:
        """The worker is gone: its lease is over and the sweep says so, or its parent waited for it (`proof`)."""
        reaped = "clock_timestamp()" if proof else "NULL"
        await self.rows(
            f"UPDATE workers SET lost_at = clock_timestamp(), reaped_at = {reaped}, lease_until = clock_timestamp() "
            "WHERE id = %s",
            worker.lease.worker_id,
        )

    async def silence(self) -> None:
        """Let every send deadline and every lease of the lost be over."""
        await self.rows("UPDATE attempts SET send_deadline = clock_timestamp() - interval '1 ms' WHERE outcome IS NULL")
        await self.rows(
            "UPDATE workers SET lease_until = clock_timestamp() - interval '1 ms' WHERE lost_at IS NOT NULL"
        )
        await self.rows(
            "UPDATE dues d SET kind = 'attempt', worker = a.worker, ring_at = clock_timestamp() FROM attempts a JOIN "
            "calls c ON c.id = a.call_id AND c.attempt_id = a.id WHERE c.state = 'intended' AND d.ref = c.id"
        )

    async def end_quarantines(self) -> None:
        await self.rows(
            "UPDATE calls SET not_before = clock_timestamp() - interval '1 ms' WHERE not_before IS NOT NULL"
        )

    async def sweep(self, worker: Worker) -> sweep.Swept:
        return await sweep.sweep(worker.services, free_slots=10)

    async def events(self, workflow_id: UUID) -> list[str]:
        found = await self.rows("SELECT type FROM events WHERE workflow_id = %s ORDER BY seq", workflow_id)
        return [row["type"] for row in found]

    async def call(self, workflow_id: UUID, step: str, n: int = 1) -> dict[str, Any]:
        return await self.row(
            "SELECT * FROM calls WHERE workflow_id = %s AND step = %s AND n = %s", workflow_id, step, n
        )

    async def step(self, workflow_id: UUID, path: str) -> dict[str, Any]:
        return await self.row("SELECT * FROM steps WHERE workflow_id = %s AND path = %s", workflow_id, path)

    async def close(self) -> None:
        for database in self.databases:
            await database.close()


Make = Callable[..., World]


@asynccontextmanager
async def world(database_url: str, **knobs: Any) -> AsyncIterator[World]:
    made = World(database_url, **knobs)
    try:
        yield made
    finally:
        await made.close()


def tool(effect: str, **more: Any) -> dict[str, Any]:
    declared = {
        "description": "A tool.",
        "http": {"method": "POST", "url": "http://127.0.0.1:9/do"},
        "effect": effect,
        "timeout": "5s",
        "settle_time": "10s",
        **more,
    }
    if effect == "keyed":
        declared = {"key_header": "Idempotency-Key", "key_ttl": "24h", **declared}
    return declared


def one(effect: str, *, key: str | None = None, **more: Any) -> dict[str, Any]:
    step: dict[str, Any] = {"tool": "do", "with": {"n": 1}}
    if key is not None:
        step["idempotency_key"] = key
    return {"name": "one", "tools": {"do": tool(effect, **more)}, "steps": {"s": step}}


def probed(
    effect: str = "checkable", *, step: dict[str, Any] | None = None, probe: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """One call of a tool that another one, `look`, can be asked about."""
    asks = {"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.found", **(probe or {})}
    definition = one(effect, probe=asks, **more)
    definition["tools"]["look"] = tool("read_only")
    definition["steps"]["s"] |= step or {}
    return definition


async def settle(world: World, workflow_id: UUID, outcome: str, **more: Any) -> None:
    call = await world.call(workflow_id, "s")
    await resolve.resolve(
        world.api,
        ids.DEFAULT_TENANT,
        call["id"],
        outcome=outcome,
        result=more.get("result"),
        note="looked",
        by="kim",
    )
