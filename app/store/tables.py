"""The tables, as SQLAlchemy Core metadata: what the migrations must produce (`make check` compares them).

uuid v7 keys, `timestamptz`, `jsonb` for what we wrote and validated, `json` where the order of keys is part of the
meaning (definitions, requests that are sent byte for byte), `bytea` for what the world sent. `tenant_id` is on every
table; every history table has `workflow_id` in its primary key, so that history can be range-partitioned by it. Columns
that change stand together and last: of an update Postgres logs what lies between the first and the last changed byte.
Names of constraints follow one convention. No index on a big table covers a column that changes: what changes often
lives in the narrow `dues`. The history of the hot path (steps, calls, attempts, messages, payloads, events) has no
foreign keys: only the one writer writes it, with ids it has just read under the workflow's lock, and each check costs a
query and a row lock (measured: a quarter of Postgres's time a step).

Lock order, everywhere: switch, breaker, limits → workflow → steps → calls → attempts → budgets → dues; several
workflows sorted by id.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB
from sqlalchemy.types import UserDefinedType

from app.domain import states

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Xid8(UserDefinedType[int]):
    """Postgres's 64-bit transaction id: the tenant feed reads below the snapshot's xmin and never skips."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


HOT: Final = {"fillfactor": 45}
"""Room on each page for the next version of every row. Rows that are written together change together (a batch of calls
is inserted, claimed and settled by one transaction each), so a page has to hold all of them twice: with 75 % a third of
the updates left their page under load, and each of those writes to every index again."""


def _at(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()"))


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default="0")


