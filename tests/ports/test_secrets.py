"""Secrets: masked in every spelling a server may echo, and no ordinary text torn apart."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from pydantic import SecretStr

from app.ports.secrets import MASK, MIN_MASKED, Secrets

SECRET = 'p@ss/w"örd 123'
ECHOES = {
    "as it is": SECRET,
    "in JSON": json.dumps({"echo": SECRET}),
    "in JSON, not escaped": json.dumps({"echo": SECRET}, ensure_ascii=False),
    "percent-encoded": quote(SECRET, safe=""),
    "as a form": quote_plus(SECRET),
    **{
        f"basic authentication of {user!r}": base64.b64encode(f"{user}:{SECRET}".encode()).decode()
        for user in ("", "u", "us", "use", "user")
    },
}


def readable(echo: str) -> bool:
    """Could somebody read the secret off this?"""
    return any(spelling in echo for spelling in (SECRET, "123", "p%40ss", "w%22", 'w\\"'))


@pytest.mark.parametrize("spelling", ECHOES)
def test_secret_is_masked_however_a_server_echoes_it(spelling: str) -> None:
    echo = ECHOES[spelling]
    secrets = Secrets({"calendar": SecretStr(SECRET)})

    as_bytes, as_text = secrets.mask(echo.encode()), secrets.mask_text(echo)

    assert as_bytes.decode() == as_text
    assert MASK in as_text
    assert not readable(as_text)
    if "basic" in spelling:
        rest = as_text.partition(MASK)[0]
        assert len(echo) - len(rest) > len(SECRET)


def test_longer_secret_is_masked_whole_although_a_shorter_one_is_part_of_it() -> None:
    secrets = Secrets({"a": SecretStr("secret"), "b": SecretStr("secret-of-b")})

    assert secrets.mask_text("x secret-of-b y secret z") == f"x {MASK} y {MASK} z"


def test_short_value_is_not_masked_because_it_occurs_in_innocent_text() -> None:
    secrets = Secrets({"flag": SecretStr("a" * (MIN_MASKED - 1)), "empty": SecretStr("")})

    assert secrets.mask(b"aaaaaaaa") == b"aaaaaaaa"
    assert secrets.longest == 0


def test_secrets_do_not_show_when_they_are_printed() -> None:
    assert SECRET not in repr(Secrets({"calendar": SecretStr(SECRET)}))


def test_bindings_remember_what_was_asked_for_in_vain() -> None:
    bindings = Secrets({"calendar": SecretStr(SECRET)}).bindings()

    assert "calendar" in bindings
    assert "mail" not in bindings
    assert bindings.missing == ["mail"]


def test_secret_of_one_request_is_masked_beside_the_others_and_given_to_no_template() -> None:
    shared = Secrets({"calendar": SecretStr(SECRET)})

    both = shared.and_of_request("rt_2f6c1b0a9d")

    assert both.mask_text(f"{SECRET} rt_2f6c1b0a9d") == f"{MASK} {MASK}"
    assert both.longest >= shared.longest
    assert both.bindings() == {"calendar": SECRET}
    assert shared.mask_text("rt_2f6c1b0a9d") == "rt_2f6c1b0a9d"


def test_longer_secret_is_masked_whole_although_the_one_of_the_request_is_part_of_it() -> None:
    both = Secrets({"calendar": SecretStr("secret-of-calendar")}).and_of_request("secret")

    assert both.mask(b"x secret-of-calendar y") == f"x {MASK} y".encode()
