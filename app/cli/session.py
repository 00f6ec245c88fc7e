"""From the options before the command to a client: what `surefoot --url … --key …` chose."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from app.cli import target

if TYPE_CHECKING:
    from app.cli.client import Client


@dataclass(frozen=True, kw_only=True)
class Chosen:
    url: str | None
    key: str | None


def client_of(ctx: typer.Context) -> Client:
    from app.cli.client import Client

    chosen: Chosen = ctx.obj
    return Client(target.find(url=chosen.url, key=chosen.key, environment=os.environ))
