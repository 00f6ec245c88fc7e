"""Which server the command line talks to: `--url/--key`, else SUREFOOT_URL/SUREFOOT_KEY, else `.surefoot/ready.json`.

The ready file is what `surefoot up` writes in the directory it was started in. Never guesses a port.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from app.cli.exits import UNREACHABLE, USAGE, Stop

READY_FILE: Final = Path(".surefoot/ready.json")
START: Final = "Start one here with `surefoot up`, or set SUREFOOT_URL and SUREFOOT_KEY."


@dataclass(frozen=True, kw_only=True)
class Target:
    url: str
    key: str


def find(*, url: str | None, key: str | None, environment: Mapping[str, str], ready_file: Path = READY_FILE) -> Target:
    """Raises `Stop` with what to do if no server or no key is known."""
    ready = _ready(ready_file)
    url = url or environment.get("SUREFOOT_URL") or ready.get("url")
    if not url:
        raise Stop("No server is known: neither --url nor SUREFOOT_URL nor a ready file.", fix=START, code=UNREACHABLE)
    if not _is_server(url):
        raise Stop(f"{url} is not the URL of a server.", fix="Write it with its scheme: http://127.0.0.1:8080")
    same = ready.get("url", "").rstrip("/") == url.rstrip("/")
    key = key or environment.get("SUREFOOT_KEY") or (ready.get("key") if same else None)
    if not key:
        fix = "Give --key before the command, or set SUREFOOT_KEY; `surefoot up` prints the key."
        raise Stop(f"No API key is known for {url}.", fix=fix, code=USAGE)
    if not (key.isascii() and key.isprintable()):
        raise Stop("The API key holds characters that no key has.", fix="Copy it again: sf_…, letters, digits and _.")
    return Target(url=url.rstrip("/"), key=key)


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _ready(path: Path) -> dict[str, str]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Stop(f"{path} is not JSON: {error}.", fix="Remove it and start `surefoot up` again.") from error
    return {name: found[name] for name in ("url", "key") if isinstance(found.get(name), str)}
