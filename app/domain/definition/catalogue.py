"""What a check knows besides the document (`Catalogue`), and what it gives back (`Checked`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.rates import Rate


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The tenant's registered tools, the model aliases, and the server's defaults and limits.

    Named and measured as in `app/settings.py`: durations are seconds, sizes bytes.
    """

    tools: Mapping[str, JSON] = field(default_factory=dict)
    """Name → declaration, as registered."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Alias → model id."""
    rate_of: Callable[[str], Rate | None] | None = None
    """Model id → what its tokens cost at most; None if nobody knows. Asked only for budgets in money."""
    priced: bool = False
    """The submission brings a budget in money: every agent's model needs a price."""
    tool_timeout: float = 30.0
    model_timeout: float = 600.0
    settle_factor: float = 2.0
    max_parallel: int = 8
    deadline: float = 7 * 86400.0
    max_turns: int = 50
    max_tokens: int = 4096
    steps_limit: int = 1000
    items_limit: int = 100_000
    definition_limit: int = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """Pointers of faults and warnings are relative to the definition's root."""

    plan_body: dict[str, JSON] | None
    """What `compiling.compile_plan` reads; None if there are faults."""
    digest: str
    """Of the definition as it was written (key order is meaning)."""
    plan_digest: str | None
    """Of the plan body: changes with a registered tool, an alias or a server default as well."""
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
