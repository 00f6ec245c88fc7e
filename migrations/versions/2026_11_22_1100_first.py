"""first

Revision 202611221100, the beginning.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import xid8

revision: str = "202611221100"
down_revision: str | None = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_keys_public_id")),
    )
    op.create_table(
        "attempts",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Uuid(), nullable=False),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("send_deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("truncated", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("lost_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("usage", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("cost_microusd", sa.BigInteger(), nullable=True),
        sa.Column("reserved_microusd", sa.BigInteger(), nullable=True),
        sa.Column("reserved_tokens", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('succeeded', 'failed', 'not_sent', 'unknown')", name=op.f("ck_attempts_outcome_known")
        ),
        sa.PrimaryKeyConstraint("workflow_id", "call_id", "n", name=op.f("pk_attempts")),
        postgresql_with={"fillfactor": 33},
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "breakers",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("successes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("window_began", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened", sa.Integer(), server_default="0", nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("canary", sa.Uuid(), nullable=True),
        sa.Column("canary_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tokens", sa.Float(), nullable=False),
        sa.Column("refilled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(state <> 'closed') = (until IS NOT NULL)", name=op.f("ck_breakers_until_unless_closed")),
        sa.CheckConstraint("canary IS NULL OR state <> 'closed'", name=op.f("ck_breakers_canary_unless_closed")),
        sa.CheckConstraint("closed_at IS NULL OR state = 'closed'", name=op.f("ck_breakers_closed_at_only_closed")),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open', 'parked')", name=op.f("ck_breakers_state_known")),
        sa.CheckConstraint("(canary IS NULL) = (canary_until IS NULL)", name=op.f("ck_breakers_canary_has_time")),
        sa.PrimaryKeyConstraint("tenant_id", "scope", name=op.f("pk_breakers")),
    )
    op.create_table(
        "calls",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=True),
        sa.Column("turn", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ordinal", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tool_use_id", sa.Text(), nullable=True),
        sa.Column("args_sha256", sa.Text(), nullable=False),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.Column("held_reason", sa.Text(), nullable=True),
        sa.Column("request", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("business_key", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("generation", sa.Integer(), server_default="1", nullable=False),
        sa.Column("key_ttl_ms", sa.BigInteger(), nullable=True),
        sa.Column("timeout_ms", sa.BigInteger(), nullable=False),
        sa.Column("settle_ms", sa.BigInteger(), nullable=False),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("change", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("target", sa.Uuid(), nullable=True),
        sa.Column("probe_id", sa.Uuid(), nullable=True),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("doubt_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("compensation", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("engine_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lost_in_a_row", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tries", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("recovery", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("budget", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("result", postgresql.JSON(astext_type=sa.Text()), nullable=True),
        sa.Column("failure", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("undo", sa.Text(), server_default="none", nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'held') = (held_reason IS NOT NULL)", name=op.f("ck_calls_held_has_reason")),
        sa.CheckConstraint(
            "(state IN ('abandoned', 'cancelled', 'failed', 'succeeded')) = (ended_at IS NOT NULL)",
            name=op.f("ck_calls_final_has_ended_at"),
        ),
        sa.CheckConstraint(
            "effect IN ('read_only', 'idempotent', 'keyed', 'checkable', 'at_most_once')",
            name=op.f("ck_calls_effect_known"),
        ),
        sa.CheckConstraint(
            "held_reason IN ('approval', 'pause', 'budget', 'quota', 'breaker', 'concurrency', 'poisoned', 'repeat', 'drift', 'operator', 'attached')",
            name=op.f("ck_calls_held_reason_known"),
        ),
        sa.CheckConstraint(
            "kind IN ('model', 'tool', 'probe', 'compensation', 'discover')", name=op.f("ck_calls_kind_known")
        ),
        sa.CheckConstraint("lane IN ('calls', 'deliveries')", name=op.f("ck_calls_lane_known")),
        sa.CheckConstraint("state <> 'in_doubt' OR not_before IS NOT NULL", name=op.f("ck_calls_doubt_has_quarantine")),
        sa.CheckConstraint("state <> 'intended' OR attempt_id IS NOT NULL", name=op.f("ck_calls_intended_has_attempt")),
        sa.CheckConstraint(
            "state IN ('held', 'due', 'intended', 'probing', 'in_doubt', 'succeeded', 'failed', 'cancelled', 'abandoned')",
            name=op.f("ck_calls_state_known"),
        ),
        sa.CheckConstraint(
            "undo IN ('none', 'recorded', 'running', 'done', 'failed', 'skipped')", name=op.f("ck_calls_undo_known")
        ),
        sa.CheckConstraint("generation >= 1", name=op.f("ck_calls_generation_from_one")),
        sa.PrimaryKeyConstraint("id", "workflow_id", name=op.f("pk_calls")),
        sa.UniqueConstraint("workflow_id", "step", "n", name=op.f("uq_calls_workflow_id_step_n")),
        postgresql_with={"fillfactor": 45},
    )
    op.create_index(
        "ix_calls_attached", "calls", ["target"], unique=False, postgresql_where=sa.text("target IS NOT NULL")
    )
    op.create_index(
        "ix_calls_repeat",
        "calls",
        ["workflow_id", "tool", "args_sha256"],
        unique=False,
        postgresql_where=sa.text("effect IN ('keyed', 'checkable', 'at_most_once')"),
    )
    op.create_index(
        "ix_calls_undo",
        "calls",
        ["workflow_id", sa.literal_column("split_part(step, '.', 1)"), "n"],
        unique=False,
        postgresql_where=sa.text("undo = 'recorded'"),
    )
    op.create_table(
        "definitions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", "digest", name=op.f("pk_definitions")),
    )
    op.create_table(
        "dues",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ref", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ring_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rung", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("worker", sa.Uuid(), nullable=True),
        sa.CheckConstraint("(kind = 'attempt') <= (worker IS NOT NULL)", name=op.f("ck_dues_attempt_has_worker")),
        sa.CheckConstraint(
            "kind IN ('call', 'attempt', 'apply', 'deadline', 'step_timeout', 'expiry', 'delivery', 'result', 'attached', 'switch', 'budget', 'duration', 'dependency')",
            name=op.f("ck_dues_kind_known"),
        ),
        sa.CheckConstraint("lane IN ('calls', 'deliveries')", name=op.f("ck_dues_lane_known")),
        sa.PrimaryKeyConstraint("kind", "ref", name=op.f("pk_dues")),
    )
    op.create_index(op.f("ix_dues_ring_at"), "dues", ["ring_at"], unique=False)
    op.create_index(
        op.f("ix_dues_worker"), "dues", ["worker"], unique=False, postgresql_where=sa.text("worker IS NOT NULL")
    )
    op.create_index(op.f("ix_dues_workflow_id"), "dues", ["workflow_id"], unique=False)
    op.create_table(
        "effect_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=True),
        sa.Column("args_sha256", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), server_default="1", nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "tool", "key", name=op.f("pk_effect_keys")),
    )
    op.create_index(op.f("ix_effect_keys_workflow_id"), "effect_keys", ["workflow_id"], unique=False)
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("secrets", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
    )
    op.create_table(
        "events",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("call_id", sa.Uuid(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tx", xid8.Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", "seq", name=op.f("pk_events")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("field_hashes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=False),
        sa.Column("response_body", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", "route", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_workflow_id"), "idempotency_keys", ["workflow_id"], unique=False)
    op.create_table(
        "limits",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=True),
        sa.Column("requests_left", sa.Float(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("input_left", sa.Float(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_left", sa.Float(), nullable=True),
        sa.Column("input_per_call", sa.Float(), server_default="0", nullable=False),
        sa.Column("output_per_call", sa.Float(), server_default="0", nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("armed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refilled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_limits")),
    )
    op.create_table(
        "messages",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("conversation", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("role IN ('user', 'assistant', 'system')", name=op.f("ck_messages_role_known")),
        sa.PrimaryKeyConstraint("workflow_id", "step", "conversation", "ordinal", name=op.f("pk_messages")),
    )
    op.create_table(
        "payloads",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("workflow_id", "sha256", name=op.f("pk_payloads")),
    )
    op.create_table(
        "plans",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", "digest", name=op.f("pk_plans")),
    )
    op.create_table(
        "steps",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("item_index", sa.Integer(), nullable=True),
        sa.Column("item", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("undo", sa.Text(), server_default="none", nullable=False),
        sa.Column("conversation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("items_total", sa.Integer(), nullable=True),
        sa.Column("items_inserted", sa.Integer(), nullable=True),
        sa.Column("items_started", sa.Integer(), nullable=True),
        sa.Column("items_open", sa.Integer(), nullable=True),
        sa.Column("items_failed", sa.Integer(), nullable=True),
        sa.Column("input", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unmet_needs", sa.Integer(), nullable=False),
        sa.Column("calls", sa.Integer(), server_default="0", nullable=False),
        sa.Column("turn", sa.Integer(), server_default="0", nullable=False),
        sa.Column("messages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("counters", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("output", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("failure", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'failed', 'skipped', 'succeeded')) = (ended_at IS NOT NULL)",
            name=op.f("ck_steps_final_has_ended_at"),
        ),
        sa.CheckConstraint("kind IN ('tool', 'set', 'agent', 'approval')", name=op.f("ck_steps_kind_known")),
        sa.CheckConstraint(
            "state IN ('pending', 'ready', 'running', 'waiting', 'succeeded', 'failed', 'skipped', 'cancelled')",
            name=op.f("ck_steps_state_known"),
        ),
        sa.CheckConstraint(
            "undo IN ('none', 'recorded', 'running', 'done', 'failed', 'skipped')", name=op.f("ck_steps_undo_known")
        ),
        sa.CheckConstraint("(parent IS NULL) = (item_index IS NULL)", name=op.f("ck_steps_item_has_parent")),
        sa.CheckConstraint("unmet_needs >= 0", name=op.f("ck_steps_unmet_needs_not_negative")),
        sa.PrimaryKeyConstraint("workflow_id", "path", name=op.f("pk_steps")),
        postgresql_with={"fillfactor": 45},
    )
    op.create_table(
        "switches",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", "scope", name=op.f("pk_switches")),
    )
    op.create_table(
        "system",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_system")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("signing_secrets", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "cardinality(signing_secrets) BETWEEN 1 AND 2", name=op.f("ck_tenants_signing_secrets_one_or_two")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.create_table(
        "tools",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("declaration", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_tools")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("engine_version", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reaped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lost_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "workflows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("definition_digest", sa.Text(), nullable=False),
        sa.Column("plan_digest", sa.Text(), nullable=False),
        sa.Column("engine_version", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("submitted_by", sa.Text(), server_default="", nullable=False),
        sa.Column("input", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("compensation", sa.Text(), nullable=True),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("attention", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("webhook", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("cancel", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("steps_total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("waits", sa.Integer(), server_default="0", nullable=False),
        sa.Column("timers", sa.Integer(), server_default="0", nullable=False),
        sa.Column("doubts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("held", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("effects_undone", sa.Integer(), server_default="0", nullable=False),
        sa.Column("effects_abandoned", sa.Integer(), server_default="0", nullable=False),
        sa.Column("undos", sa.Integer(), server_default="0", nullable=False),
        sa.Column("undos_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pivot_passed", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("saga", sa.Text(), nullable=True),
        sa.Column("restored_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duplicates_prevented", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tools_disabled", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("spent_microusd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("recovery_microusd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("budgeted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reopened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("failure", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("output", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("steps_open", sa.Integer(), server_default="0", nullable=False),
        sa.Column("open_calls", sa.Integer(), server_default="0", nullable=False),
        sa.Column("effects_done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("steps_done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'failed') <= (failure IS NOT NULL)", name=op.f("ck_workflows_failed_says_why")),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'failed', 'succeeded')) = (ended_at IS NOT NULL)",
            name=op.f("ck_workflows_final_has_ended_at"),
        ),
        sa.CheckConstraint("saga IN ('held', 'undo', 'keep')", name=op.f("ck_workflows_saga_known")),
        sa.CheckConstraint(
            "status IN ('cancelled', 'failed', 'succeeded') OR open_calls + waits + timers + doubts + held + undos_failed > 0",
            name=op.f("ck_workflows_something_wakes_it"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'waiting', 'paused', 'failing', 'cancelling', 'compensating', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_workflows_status_known"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('cancelled', 'failed', 'succeeded') OR open_calls + doubts + undos_failed = 0",
            name=op.f("ck_workflows_final_is_settled"),
        ),
        sa.CheckConstraint(
            "open_calls >= 0 AND waits >= 0 AND timers >= 0 AND doubts >= 0 AND held >= 0 AND steps_open >= 0 AND undos >= 0 AND undos_failed >= 0",
            name=op.f("ck_workflows_counters_not_negative"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflows")),
        postgresql_with={"fillfactor": 45},
    )
    op.create_index(
        "ix_workflows_attention",
        "workflows",
        ["tenant_id", "id"],
        unique=False,
        postgresql_where=sa.text("attention <> '{}'"),
    )
    op.create_index(
        "ix_workflows_failure",
        "workflows",
        ["tenant_id", "id"],
        unique=False,
        postgresql_where=sa.text("failure IS NOT NULL"),
    )
    op.create_index(
        "ix_workflows_open", "workflows", ["id"], unique=False, postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_index(op.f("ix_workflows_tenant_id_id"), "workflows", ["tenant_id", "id"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("show", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("allow", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("arguments_sha256", sa.Text(), nullable=True),
        sa.Column("approver", sa.Text(), server_default="anyone", nullable=False),
        sa.Column("on_expire", sa.Text(), server_default="reject", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("values", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'decided') = (decision IS NOT NULL)", name=op.f("ck_approvals_decided_has_decision")
        ),
        sa.CheckConstraint("kind IN ('step', 'tool', 'repeat', 'drift')", name=op.f("ck_approvals_kind_known")),
        sa.CheckConstraint(
            "status IN ('open', 'decided', 'expired', 'cancelled')", name=op.f("ck_approvals_status_known")
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id", "step"],
            ["steps.workflow_id", "steps.path"],
            name=op.f("fk_approvals_steps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workflow_id", "id", name=op.f("pk_approvals")),
    )
    op.create_index(op.f("ix_approvals_id"), "approvals", ["id"], unique=False)
    op.create_index(
        "ix_approvals_open", "approvals", ["tenant_id", "id"], unique=False, postgresql_where=sa.text("status = 'open'")
    )
    op.create_table(
        "budgets",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("on_exceeded", sa.Text(), nullable=False),
        sa.Column("limit_microusd", sa.BigInteger(), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("limit_turns", sa.BigInteger(), nullable=True),
        sa.Column("limit_tool_calls", sa.BigInteger(), nullable=True),
        sa.Column("limit_ms", sa.BigInteger(), nullable=True),
        sa.Column("limit_recovery_microusd", sa.BigInteger(), nullable=True),
        sa.Column("spent_microusd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("spent_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("spent_turns", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("spent_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_microusd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_turns", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_tool_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("overrun_microusd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("overrun_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("spent_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("active_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("open_calls", sa.Integer(), server_default="0", nullable=False),
        sa.Column("warned", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("exceeded", sa.Boolean(), server_default="false", nullable=False),
        sa.CheckConstraint("on_exceeded IN ('fail', 'pause')", name=op.f("ck_budgets_on_exceeded_known")),
        sa.CheckConstraint(
            "least(reserved_microusd, reserved_tokens, reserved_turns, reserved_tool_calls, spent_turns, spent_tool_calls, overrun_microusd, overrun_tokens, spent_ms, open_calls) >= 0",
            name=op.f("ck_budgets_not_negative"),
        ),
        sa.CheckConstraint(
            "spent_microusd + reserved_microusd <= limit_microusd + overrun_microusd",
            name=op.f("ck_budgets_money_within"),
        ),
        sa.CheckConstraint(
            "spent_tokens + reserved_tokens <= limit_tokens + overrun_tokens", name=op.f("ck_budgets_tokens_within")
        ),
        sa.CheckConstraint(
            "spent_tool_calls + reserved_tool_calls <= limit_tool_calls", name=op.f("ck_budgets_tool_calls_within")
        ),
        sa.CheckConstraint("spent_turns + reserved_turns <= limit_turns", name=op.f("ck_budgets_turns_within")),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name=op.f("fk_budgets_workflows"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workflow_id", "scope", name=op.f("pk_budgets")),
        postgresql_with={"fillfactor": 45},
    )
    op.create_table(
        "definition_versions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "digest"],
            ["definitions.tenant_id", "definitions.digest"],
            name=op.f("fk_definition_versions_definitions"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "name", "version", name=op.f("pk_definition_versions")),
    )
    op.create_table(
        "deliveries",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("attempts", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("gap", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'open') = (ended_at IS NULL)", name=op.f("ck_deliveries_open_has_no_end")),
        sa.CheckConstraint(
            "state IN ('open', 'delivered', 'given_up', 'disabled')", name=op.f("ck_deliveries_state_known")
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name=op.f("fk_deliveries_workflows"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workflow_id", "id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("stream", "seq", name=op.f("uq_deliveries_stream_seq")),
    )
    op.create_index(op.f("ix_deliveries_id"), "deliveries", ["id"], unique=False)
    op.create_table(
        "signals",
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("consumed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name=op.f("fk_signals_workflows"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("workflow_id", "id", name=op.f("pk_signals")),
    )


def downgrade() -> None:
    op.drop_table("signals")
    op.drop_index(op.f("ix_deliveries_id"), table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_table("definition_versions")
    op.drop_table("budgets")
    op.drop_index("ix_approvals_open", table_name="approvals", postgresql_where=sa.text("status = 'open'"))
    op.drop_index(op.f("ix_approvals_id"), table_name="approvals")
    op.drop_table("approvals")
    op.drop_index(op.f("ix_workflows_tenant_id_id"), table_name="workflows")
    op.drop_index("ix_workflows_open", table_name="workflows", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_index("ix_workflows_failure", table_name="workflows", postgresql_where=sa.text("failure IS NOT NULL"))
    op.drop_index("ix_workflows_attention", table_name="workflows", postgresql_where=sa.text("attention <> '{}'"))
    op.drop_table("workflows")
    op.drop_table("workers")
    op.drop_table("tools")
    op.drop_table("tenants")
    op.drop_table("system")
    op.drop_table("switches")
    op.drop_table("steps")
    op.drop_table("plans")
    op.drop_table("payloads")
    op.drop_table("messages")
    op.drop_table("limits")
    op.drop_index(op.f("ix_idempotency_keys_workflow_id"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("events")
    op.drop_table("endpoints")
    op.drop_index(op.f("ix_effect_keys_workflow_id"), table_name="effect_keys")
    op.drop_table("effect_keys")
    op.drop_index(op.f("ix_dues_workflow_id"), table_name="dues")
    op.drop_index(op.f("ix_dues_worker"), table_name="dues", postgresql_where=sa.text("worker IS NOT NULL"))
    op.drop_index(op.f("ix_dues_ring_at"), table_name="dues")
    op.drop_table("dues")
    op.drop_table("definitions")
    op.drop_index("ix_calls_undo", table_name="calls", postgresql_where=sa.text("undo = 'recorded'"))
    op.drop_index(
        "ix_calls_repeat",
        table_name="calls",
        postgresql_where=sa.text("effect IN ('keyed', 'checkable', 'at_most_once')"),
    )
    op.drop_index("ix_calls_attached", table_name="calls", postgresql_where=sa.text("target IS NOT NULL"))
    op.drop_table("calls")
    op.drop_table("breakers")
    op.drop_table("audit")
    op.drop_table("attempts")
    op.drop_table("api_keys")
