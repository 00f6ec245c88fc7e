"""The installed version of Surefoot."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def installed() -> str:
    """As the package's metadata say; `0` in a tree that was never installed."""
    try:
        return metadata.version("surefoot")
    except metadata.PackageNotFoundError:
        return "0"
