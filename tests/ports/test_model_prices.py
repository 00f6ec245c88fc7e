"""What an answer costs."""

from __future__ import annotations

from typing import Any

import pytest

from app.ports import prices


def _message(model: str | None, **usage: Any) -> dict[str, Any]:
    return {"model": model, "usage": usage}


@pytest.mark.parametrize(
    ("message", "microusd"),
    [
        (_message("claude-sonnet-5-5", input_tokens=1_000, output_tokens=500), 7_000),
        (_message("claude-sonnet-5-5", input_tokens=1_000, output_tokens=500, inference_geo="us"), 7_700),
        (_message("claude-opus-5", input_tokens=0, output_tokens=0, cache_read_input_tokens=1_000_000), 500_000),
        (_message("claude-opus-5", input_tokens=0, output_tokens=0, cache_creation_input_tokens=1_000_000), 6_250_000),
        (_message("claude-haiku-5-5", input_tokens=100_000, output_tokens=0), 10_000),
        (_message("claude-haiku-5-5", input_tokens=100_001, output_tokens=0), 50_000),
    ],
    ids=str,
)
def test_cost_follows_the_price_list_of_the_model(message: dict[str, Any], microusd: int) -> None:
    usage = prices.usage_of(message)

    assert usage is not None
    assert usage.cost_microusd == pytest.approx(microusd, abs=1)
    assert usage.price_version is not None
    assert usage.price_version.startswith("genai-prices/")


@pytest.mark.parametrize("model", ["claude-unheard-of", None, ""])
def test_cost_is_unknown_and_never_zero_when_the_model_has_no_price(model: str | None) -> None:
    usage = prices.usage_of(_message(model, input_tokens=10, output_tokens=10))

    assert usage is not None
    assert (usage.cost_microusd, usage.price_version) == (None, None)


@pytest.mark.parametrize("message", [{}, {"usage": None}, {"usage": [1]}], ids=str)
def test_usage_is_unknown_when_the_provider_says_nothing_about_tokens(message: dict[str, Any]) -> None:
    assert prices.usage_of(message) is None


def test_tokens_are_counted_exclusive_of_the_cache() -> None:
    usage = prices.usage_of(
        _message(
            "claude-opus-5", input_tokens=5, output_tokens=7, cache_read_input_tokens=11, cache_creation_input_tokens=13
        )
    )

    assert usage is not None
    counted = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    assert counted == (5, 7, 11, 13)


def test_odd_counts_cost_an_unknown_amount_and_raise_nothing() -> None:
    usage = prices.usage_of(_message("claude-opus-5", input_tokens="many", output_tokens=None))

    assert usage is not None
    assert (usage.input_tokens, usage.cost_microusd) == (0, None)


# --- the worst case that a budget pins ---


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5"])
@pytest.mark.parametrize("read", [1, 100_000, 100_001, 900_000])
@pytest.mark.parametrize("kind", ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"])
@pytest.mark.parametrize("geo", [None, "us"])
def test_rate_is_never_less_than_what_an_answer_costs(model: str, read: int, kind: str, geo: str | None) -> None:
    usage = {"input_tokens": 0, kind: read, "output_tokens": 4_096} | ({} if geo is None else {"inference_geo": geo})

    billed, rate = prices.usage_of(_message(model, **usage)), prices.rate_of(model)

    assert billed is not None
    assert billed.cost_microusd is not None
    assert rate is not None
    assert rate.version == billed.price_version
    assert rate.cost(input=read, output=4_096) >= billed.cost_microusd


@pytest.mark.parametrize("model", ["claude-unheard-of", ""])
def test_model_without_a_price_has_no_rate(model: str) -> None:
    assert prices.rate_of(model) is None
