"""The settings for a process that is about to start, or a `CannotStart` that names the variable and what is wrong.

Addresses are read here, too, because a typing error in one would otherwise look like a server that does not answer.
Never repeats a value: a database URL or a secret may hold a password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from app.embedded.refusal import CannotStart

if TYPE_CHECKING:
    from app.settings import Settings

REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
_LISTED: Final = "docs/settings.md lists every setting."


def read() -> Settings:
    from pydantic import ValidationError
    from pydantic_settings.exceptions import SettingsError

    from app.settings import Settings

    try:
        settings = Settings()
    except SettingsError as error:  # what should be JSON is not; pydantic-settings names the field in its message only
        named = re.search(r'field "(\w+)"', str(error))
        place = _variable(named.group(1)) if named else "A setting"
        raise CannotStart(f"{place} is not JSON: {error.__cause__}.", fix=_LISTED) from error
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(str(fault['loc'][0]))}: {_said(fault)}" for fault in error.errors())
        raise CannotStart(f"The settings do not fit: {wrong}", fix=_LISTED) from error
    _check_addresses(settings)
    return settings


def _check_addresses(settings: Settings) -> None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(settings.database_url)
    except ProgrammingError:
        raise CannotStart(
            "SUREFOOT_DATABASE_URL is not the address of a Postgres.",
            fix="Write it as postgresql://user:password@host:5432/name.",
        ) from None
    if settings.redis_url and urlsplit(settings.redis_url).scheme not in REDIS_SCHEMES:
        raise CannotStart(
            "SUREFOOT_REDIS_URL is not the address of a Redis.",
            fix="Write it as redis://host:6379/0, rediss://… or unix:///path/to.sock.",
        )


def _said(fault: Any) -> str:
    return str(fault["msg"]).removeprefix("Value error, ")


def _variable(name: str) -> str:
    """The environment's name of a setting; those of the Anthropic SDK keep their own."""
    upper = name.upper()
    return upper if upper.startswith("ANTHROPIC_") else f"SUREFOOT_{upper}"
