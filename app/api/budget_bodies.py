"""Budgets in request bodies: of a submission, and what a top-up adds."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from app.api import body
from app.domain.accounts import Limits
from app.domain.amounts import MICRO
from app.domain.definition.budgeting import MOST, MOST_USD
from app.domain.durations import DurationError, parse_duration

LONGEST: Final = 32
"""Digits of an amount: no budget needs more, and arithmetic with a million of them takes its time."""
_WORDS: Final = "a number or decimal text, as 0.10, with six decimals at most"


def _dollars(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > LONGEST:
        raise ValueError(f"dollars are {_WORDS}")
    try:
        amount = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"dollars are {_WORDS}") from error
    whole = (amount * MICRO) if amount.is_finite() else Decimal(0)
    if not 1 <= whole <= MOST_USD * MICRO or whole != whole.to_integral_value():
        raise ValueError(f"dollars are {_WORDS}, from 0.000001 to {MOST_USD:,}")
    return amount


def _microusd(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount * MICRO)


def _duration(value: str) -> str:
    try:
        parse_duration(value)
    except DurationError as error:
        raise ValueError(str(error)) from error
    return value


Dollars = Annotated[
    Decimal,
    BeforeValidator(_dollars),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}], "description": "Dollars, as 0.10."}),
]
Count = Annotated[int, Field(ge=1, le=MOST)]
Duration = Annotated[str, StringConstraints(max_length=32), AfterValidator(_duration)]


class AmountsBody(body.Body):
    usd: Dollars | None = None
    tokens: Count | None = None
    """Of model calls, input and output, cached ones included."""
    turns: Count | None = None
    """Of agents: each answer of a model that is not the repetition of one."""
    tool_calls: Count | None = None
    duration: Duration | None = None
    """Of the time in which a call is due or in flight, as `15m`; waiting for people does not count."""
    recovery_usd: Dollars | None = None
    """Of what attempts cost that had to be made good."""

    @model_validator(mode="after")
    def _something(self) -> AmountsBody:
        if all(getattr(self, name) is None for name in AmountsBody.model_fields):
            raise ValueError("say at least one of usd, tokens, turns, tool_calls, duration and recovery_usd")
        return self

    def amounts(self) -> Limits:
        return Limits(
            microusd=_microusd(self.usd),
            tokens=self.tokens,
            turns=self.turns,
            tool_calls=self.tool_calls,
            duration=None if self.duration is None else parse_duration(self.duration),
            recovery_microusd=_microusd(self.recovery_usd),
        )


class BudgetBody(AmountsBody):
    """What a workflow may take at most; each value stands for the definition's."""

    on_exceeded: Literal["fail", "pause"] | None = None
    """`fail`: the step that cannot be paid for fails; `pause`: its call waits for a top-up."""

    def limits(self) -> Limits:
        return Limits(on_exceeded=self.on_exceeded).under(self.amounts())