def _money(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _tenant() -> Column[object]:
    return Column("tenant_id", Uuid, nullable=False)


def _one_of(column: str, words: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{word.value}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _final(words: frozenset[StrEnum]) -> str:
    return ", ".join(f"'{word.value}'" for word in sorted(words))


tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("signing_secrets", ARRAY(Text), nullable=False),
    _now("created_at"),
    CheckConstraint("cardinality(signing_secrets) BETWEEN 1 AND 2", name="signing_secrets_one_or_two"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("public_id", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _now("created_at"),
    _at("expires_at"),
    _at("revoked_at"),
    UniqueConstraint("public_id"),
)

definitions = Table(
    "definitions",
    metadata,
    _tenant(),
    Column("digest", Text, nullable=False),
    Column("document", JSON, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("tenant_id", "digest"),
)

definition_versions = Table(
    "definition_versions",
    metadata,
    _tenant(),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("tenant_id", "name", "version"),
    ForeignKeyConstraint(["tenant_id", "digest"], ["definitions.tenant_id", "definitions.digest"]),
)

plans = Table(
    "plans",
    metadata,
    _tenant(),
    Column("digest", Text, nullable=False),
    Column("body", JSON, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("tenant_id", "digest"),
)

tools = Table(
    "tools",
    metadata,
    _tenant(),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("declaration", JSON, nullable=False),
    _now("updated_at"),
    PrimaryKeyConstraint("tenant_id", "name"),
)

workflows = Table(
    "workflows",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("version", Integer),
    Column("definition_digest", Text, nullable=False),
    Column("plan_digest", Text, nullable=False),
    Column("engine_version", Integer, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("submitted_by", Text, nullable=False, server_default=""),
    Column("input", JSONB, nullable=False),
    Column("compensation", Text),
    Column("labels", JSONB, nullable=False),
    Column("attention", ARRAY(Text), nullable=False, server_default="{}"),
    Column("webhook", JSONB),
    Column("cancel", JSONB),
    Column("traceparent", Text),
    _count("steps_total"),
    _count("waits"),
    _count("timers"),
    _count("doubts"),
    _count("held"),
    _count("retries"),
    _count("effects_undone"),
    _count("effects_abandoned"),
    _count("undos"),
    _count("undos_failed"),
    Column("pivot_passed", Boolean, nullable=False, server_default="false"),
    Column("saga", Text),
    _at("restored_to"),
    _count("duplicates_prevented"),
    Column("tools_disabled", JSONB),
    _money("spent_microusd"),
    _money("recovery_microusd"),
    Column("input_tokens", BigInteger, nullable=False, server_default="0"),
    Column("output_tokens", BigInteger, nullable=False, server_default="0"),
    Column("budgeted", Boolean, nullable=False, server_default="false"),
    _at("deadline_at", nullable=False),
    _at("created_at", nullable=False),
    _at("reopened_at"),
    Column("status", Text, nullable=False),
    Column("failure", JSONB),
    _at("started_at"),
    Column("output", JSONB),
    _count("steps_open"),
    _count("open_calls"),
    _count("effects_done"),
    _count("steps_done"),
    Column("last_seq", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    _at("updated_at", nullable=False),
    _at("ended_at"),
    _one_of("status", states.WorkflowStatus),
    CheckConstraint(
        f"(status IN ({_final(states.FINAL_STATUSES)})) = (ended_at IS NOT NULL)", name="final_has_ended_at"
    ),
    CheckConstraint(
        f"status IN ({_final(states.FINAL_STATUSES)}) "
        "OR open_calls + waits + timers + doubts + held + undos_failed > 0",
        name="something_wakes_it",
    ),
    CheckConstraint(
        f"status NOT IN ({_final(states.FINAL_STATUSES)}) OR open_calls + doubts + undos_failed = 0",
        name="final_is_settled",
    ),
    CheckConstraint(
        "open_calls >= 0 AND waits >= 0 AND timers >= 0 AND doubts >= 0 AND held >= 0 AND steps_open >= 0 "
        "AND undos >= 0 AND undos_failed >= 0",
        name="counters_not_negative",
    ),
    CheckConstraint("saga IN ('held', 'undo', 'keep')", name="saga_known"),
    CheckConstraint("(status = 'failed') <= (failure IS NOT NULL)", name="failed_says_why"),
    Index(None, "tenant_id", "id"),
    # What looks at every open workflow (the checker of orphans, doubts of a tenant) does not read the ended millions.
    Index("ix_workflows_open", "id", postgresql_where=text("ended_at IS NULL")),
    # What somebody looks for at night is rare: found without reading what went well. An update that changes neither
    # column writes to neither index.
    Index("ix_workflows_attention", "tenant_id", "id", postgresql_where=text("attention <> '{}'")),
    Index("ix_workflows_failure", "tenant_id", "id", postgresql_where=text("failure IS NOT NULL")),
    postgresql_with=HOT,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _tenant(),
    Column("route", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("field_hashes", JSONB, nullable=False),
    Column("workflow_id", Uuid),
    Column("response_status", Integer, nullable=False),
    Column("response_body", LargeBinary),
    _now("created_at"),
    PrimaryKeyConstraint("tenant_id", "route", "key"),
    Index(None, "workflow_id"),
)

steps = Table(
    "steps",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("path", Text, nullable=False),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("parent", Text),
    Column("item_index", Integer),
    Column("item", JSONB),
    Column("kind", Text, nullable=False),
    Column("title", Text),
    Column("undo", Text, nullable=False, server_default="none"),
    Column("conversation", Integer, nullable=False, server_default="0"),
    Column("model", Text),
    Column("items_total", Integer),
    Column("items_inserted", Integer),
    Column("items_started", Integer),
    Column("items_open", Integer),
    Column("items_failed", Integer),
    Column("input", JSONB),
    _at("started_at"),
    Column("unmet_needs", Integer, nullable=False),
    Column("calls", Integer, nullable=False, server_default="0"),
    Column("turn", Integer, nullable=False, server_default="0"),
    Column("messages", Integer, nullable=False, server_default="0"),
    Column("state", Text, nullable=False),
    Column("counters", JSONB, nullable=False, server_default="{}"),
    Column("output", JSONB),
    Column("failure", JSONB),
    _at("ended_at"),
    PrimaryKeyConstraint("workflow_id", "path"),
    _one_of("kind", states.StepKind),
    _one_of("state", states.StepState),
    _one_of("undo", states.Undo),
    CheckConstraint("unmet_needs >= 0", name="unmet_needs_not_negative"),
    CheckConstraint("(parent IS NULL) = (item_index IS NULL)", name="item_has_parent"),
    CheckConstraint(
        f"(state IN ({_final(states.FINAL_STEP_STATES)})) = (ended_at IS NOT NULL)", name="final_has_ended_at"
    ),
    postgresql_with=HOT,
)

messages = Table(
    "messages",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("step", Text, nullable=False),
    Column("conversation", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    _tenant(),
    Column("role", Text, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("workflow_id", "step", "conversation", "ordinal"),
    CheckConstraint("role IN ('user', 'assistant', 'system')", name="role_known"),
)

calls = Table(
    "calls",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    _tenant(),
    Column("step", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tool", Text),
    Column("turn", Integer, nullable=False, server_default="0"),
    Column("ordinal", Integer, nullable=False, server_default="0"),
    Column("tool_use_id", Text),
    Column("args_sha256", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("held_reason", Text),
    Column("request", JSON, nullable=False),
    Column("key", Text),
    Column("business_key", Boolean, nullable=False, server_default="false"),
    Column("generation", Integer, nullable=False, server_default="1"),
    Column("key_ttl_ms", BigInteger),
    Column("timeout_ms", BigInteger, nullable=False),
    Column("settle_ms", BigInteger, nullable=False),
    Column("retry_of", Uuid),
    Column("change", JSONB),
    Column("target", Uuid),
    Column("probe_id", Uuid),
    Column("lane", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    _at("not_before"),
    _at("doubt_since"),
    Column("resolved", JSONB),
    Column("compensation", JSON),
    Column("engine_version", Integer, nullable=False),
    _at("created_at", nullable=False),
    _at("key_deadline"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("attempt_id", Uuid),
    Column("state", Text, nullable=False),
    Column("lost_in_a_row", Integer, nullable=False, server_default="0"),
    Column("tries", JSONB, nullable=False, server_default="{}"),
    Column("recovery", JSONB, nullable=False, server_default="[]"),
    Column("budget", JSONB),
    Column("result", JSON),
    Column("failure", JSONB),
    Column("undo", Text, nullable=False, server_default="none"),
    _at("ended_at"),
    # By its id first: a doorbell, a token and a link name a call by its id alone, and ids in order of time fill pages.
    PrimaryKeyConstraint("id", "workflow_id"),
    _one_of("kind", states.CallKind),
    _one_of("effect", states.EffectClass),
    _one_of("state", states.CallState),
    _one_of("held_reason", states.HeldReason),
    _one_of("lane", states.Lane),
    _one_of("undo", states.Undo),
    CheckConstraint("(state = 'held') = (held_reason IS NOT NULL)", name="held_has_reason"),
    CheckConstraint(
        f"(state IN ({_final(states.FINAL_CALL_STATES)})) = (ended_at IS NOT NULL)", name="final_has_ended_at"
    ),
    CheckConstraint("state <> 'intended' OR attempt_id IS NOT NULL", name="intended_has_attempt"),
    CheckConstraint("state <> 'in_doubt' OR not_before IS NOT NULL", name="doubt_has_quarantine"),
    CheckConstraint("generation >= 1", name="generation_from_one"),
    UniqueConstraint("workflow_id", "step", "n"),
    Index(
        "ix_calls_repeat",
        "workflow_id",
        "tool",
        "args_sha256",
        postgresql_where=text("effect IN ('keyed', 'checkable', 'at_most_once')"),
    ),
    # Both are written when an effect is undone or attached, never on the hot path.
    Index(
        "ix_calls_undo",
        "workflow_id",
        text("split_part(step, '.', 1)"),
        "n",
        postgresql_where=text("undo = 'recorded'"),
    ),
    Index("ix_calls_attached", "target", postgresql_where=text("target IS NOT NULL")),
    postgresql_with=HOT,
)

attempts = Table(
    "attempts",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("call_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    _tenant(),
    Column("n", Integer, nullable=False),
    Column("worker", Uuid, nullable=False),
    _at("intended_at", nullable=False),
    _at("send_deadline", nullable=False),
    Column("truncated", Boolean, nullable=False, server_default="false"),
    _at("sent_at"),
    _at("received_at"),
    _at("settled_at"),
    Column("outcome", Text),
    _at("lost_at"),
    Column("failure", JSONB),
    Column("status_code", Integer),
    Column("evidence", Text),
    Column("media_type", Text),
    Column("request_id", Text),
    Column("usage", JSONB),
    Column("cost_microusd", BigInteger),
    Column("reserved_microusd", BigInteger),
    Column("reserved_tokens", BigInteger),
    PrimaryKeyConstraint("workflow_id", "call_id", "n"),
    _one_of("outcome", states.AttemptOutcome),
    # Twice as long when it is settled: with 45 % a third of the settled attempts had to leave their page.
    postgresql_with={"fillfactor": 33},
)

dues = Table(
    "dues",
    metadata,
    Column("kind", Text, nullable=False),
    Column("ref", Uuid, nullable=False),
    _tenant(),
    Column("workflow_id", Uuid, nullable=False),
    Column("note", Text),
    Column("lane", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    _at("due_at", nullable=False),
    _at("ring_at", nullable=False),
    Column("rung", SmallInteger, nullable=False, server_default="0"),
    Column("worker", Uuid),
    PrimaryKeyConstraint("kind", "ref"),
    _one_of("kind", states.DueKind),
    _one_of("lane", states.Lane),
    CheckConstraint("(kind = 'attempt') <= (worker IS NOT NULL)", name="attempt_has_worker"),
    Index(None, "ring_at"),
    Index(None, "worker", postgresql_where=text("worker IS NOT NULL")),
    Index(None, "workflow_id"),
)

effect_keys = Table(
    "effect_keys",
    metadata,
    _tenant(),
    Column("tool", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("workflow_id", Uuid, nullable=False),
    Column("step", Text, nullable=False),
    Column("call_id", Uuid),
    Column("args_sha256", Text, nullable=False),
    Column("generation", Integer, nullable=False, server_default="1"),
    _now("created_at"),
    _at("released_at"),
    PrimaryKeyConstraint("tenant_id", "tool", "key"),
    Index(None, "workflow_id"),
)

payloads = Table(
    "payloads",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("sha256", Text, nullable=False),
    _tenant(),
    Column("body", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("workflow_id", "sha256"),
)

events = Table(
    "events",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("id", Uuid, nullable=False),
    _tenant(),
    Column("type", Text, nullable=False),
    Column("step", Text),
    Column("call_id", Uuid),
    Column("attempt_id", Uuid),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("data", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("tx", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    PrimaryKeyConstraint("workflow_id", "seq"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    _tenant(),
    Column("kind", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("call_id", Uuid),
    Column("status", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("show", JSONB),
    Column("allow", ARRAY(Text), nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("arguments_sha256", Text),
    Column("approver", Text, nullable=False, server_default="anyone"),
    Column("on_expire", Text, nullable=False, server_default="reject"),
    _at("expires_at"),
    Column("decision", Text),
    Column("values", JSONB),
    Column("comment", Text),
    Column("by", Text),
    _at("created_at", nullable=False),
    _at("decided_at"),
    PrimaryKeyConstraint("workflow_id", "id"),
    ForeignKeyConstraint(["workflow_id", "step"], ["steps.workflow_id", "steps.path"], ondelete="CASCADE"),
    _one_of("kind", states.ApprovalKind),
    _one_of("status", states.ApprovalStatus),
    CheckConstraint("(status = 'decided') = (decision IS NOT NULL)", name="decided_has_decision"),
    Index(None, "id"),
    Index("ix_approvals_open", "tenant_id", "id", postgresql_where=text("status = 'open'")),
)

signals = Table(
    "signals",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("payload", JSONB),
    _now("received_at"),
    _at("consumed_at"),
    PrimaryKeyConstraint("workflow_id", "id"),
    ForeignKeyConstraint(["workflow_id"], ["workflows.id"], ondelete="CASCADE"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    Column("secrets", ARRAY(Text), nullable=False),
    Column("disabled_reason", Text),
    _now("created_at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    _tenant(),
    Column("stream", Uuid, nullable=False),
    Column("endpoint_id", Uuid),
    Column("url", Text, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("body", LargeBinary),
    Column("attempts", JSONB, nullable=False, server_default="[]"),
    Column("gap", Boolean, nullable=False, server_default="false"),
    _at("created_at", nullable=False),
    _at("ended_at"),
    PrimaryKeyConstraint("workflow_id", "id"),
    ForeignKeyConstraint(["workflow_id"], ["workflows.id"], ondelete="CASCADE"),
    _one_of("state", states.DeliveryState),
    CheckConstraint("(state = 'open') = (ended_at IS NULL)", name="open_has_no_end"),
    UniqueConstraint("stream", "seq"),
    Index(None, "id"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("engine_version", Integer, nullable=False),
    _at("started_at", nullable=False),
    _at("beat_at", nullable=False),
    _at("lease_until", nullable=False),
    _at("reaped_at"),
    _at("lost_at"),
    _at("stopped_at"),
)

switches = Table(
    "switches",
    metadata,
    _tenant(),
    Column("scope", Text, nullable=False),
    Column("reason", Text),
    Column("by", Text, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("tenant_id", "scope"),
)

# Of a tool of a tenant, or of a model under a credential (then the tenant is nobody: the nil UUID). A row exists only
# once something was wrong; a success alone never writes one.
breakers = Table(
    "breakers",
    metadata,
    _tenant(),
    Column("scope", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("kind", Text),
    Column("reason", Text),
    _count("failures"),
    _count("successes"),
    _at("window_began", nullable=False),
    _at("opened_at"),
    _at("until"),
    _count("opened"),
    _at("closed_at"),
    Column("canary", Uuid),
    _at("canary_until"),
    Column("tokens", Float, nullable=False),
    _at("refilled_at", nullable=False),
    _at("updated_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "scope"),
    _one_of("state", states.BreakerState),
    CheckConstraint("(state <> 'closed') = (until IS NOT NULL)", name="until_unless_closed"),
    CheckConstraint("closed_at IS NULL OR state = 'closed'", name="closed_at_only_closed"),
    CheckConstraint("(canary IS NULL) = (canary_until IS NULL)", name="canary_has_time"),
    CheckConstraint("canary IS NULL OR state <> 'closed'", name="canary_unless_closed"),
)

# What a model's provider allows a minute, per credential: a row exists while it is short.
limits = Table(
    "limits",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("requests", BigInteger),
    Column("requests_left", Float),
    Column("input_tokens", BigInteger),
    Column("input_left", Float),
    Column("output_tokens", BigInteger),
    Column("output_left", Float),
    Column("input_per_call", Float, nullable=False, server_default="0"),
    Column("output_per_call", Float, nullable=False, server_default="0"),
    _at("blocked_until"),
    _at("armed_until"),
    _at("refilled_at", nullable=False),
    _at("updated_at", nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("workflow_id", Uuid, nullable=False),
    Column("scope", Text, nullable=False),
    _tenant(),
    Column("on_exceeded", Text, nullable=False),
    Column("limit_microusd", BigInteger),
    Column("limit_tokens", BigInteger),
    Column("limit_turns", BigInteger),
    Column("limit_tool_calls", BigInteger),
    Column("limit_ms", BigInteger),
    Column("limit_recovery_microusd", BigInteger),
    _money("spent_microusd"),
    _money("spent_tokens"),
    _money("spent_turns"),
    _money("spent_tool_calls"),
    _money("reserved_microusd"),
    _money("reserved_tokens"),
    _money("reserved_turns"),
    _money("reserved_tool_calls"),
    _money("overrun_microusd"),
    _money("overrun_tokens"),
    _money("spent_ms"),
    _at("active_since"),
    _count("open_calls"),
    Column("warned", Boolean, nullable=False, server_default="false"),
    Column("exceeded", Boolean, nullable=False, server_default="false"),
    PrimaryKeyConstraint("workflow_id", "scope"),
    ForeignKeyConstraint(["workflow_id"], ["workflows.id"], ondelete="CASCADE"),
    # A budget cannot be overshot, whatever the code believes: what is reserved was an upper bound, and how far the
    # truth went beyond one that was not stands in `overrun`. NULL: no limit.
    CheckConstraint("spent_microusd + reserved_microusd <= limit_microusd + overrun_microusd", name="money_within"),
    CheckConstraint("spent_tokens + reserved_tokens <= limit_tokens + overrun_tokens", name="tokens_within"),
    CheckConstraint("spent_turns + reserved_turns <= limit_turns", name="turns_within"),
    CheckConstraint("spent_tool_calls + reserved_tool_calls <= limit_tool_calls", name="tool_calls_within"),
    CheckConstraint(
        "least(reserved_microusd, reserved_tokens, reserved_turns, reserved_tool_calls, spent_turns, "
        "spent_tool_calls, overrun_microusd, overrun_tokens, spent_ms, open_calls) >= 0",
        name="not_negative",
    ),
    CheckConstraint("on_exceeded IN ('fail', 'pause')", name="on_exceeded_known"),
    postgresql_with=HOT,
)

audit = Table(
    "audit",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    _now("at"),
)

system = Table(
    "system",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    _now("updated_at"),
)
