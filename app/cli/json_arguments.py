"""An option that takes JSON: the text itself, or `@file`."""

from __future__ import annotations

import json
from pathlib import Path

from app.cli.exits import Stop
from app.domain.outcomes import JSON


def json_argument(given: str, *, option: str) -> JSON:
    """The value. Raises `Stop` naming the option if it is no JSON or its file cannot be read."""
    try:
        text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
    except OSError as error:
        raise Stop(f"{option}: {given[1:]} cannot be read: {error.strerror}.", fix="Check the path.") from error
    except UnicodeDecodeError as error:
        raise Stop(f"{option}: {given[1:]} is not UTF-8 text (byte {error.start}).", fix="Save it as UTF-8.") from error
    try:
        return json.loads(text)
    except ValueError as error:
        fix = f"Quote it for the shell: {option} '{{…}}', or use {option} @file.json"
        raise Stop(f"{option} is not JSON: {error}.", fix=fix) from error
