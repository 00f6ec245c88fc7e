"""What is known of models: by id, with or without a date, and conservative where nothing is known."""

from __future__ import annotations

from typing import get_args

import pytest

from app.domain import model_facts
from app.domain.model_facts import FACTS, MILLION, UNKNOWN, facts, reads_thinking


@pytest.mark.parametrize(
    ("model", "window", "most"),
    [
        ("claude-haiku-5-5", MILLION, 128_000),
        ("claude-haiku-4-5-20251001", 200_000, 64_000),
        ("claude-opus-4-5@20251101", 200_000, 64_000),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 64_000),
        ("claude-sonnet-4-20250514", 200_000, 64_000),
        ("claude-opus-5-latest", MILLION, 128_000),
        ("claude-scripted-small", 8_000, 2_000),
    ],
)
def test_model_has_the_facts_of_its_id_with_or_without_a_date(model: str, window: int, most: int) -> None:
    assert (facts(model).window, facts(model).max_output) == (window, most)


@pytest.mark.parametrize("model", ["", "qwen3:8b", "claude-opus-5-9", "claude-opus-55", "my-claude-haiku-5-5x"])
def test_model_that_is_not_known_gets_conservative_facts(model: str) -> None:
    assert facts(model) == UNKNOWN


def test_every_model_that_the_sdk_names_is_known() -> None:
    from anthropic.types import model

    named = [name for part in get_args(model.Model) if part is not str for name in get_args(part)]

    assert len(named) > 15
    assert [name for name in named if facts(name) == UNKNOWN] == []


def test_windows_agree_with_the_price_table() -> None:
    from genai_prices.data import providers

    [anthropic] = [provider for provider in providers if provider.id == "anthropic"]
    told = {model.id: model.context_window for model in anthropic.models if model.context_window}

    assert {name: window for name, window in told.items() if name in FACTS and FACTS[name].window != window} == {}


def test_system_messages_go_only_to_models_that_take_them() -> None:
    assert facts("claude-opus-4-8").system_messages
    assert facts("claude-haiku-5-5").system_messages
    assert not facts("claude-sonnet-5").system_messages
    assert not facts("claude-haiku-4-5").system_messages
    assert not UNKNOWN.system_messages


def test_thinking_is_read_by_its_maker_and_by_later_known_models_alone() -> None:
    assert reads_thinking("claude-fable-5-1", of="claude-opus-5-5")
    assert not reads_thinking("claude-opus-5-5", of="claude-fable-5-1")
    assert reads_thinking("own-model", of="own-model")
    assert not reads_thinking("own-model", of="claude-opus-5-5")
    assert not reads_thinking("claude-opus-5-5", of="own-model")


def test_generations_are_places_in_the_order_of_release() -> None:
    real = [entry.generation for name, entry in FACTS.items() if not name.startswith("claude-scripted")]

    assert real == sorted(real)
    assert min(real) > UNKNOWN.generation == 0
    assert model_facts.FACTS["claude-scripted-small"].generation == FACTS["claude-haiku-4-5"].generation
