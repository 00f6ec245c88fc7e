"""What a model's answer costs: tokens as the provider counted them, money by the `genai-prices` table.

    usage_of    what one answer did cost, with the table's version
    rate_of     what a model's tokens cost at most, for a budget that must be kept: pinned in the plan

Offline: the table comes with the package and is never fetched. A model that is not in it has the cost None, which is
shown as unknown and never as zero. Importing the table takes about half a second: it is imported on first use, and
`warm` does that ahead of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

from app.domain.outcomes import JSON, Usage
from app.domain.rates import Rate, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, TieredPrices

PROVIDER: Final = "anthropic"

US_ONLY: Final = Decimal("1.1")
"""The provider's factor on every token category for `inference_geo: us`, which the table does not know."""

MICRO: Final = 1_000_000


def warm() -> None:
    """Imports and reads the table. Call it where half a second of CPU does no harm."""
    usage_of({"model": "claude-haiku-5-5", "usage": {"input_tokens": 1, "output_tokens": 1}})


def usage_of(message: Mapping[str, JSON]) -> Usage | None:
    """Usage and cost of a whole answer in the provider's shape; None if it says nothing about tokens."""
    counted = tokens_of(message)
    if counted is None:
        return None
    cost, version = _cost(message)
    return Usage(
        input_tokens=counted.input_tokens,
        output_tokens=counted.output_tokens,
        cache_read_tokens=counted.cache_read_tokens,
        cache_write_tokens=counted.cache_write_tokens,
        model=counted.model,
        cost_microusd=cost,
        price_version=version,
    )


def tokens_of(message: Mapping[str, JSON]) -> Usage | None:
    """Tokens without a price: of an answer that was cut, of which nobody knows what it will cost."""
    usage = message.get("usage")
    if not isinstance(usage, Mapping):
        return None
    model = message.get("model")
    return Usage(
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        cache_read_tokens=_count(usage, "cache_read_input_tokens"),
        cache_write_tokens=_count(usage, "cache_creation_input_tokens"),
        model=model if isinstance(model, str) else None,
    )


def _cost(message: Mapping[str, JSON]) -> tuple[int | None, str | None]:
    import genai_prices

    usage: Mapping[str, JSON] = message["usage"]
    context = {"processing": "batch"} if usage.get("service_tier") == "batch" else {"speed": usage.get("speed")}
    try:
        extracted = genai_prices.extract_usage(dict(message), provider_id=PROVIDER)
        price = extracted.calc_price(price_context={key: word for key, word in context.items() if word})
    except (LookupError, ValueError, TypeError):
        # LookupError is the table's word for an unknown model; the others are its words for counts that are no counts.
        return None, None
    factor = US_ONLY if usage.get("inference_geo") == "us" else Decimal(1)
    return int((price.total_price * factor * MICRO).to_integral_value()), f"genai-prices/{genai_prices.__version__}"


def rate_of(model: str) -> Rate | None:
    """The dearest way in which a request to that model can be billed: its input as a write to the provider's cache,
    the surcharge of a region, every price that the table lists for any day. None: the table does not know the model."""
    import genai_prices
    from genai_prices import data_snapshot

    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(model, None, PROVIDER, None)
    except LookupError:
        return None
    listed = [each.prices for each in found.prices] if isinstance(found.prices, list) else [found.prices]
    starts = {
        0,
        *(tier.start for prices in listed for price in _prices(prices) for tier in getattr(price, "tiers", ())),
    }
    tiers = tuple(
        Tier(
            above=start,
            input=_dearest(listed, ("input_mtok", "cache_write_mtok"), above=start),
            output=_dearest(listed, ("output_mtok",), above=start),
        )
        for start in sorted(starts)
    )
    if not all(tier.input and tier.output for tier in tiers):
        return None  # a model that is free or not priced by its tokens: nothing that a budget could be kept with
    return Rate(version=f"genai-prices/{genai_prices.__version__}", tiers=tiers)


def _prices(prices: ModelPrice) -> list[Decimal | TieredPrices]:
    names = ("input_mtok", "cache_write_mtok", "output_mtok")
    return [price for name in names if (price := getattr(prices, name)) is not None]


def _dearest(listed: list[ModelPrice], names: tuple[str, ...], *, above: int) -> int:
    """Micro-dollars for a million tokens, rounded up."""
    found = [price for prices in listed for name in names if (price := getattr(prices, name)) is not None]
    dearest = max((_at(price, above) for price in found), default=Decimal(0)) * US_ONLY * MICRO
    return int(dearest.to_integral_value(rounding=ROUND_CEILING))


def _at(price: Decimal | TieredPrices, above: int) -> Decimal:
    """Of an input just longer than `above`."""
    if isinstance(price, Decimal):
        return price
    return max([price.base, *(tier.price for tier in price.tiers if tier.start <= above)])


def _count(usage: Mapping[str, JSON], field: str) -> int:
    value = usage.get(field)
    return value if isinstance(value, int) and value > 0 else 0
