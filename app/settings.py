"""Every knob, once: `SUREFOOT_<NAME>` in the environment. Each has a sentence and a unit; `docs/settings.md` is generated.

Instants are judged by the database's clock; durations here are seconds.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="SUREFOOT_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    # --- where the parts are ---
    database_url: str = Field(
        default="", description="Postgres in libpq form, postgresql://… Empty: `surefoot up` starts an embedded one."
    )
    redis_url: str = Field(
        default="",
        description="Redis in redis-py form, redis://… or unix://… Empty: `surefoot up` starts an embedded one.",
    )
    outbound_allow: str = Field(
        default="",
        description="Hosts and CIDRs, comma-separated, that tools, webhooks and probes may reach although they are private.",
    )
    anthropic_base_url: str | None = Field(
        default=None,
        validation_alias="ANTHROPIC_BASE_URL",
        description="Base URL of the model provider; any server that speaks the Messages API.",
    )
    anthropic_api_key: SecretStr | None = Field(
        default=None, validation_alias="ANTHROPIC_API_KEY", description="Key for the model provider."
    )
    models: dict[str, str] = Field(
        default={"fast": "claude-haiku-5-5", "smart": "claude-sonnet-5-5"},
        description="Model aliases a definition may use, as JSON: alias to model id.",
    )
    model_windows: dict[str, int] = Field(
        default={},
        description="Context windows that differ from the built-in table, as JSON: model id to tokens. For models of "
        "one's own; one that is not known is taken to have 128,000.",
    )
    secrets: dict[str, SecretStr] = Field(
        default={},
        description="Secrets that tools may name as secrets.X, as JSON: name to value. Resolved in the worker at send.",
    )

    # --- API ---
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port the API listens on; 0 takes a free one.")
    public_url: str = Field(
        default="",
        description="Base URL under which tools reach this API, to report the results of asynchronous calls. "
        "Empty: http://host:port.",
    )
    body_limit: int = Field(default=4 * 1024 * 1024, description="Largest request body, bytes.")
    definition_limit: int = Field(default=1024 * 1024, description="Largest definition, bytes.")
    steps_limit: int = Field(default=1000, description="Most steps in one definition.")
    items_limit: int = Field(default=100_000, description="Most items of one for_each.")
    twin_wait: float = Field(
        default=2.0, description="How long a request waits for a twin in flight with the same key before 409, seconds."
    )

    # --- engine ---
    lease: float = Field(
        default=15.0, gt=0, description="How long a worker's lease lasts after its last heartbeat, seconds."
    )
    heartbeat: float = Field(default=3.0, gt=0, description="Time between two heartbeats of a worker, seconds.")
    sweep: float = Field(
        default=1.0, gt=0, description="Time between two sweeps of one worker process, seconds (plus jitter)."
    )
    fence_margin: float = Field(
        default=2.0, ge=0, description="A worker stops sending this long before its lease could end, seconds."
    )
    key_margin: float = Field(
        default=60.0,
        ge=0,
        description="A key is not trusted this long before the tool forgets it (the tool's settle_time if that is longer), "
        "seconds.",
    )
    tool_timeout: float = Field(
        default=30.0, gt=0, description="Default timeout of one attempt at a tool call, seconds."
    )
    model_timeout: float = Field(
        default=600.0, gt=0, description="Default timeout of one attempt at a model call, seconds."
    )
    settle_factor: float = Field(
        default=2.0, description="Default settle time of a tool, as a multiple of its timeout."
    )
    max_parallel: int = Field(default=8, gt=0, description="Default of a for_each's max_parallel, items.")
    deadline: float = Field(default=7 * 86400.0, gt=0, description="Default deadline of a workflow, seconds.")
    poison_after: int = Field(
        default=5, gt=0, description="Workers that a call may lose in a row before it is held as poisoned."
    )
    breaker_failures: int = Field(
        default=5,
        ge=0,
        description="Failures of one tool or model within breaker_window, at least half of what was seen, after which it is "
        "left in peace. 0: never.",
    )
    breaker_window: float = Field(
        default=30.0, gt=0, description="Window in which failures of a tool or model are counted, seconds."
    )
    breaker_open: float = Field(
        default=5.0,
        gt=0,
        description="How long a tool or model that kept failing is left in peace before one call is let through, seconds; "
        "twice as long each time in a row.",
    )
    breaker_open_longest: float = Field(
        default=300.0, gt=0, description="The longest time between two such calls, seconds."
    )
    retry_burst: int = Field(
        default=20, gt=0, description="Repeats of failed calls that one tool or model takes at once."
    )
    retry_rate: float = Field(
        default=1.0,
        gt=0,
        description="Repeats that one tool or model takes beyond that, as a multiple of one each second; others wait.",
    )
    retry_share: float = Field(
        default=0.2,
        ge=0,
        description="Repeats that each success of a tool or model allows besides, as a share of one.",
    )
    max_turns: int = Field(default=50, gt=0, description="Most model turns of one agent step.")
    max_tokens: int = Field(default=4096, gt=0, description="Default max_tokens of a model call, tokens.")
    response_limit: int = Field(
        default=1024 * 1024,
        description="Most bytes of a tool's response that are kept; beyond it the output is opaque.",
    )
    partial_text: bool = Field(
        default=True,
        description="Show what a model is writing while it writes, through Redis, in the answer of a step. Off: nothing of "
        "an answer is ever in Redis.",
    )
    batch: int = Field(default=64, gt=0, description="Most claims, or outcomes, in one transaction.")

    # --- worker ---
    concurrency: int = Field(default=200, gt=0, description="Calls one worker process performs at once.")
    delivery_concurrency: int = Field(
        default=32, gt=0, description="Webhook deliveries one worker process performs at once."
    )
    isolated_processes: int = Field(
        default=16, gt=0, description="Python tools with `isolate: process` that one worker process calls at once."
    )
    isolated_memory: int = Field(
        default=0, ge=0, description="Most address space of such a tool's process, bytes; 0 sets no limit."
    )
    mcp_commands: str = Field(
        default="",
        description="Programs, comma-separated, that workers may start as MCP servers, as `mcp.command` names them; * is any. Empty: none. `surefoot up` allows any unless this is set.",
    )
    worker_processes: int = Field(
        default=2, gt=0, description="Worker processes that `surefoot worker` and `surefoot up` supervise."
    )

    # --- webhooks ---
    delivery_timeout: float = Field(default=15.0, description="Total deadline of one webhook delivery, seconds.")
    delivery_expiry: float = Field(
        default=3 * 86400.0, description="Age of an event at which its delivery is given up, seconds."
    )

    # --- database connections ---
    pool_size: int = Field(
        default=8, gt=0, description="Connections in one process's pool for everything but the hot path."
    )
    statement_timeout: float = Field(
        default=30.0, description="Postgres statement_timeout of every connection, seconds."
    )

    # --- logs ---
    log_level: Annotated[str, NoDecode] = Field(default="info", description="debug, info, warning or error.")
    log_json: bool = Field(default=False, description="Write logs as JSON lines instead of coloured text.")
