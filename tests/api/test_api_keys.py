"""The form of API keys."""

from __future__ import annotations

import hashlib

import pytest

from app.domain import api_keys

RANDOM = bytes(range(api_keys.RANDOM_BYTES))


def test_key_is_read_back_when_it_was_just_made() -> None:
    made = api_keys.new_key("local", RANDOM)

    parsed = api_keys.parse(made.text)

    assert (parsed.env, parsed.public_id, parsed.sha256) == ("local", made.public_id, made.sha256)
    assert made.text.startswith(f"sf_local_{made.public_id}_")
    assert made.sha256 == hashlib.sha256(made.text.encode()).digest()


@pytest.mark.parametrize("position", range(12, 70, 3))
def test_key_is_refused_when_one_character_is_mistyped(position: int) -> None:
    text = api_keys.new_key("local", RANDOM).text
    mistyped = text[:position] + ("a" if text[position] != "a" else "b") + text[position + 1 :]

    with pytest.raises(api_keys.MalformedKey) as refusal:
        api_keys.parse(mistyped)

    assert mistyped not in str(refusal.value)


@pytest.mark.parametrize("env", ["", "Local", "1local", "lo_cal", "x" * 17])
def test_key_is_not_made_when_the_environment_cannot_be_read_back(env: str) -> None:
    with pytest.raises(ValueError, match="environment"):
        api_keys.new_key(env, RANDOM)


def test_admin_may_do_everything_when_scopes_are_asked() -> None:
    assert all(api_keys.allows(frozenset({"admin"}), scope) for scope in api_keys.SCOPES)
    assert not api_keys.allows(frozenset({"read"}), "submit")
