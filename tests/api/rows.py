"""Rows for reads: one workflow with everything a GET can show, written as the engine would have written it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, insert, text
from uuid_utils.compat import uuid7

from app.domain import api_keys, canonical, ids
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check
from app.domain.ids import DEFAULT_TENANT
from app.store import tables
from app.store.database import Database

BEGAN = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
DEFINITION: dict[str, Any] = {
    "name": "meeting",
    "tools": {
        "calendar.create_event": {
            "http": {"method": "POST", "url": "https://calendar.example.com/events"},
            "effect": "keyed",
            "key_header": "Idempotency-Key",
            "key_ttl": "24h",
        }
    },
    "agents": {"planner": {"model": "claude-x", "instructions": "Plan.", "tools": ["calendar.create_event"]}},
    "steps": {
        "plan": {"agent": "planner", "prompt": "Plan it."},
        "create": {"tool": "calendar.create_event", "with": {"title": "x"}, "needs": ["plan"]},
        "ask": {"approval": {"title": "Send?"}, "needs": ["create"]},
    },
}
PLAN = check(DEFINITION, lines={}, source_name=None, catalogue=Catalogue()).plan_body


@dataclass(frozen=True, kw_only=True)
class Key:
    text: str
    public_id: str
    tenant_id: UUID

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}


async def write(database: Database, table: Table, **values: Any) -> None:
    async with database.reading() as connection:
        await connection.execute(insert(table).values(**values))


async def change(database: Database, statement: str, **values: Any) -> None:
    async with database.reading() as connection:
        await connection.execute(text(statement), values)


async def tenant(database: Database, *, tenant_id: UUID = DEFAULT_TENANT) -> UUID:
    await write(database, tables.tenants, id=tenant_id, name="test", signing_secrets=["whsec_" + "QUJD" * 8])
    return tenant_id


async def key(
    database: Database,
    *,
    tenant_id: UUID = DEFAULT_TENANT,
    seed: int = 1,
    scopes: tuple[str, ...] = api_keys.SCOPES,
    expires_at: datetime | None = None,
) -> Key:
    made = api_keys.new_key("test", bytes([seed]) * api_keys.RANDOM_BYTES)
    await write(
        database,
        tables.api_keys,
        id=uuid7(),
        tenant_id=tenant_id,
        public_id=made.public_id,
        sha256=made.sha256,
        name="test",
        scopes=list(scopes),
        expires_at=expires_at,
    )
    return Key(text=made.text, public_id=made.public_id, tenant_id=tenant_id)


async def workflow(database: Database, *, tenant_id: UUID = DEFAULT_TENANT, **changed: Any) -> UUID:
    """A running workflow with one open call, unless `changed` says otherwise."""
    workflow_id: UUID = changed.pop("id", None) or uuid7()
    async with database.reading() as connection:
        await connection.execute(
            text("INSERT INTO plans (tenant_id, digest, body) VALUES (:t, 'sha256:plan', :b) ON CONFLICT DO NOTHING"),
            {"t": tenant_id, "b": json.dumps(PLAN)},
        )
    values: dict[str, Any] = {
        "name": "meeting",
        "definition_digest": "sha256:definition",
        "plan_digest": "sha256:plan",
        "engine_version": 1,
        "status": "running",
        "idempotency_key": str(workflow_id),
        "input": {"who": "Ana"},
        "labels": {},
        "last_seq": 2,
        "revision": 2,  # decided about since it was accepted
        "steps_total": 2,
        "steps_open": 2,
        "open_calls": 1,
        "deadline_at": BEGAN + timedelta(days=7),
        "created_at": BEGAN,
        "started_at": BEGAN,
        "updated_at": BEGAN,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    await write(database, tables.workflows, id=workflow_id, tenant_id=tenant_id, **values | changed)
    return workflow_id


async def step(database: Database, workflow_id: UUID, path: str, **changed: Any) -> None:
    values: dict[str, Any] = {
        "tenant_id": DEFAULT_TENANT,
        "name": path.partition(".")[0],
        "position": 0,
        "kind": "tool",
        "state": "running",
        "unmet_needs": 0,
        "started_at": BEGAN,
    }
    await write(database, tables.steps, workflow_id=workflow_id, path=path, **values | changed)


async def call(database: Database, workflow_id: UUID, step_path: str, **changed: Any) -> UUID:
    call_id: UUID = changed.pop("id", None) or uuid7()
    values: dict[str, Any] = {
        "tenant_id": DEFAULT_TENANT,
        "n": 1,
        "kind": "tool",
        "tool": "calendar.create_event",
        "args_sha256": "0" * 64,
        "effect": "keyed",
        "state": "due",
        "request": {"tool": "calendar.create_event", "arguments": {"title": "x"}, "business_key": None},
        "key": "meeting:7731",
        "timeout_ms": 30_000,
        "settle_ms": 60_000,
        "lane": "calls",
        "engine_version": 1,
        "created_at": BEGAN,
    }
    await write(database, tables.calls, workflow_id=workflow_id, id=call_id, step=step_path, **values | changed)
    return call_id


async def attempt(database: Database, workflow_id: UUID, call_id: UUID, **changed: Any) -> UUID:
    attempt_id: UUID = uuid7()
    values: dict[str, Any] = {
        "tenant_id": DEFAULT_TENANT,
        "n": 1,
        "worker": uuid7(),
        "intended_at": BEGAN,
        "sent_at": BEGAN,
        "received_at": BEGAN + timedelta(seconds=1),
        "send_deadline": BEGAN + timedelta(seconds=30),
        "outcome": "succeeded",
    }
    await write(database, tables.attempts, workflow_id=workflow_id, call_id=call_id, id=attempt_id, **values | changed)
    return attempt_id


async def payload(database: Database, workflow_id: UUID, body: bytes) -> str:
    sha256 = canonical.sha256_hex(body)
    await write(
        database,
        tables.payloads,
        workflow_id=workflow_id,
        sha256=sha256,
        tenant_id=DEFAULT_TENANT,
        body=body,
        size=len(body),
    )
    return sha256


async def approval(database: Database, workflow_id: UUID, step_path: str, **changed: Any) -> UUID:
    approval_id: UUID = changed.pop("id", None) or uuid7()
    values: dict[str, Any] = {
        "tenant_id": DEFAULT_TENANT,
        "kind": "step",
        "status": "open",
        "title": "Send the invitations?",
        "show": {"to": ["ana@example.com"]},
        "allow": ["approve", "reject"],
        "created_at": BEGAN,
    }
    await write(database, tables.approvals, workflow_id=workflow_id, id=approval_id, step=step_path, **values | changed)
    return approval_id


async def event(database: Database, workflow_id: UUID, seq: int, kind: str, **changed: Any) -> None:
    values: dict[str, Any] = {"tenant_id": DEFAULT_TENANT, "data": {}, "at": BEGAN}
    await write(database, tables.events, workflow_id=workflow_id, seq=seq, id=uuid7(), type=kind, **values | changed)


def path(workflow_id: UUID, rest: str = "") -> str:
    return f"/v1/workflows/{ids.encode('wf', workflow_id)}{rest}"


async def story(database: Database) -> UUID:
    """A workflow with an agent step that was repaired, an effect in doubt, and an open approval."""
    workflow_id = await workflow(
        database, status="waiting", open_calls=0, doubts=1, waits=1, retries=1, attention=["outcome_unknown"]
    )
    await step(database, workflow_id, "plan", kind="agent", state="succeeded", ended_at=BEGAN, calls=2)
    await step(database, workflow_id, "create", position=1, calls=1)
    await step(database, workflow_id, "ask", position=2, kind="approval", state="waiting", title="Send?")
    await write(
        database,
        tables.messages,
        workflow_id=workflow_id,
        step="plan",
        conversation=0,
        ordinal=0,
        tenant_id=ids.DEFAULT_TENANT,
        role="user",
        turn=0,
        body=b'{"role":"user","content":"Plan it."}',
    )
    record = {
        "kind": "malformed_output",
        "rule": "malformed_output",
        "source": "default",
        "line": None,
        "change": "format_reminder",
        "diff": None,
        "waited_ms": 260,
        "result": "succeeded",
        "attempt": 1,
    }
    first = await call(
        database, workflow_id, "plan", kind="model", tool=None, effect="read_only", key=None, state="failed",
        ended_at=BEGAN, attempts=1, recovery=[record],
        request={"model": "claude-x", "max_tokens": 64, "effort": None, "conversation": 0, "messages": 1},
    )  # fmt: skip
    body = b'{"content":[{"type":"text","text":"no json"}]}'
    await attempt(
        database, workflow_id, first, outcome="failed", failure={"kind": "malformed_output", "message": "m"},
        status_code=200, evidence=await payload(database, workflow_id, body), media_type="application/json",
        usage={"input_tokens": 10, "output_tokens": 5}, cost_microusd=12_100,
    )  # fmt: skip
    doubt = await call(
        database, workflow_id, "create", state="in_doubt", attempts=1, doubt_since=BEGAN,
        not_before=BEGAN + timedelta(minutes=1), result={"event": 7},
    )  # fmt: skip
    await attempt(database, workflow_id, doubt, outcome="unknown", received_at=None,
                       failure={"kind": "timeout", "message": "no answer"})  # fmt: skip
    await approval(database, workflow_id, "ask")
    for seq in range(1, 6):
        await event(database, workflow_id, seq, "workflow.accepted", to_state="running")
    return workflow_id
