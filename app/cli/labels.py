"""`NAME=VALUE` as given to `--label`: of a workflow that is submitted, or of those that are listed."""

from __future__ import annotations

from app.cli.exits import Stop


def label(text: str) -> tuple[str, str]:
    """(name, value). Raises `Stop` if there is no name or no `=`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Stop(f"--label {text}: a label is NAME=VALUE.", fix="For example --label team=sales")
    return name, value
