"""What a model's tokens cost at most, as it was pinned when a workflow was accepted: the price of a worst case.

    Rate.cost(input, output)        micro-dollars, rounded up
    Rate.affordable(input, money)   how many tokens of output that much money buys after that input

A rate is an upper bound: the dearest way in which the tokens could be billed (a write to the provider's cache, a
region's surcharge, a price that begins later). `app/ports/prices.py` makes it from the price table; the plan pins it
with the table's version. Pure integers: micro-dollars for a million tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.domain.outcomes import JSON

MILLION: Final = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """Prices of a request whose input is longer than `above` tokens: all its tokens are billed by them."""

    above: int
    input: int
    output: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    version: str
    """Of the price table."""
    tiers: tuple[Tier, ...]
    """At least one; the first begins at 0."""

    def cost(self, *, input: int, output: int) -> int:
        """Of the dearest tier that this much input may reach: the input is itself an upper bound."""
        return max(
            -(-(input * tier.input + output * tier.output) // MILLION)
            for tier in self.tiers
            if tier.above == 0 or input > tier.above
        )

    def affordable(self, *, input: int, microusd: int) -> int:
        """Tokens of output; never negative."""
        least = min(
            (microusd * MILLION - input * tier.input) // max(tier.output, 1)
            for tier in self.tiers
            if tier.above == 0 or input > tier.above
        )
        return max(least, 0)

    def to_json(self) -> dict[str, JSON]:
        tiers = [{"above": tier.above, "input": tier.input, "output": tier.output} for tier in self.tiers]
        return {"version": self.version, "tiers": tiers}

    @staticmethod
    def from_json(value: Mapping[str, JSON]) -> Rate:
        return Rate(version=value["version"], tiers=tuple(Tier(**tier) for tier in value["tiers"]))
