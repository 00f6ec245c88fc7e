"""The ready file: where everything is, once everything is ready. Written for scripts, tests and the command line.

Mode 0600 (it holds a key), replaced atomically, all keys always present: a part that was replaced by a URL of the
operator's has the URL and no pid (null). Written when `/readyz` says 200 and every worker has beaten once, again when
a child was restarted, removed at exit by whoever wrote it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    url: str
    key: str
    webhook_secret: str
    database_url: str
    """libpq form."""
    redis_url: str
    """redis-py form."""
    model_url: str
    tools_url: str
    data: str
    pids: Mapping[str, int | None]
    """supervisor, api, postgres, redis, model, tools, worker.1 …"""


def write(path: Path, ready: Ready) -> None:
    private_file(path, json.dumps(asdict(ready), indent=2) + "\n")


def remove(path: Path, *, supervisor: int) -> None:
    """Remove it, unless another supervisor has written its own there meanwhile."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return
    if isinstance(found, dict) and found.get("pids", {}).get("supervisor") == supervisor:
        path.unlink(missing_ok=True)


def private_file(path: Path, text: str) -> None:
    """Put a file there in one step, readable by its owner only from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)
