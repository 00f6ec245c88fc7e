"""The plan: a definition made ready to run, immutable, pinned by digest in the workflow.

`app/domain/definition/` turns a document into a plan body (JSON: the document with registered tools, model aliases
and server defaults filled in, and the line of each pointer if the source was text); `compile_plan` in
`app/domain/definition/compiling.py` turns a body into the `Plan` here. Compiling trusts the body: it was checked
before it was stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from app.domain.accounts import Limits
from app.domain.outcomes import JSON
from app.domain.rates import Rate
from app.domain.servers import McpServer, McpTool
from app.domain.states import EffectClass, FailureKind, StepKind


class Expression(Protocol):
    """A compiled CEL expression. Implemented by `app/domain/expressions.py`."""

    source: str
    steps: frozenset[str]
    """Ids of the steps it mentions."""

    def evaluate(self, bindings: Mapping[str, JSON]) -> JSON:
        """Raises `ExpressionError` (with message and fix); the result is plain JSON."""
        ...


class Template(Protocol):
    """A JSON value with `${{ }}` inside, compiled. Implemented by `app/domain/templates.py`."""

    steps: frozenset[str]

    @property
    def literal(self) -> bool:
        """True if it renders the same for all bindings."""
        ...

    def render(self, bindings: Mapping[str, JSON]) -> JSON: ...

    def render_key(self, bindings: Mapping[str, JSON]) -> str:
        """As an idempotency key: `ExpressionError` if a part is null or not a scalar."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """What may be tried again for one failure kind; merged from the definition over the server's defaults."""

    max_retries: int
    first: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    cap: timedelta = timedelta(seconds=60)
    repair: str | None = None
    """`format_reminder` or None."""
    rule: str = ""
    """The key that decided: the kind itself, or the group (`transient`, `malformed_output`, `any`)."""
    source: str = "default"
    """`definition` | `default`."""
    line: int | None = None
    after: int | None = None
    """For what happens several times in a row before anything is done about it: how many times."""
    switch_model: str | None = None
    """The provider's id of the model that goes on when the retries are used up; None: none does."""
    switch_alias: str | None = None
    """What the definition calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpTool:
    """How a tool call becomes an HTTP request. Templates see `arguments` and `secrets`."""

    method: str
    url: Template
    headers: Mapping[str, Template]
    path: Mapping[str, Template] | None = None
    query: Template | None = None
    body: Template | None = None
    output: Template | None = None
    """What is made of the answer: sees `status` and `body`. None: the body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonTool:
    """A function that an installed distribution declares as an entry point in the group `surefoot.tools`."""

    distribution: str
    """Normalised as package indexes do it: lower case, `-` between words."""
    name: str
    """The entry point's, within that distribution."""
    isolate: bool = False
    """In a process of its own for each call."""

    def __str__(self) -> str:
        return f"{self.distribution}:{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """How to find out whether a call took effect. Its templates and `found` see `arguments`, `input`, `key`; `found`
    and `result` also `output`, which is what the probe's tool answered."""

    tool: str
    """A read_only tool of the plan."""
    arguments: Template
    found: Expression
    result: Template | None
    """What the call's result is if it was found; None: the probe's output as it came."""
    deadline: timedelta
    """How long after the quarantine an unclear probe is asked again before the call is in doubt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compensation:
    """The call that undoes an effect. Its template sees `arguments`, `input`, `output` of that effect's call."""

    tool: str
    arguments: Template


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    name: str
    description: str
    input_schema: Mapping[str, JSON] | None
    """A full JSON Schema (short form expanded), or None: any object."""
    effect: EffectClass
    key_header: str | None
    key_argument: str | None
    key_ttl: timedelta | None
    timeout: timedelta
    settle_time: timedelta
    """How long a request that has left may still take effect."""
    on_repeat: str
    """`ask` | `return_recorded` | `allow`."""
    http: HttpTool | None = None
    python: PythonTool | None = None
    mcp: McpTool | None = None
    """Where it is: exactly one of the three."""
    digest: str = ""
    """SHA-256 of the declaration's canonical JSON: what an approval is bound to, with the arguments."""
    probe: Probe | None = None
    on_5xx: str = "unknown"
    on_3xx: str = "unknown"
    on_408: str = "unknown"
    """`unknown` | `not_executed`: what the tool's owner knows about such an answer."""
    on_repeat_status: Mapping[int, str] = field(default_factory=dict)
    """Status of a repeat after an unknown attempt → `succeeded` (404 to a DELETE) | `failed`."""
    on_202: str = "succeeded"
    """`succeeded` | `wait`: accepted, its result comes to POST /v1/calls/{id}/result or is found by the probe."""
    result_within: timedelta = timedelta(minutes=10)
    """How long a result is waited for after a 202."""
    approve: str = "never"
    """`never` | `always` | `when_tainted`."""
    approver: str = "anyone"
    """`anyone` | `other_than_submitter`."""
    approval_expires: timedelta = timedelta(days=1)
    trusted_output: bool = False
    """Whether its output may be believed like the definition itself; else what reads it is tainted."""
    compensate: Compensation | None = None
    max_output: int | None = None
    """Most bytes of an answer that are kept; None: what the server is set to."""

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.http, self.python, self.mcp)) != 1:
            raise ValueError(f"{self.name} is exactly one of http, python and mcp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """A frozen snapshot of what a conversation is held with."""

    name: str
    model: str
    """The provider's model id, aliases resolved."""
    alias: str
    """What the definition said: `fast`, or the id itself."""
    instructions: str | None
    tools: tuple[str, ...]
    max_tokens: int
    effort: str | None
    max_turns: int
    finish: str = "fail"
    """What it does at a limit (turns, no progress, the deadline): `fail`, or `gracefully`: one last answer without
    tools."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    title: Template
    show: Template | None
    allow: tuple[str, ...]
    """Subset of approve, edit, reject, respond."""
    expires: timedelta | None
    on_expire: str
    """`reject` | `fail`."""
    on_reject: str
    """`continue` (a rejection is output) | `fail`."""
    approver: str = "anyone"
    """`anyone` | `other_than_submitter`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    id: str
    kind: StepKind
    line: int | None
    title: Template | None
    needs: frozenset[str]
    """Declared `needs` and every step a template or the condition refers to."""
    dependents: tuple[str, ...]
    """Steps that need this one, in document order."""
    reads: frozenset[str]
    """Steps whose output, state or error its expressions see (a subset of needs)."""
    condition: Expression | None
    for_each: Template | None
    max_parallel: int
    timeout: timedelta | None
    """Of the whole step; a tool's own timeout is per attempt."""
    call_timeout: timedelta
    """Per attempt: the tool's timeout, or for agents the model's."""
    retry: Mapping[FailureKind, RetryPolicy]
    """Every kind that has a policy, merged: the definition's most specific over the server's default."""
    on_error: str
    """`fail` | `continue`."""
    tool: Tool | None = None
    arguments: Template | None = None
    key: Template | None = None
    agent: Agent | None = None
    prompt: Template | None = None
    output_schema: Mapping[str, JSON] | None = None
    values: Template | None = None
    approval: Approval | None = None
    on_unknown_outcome: str | None = None
    """`probe` | `ask` | `abandon`: tightens what the effect class allows; None: the class decides."""
    compensate: Compensation | None = None
    """Of a tool step: its own, else the tool's. (An agent's effects are undone as their tools say.)"""
    pivot: bool = False
    """Once it has succeeded a failure is held for an operator instead of undone."""
    servers: tuple[str, ...] = ()
    """MCP servers whose tools it uses and whose lists are not known yet: they are asked before it begins."""
    missing: tuple[str, ...] = ()
    """Tools it names that its servers turned out not to have."""
    budget: Limits | None = None
    """Shared by its items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    digest: str
    name: str
    description: str | None
    source_name: str | None
    """The file the definition came from, if the client said so; for messages."""
    labels: Mapping[str, str]
    input_schema: Mapping[str, JSON] | None
    tools: Mapping[str, Tool]
    """Every tool a step or an agent may use."""
    steps: Mapping[str, Step]
    """In document order."""
    output: Template | None
    deadline: timedelta
    compensate_on: frozenset[str] = frozenset({"failure", "cancel"})
    on_failure: str = "compensate"
    """`compensate` | `hold` (an operator decides before anything is undone)."""
    budget: Limits | None = None
    """Of the whole workflow."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """Model id → what its tokens cost at most; of every model that a budget in money may meet."""
    servers: Mapping[str, McpServer] = field(default_factory=dict)
    """MCP servers whose lists of tools are not known yet."""
    body: Mapping[str, JSON] | None = None
    """What it was compiled from, as long as there are such servers: the plan with their tools is made of it."""
