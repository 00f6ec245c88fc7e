"""A Python tool that does nothing: what the engine costs is all that a workflow of it costs.

`site(folder)` makes it an installed distribution for whoever has that folder on PYTHONPATH: entry points are read
from `*.dist-info`, and that is all an installer would write of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

DISTRIBUTION: Final = "surefoot-bench"
DECLARATION: Final[dict[str, Any]] = {
    "description": "Do nothing.",
    "python": f"{DISTRIBUTION}:noop",
    "effect": "idempotent",
    "input_schema": {"type": "object"},
    "timeout": "10s",
}


async def noop(**_: object) -> dict[str, object]:
    return {}


def site(folder: Path) -> Path:
    """The folder, with the distribution in it."""
    info = folder / f"{DISTRIBUTION.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[surefoot.tools]\nnoop = bench.instant_tools:noop\n")
    return folder
