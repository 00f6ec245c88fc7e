"""What a model's answer costs: tokens as the provider counted them, money by the `genai-prices` table.

Offline: the table comes with the package and is never fetched. A model that is not in it has the cost None, which is
shown as unknown and never as zero. Importing the table takes about half a second: it is imported on first use, and
`warm` does that ahead of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from app.domain.outcomes import JSON, Usage

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


def _count(usage: Mapping[str, JSON], field: str) -> int:
    value = usage.get(field)
    return value if isinstance(value, int) and value > 0 else 0
