"""`surefoot up` with a stand-in API and workers (stand_in_part.py): `stand_in_up.py DATA PORT [--ephemeral]`.

Everything else is the real thing: Postgres, Valkey, migrations, the scripted model, the demo tools, the supervisor.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from app.embedded import schema
from app.embedded.parts import Commands
from app.embedded.ready import Ready
from app.embedded.refusal import CannotStart
from app.embedded.up import Identity, Options, Verbs, up
from app.settings import Settings

PART = str(Path(__file__).with_name("stand_in_part.py"))


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def identify(_url: str, known: Identity | None) -> Identity:
    return known or Identity(key="sf_local_first", webhook_secret="whsec_first")


async def register(url: str, tools_url: str) -> None:
    tell(f"registered {tools_url}")


def welcome(found: Ready) -> None:
    tell(f"data {found.data}\nready {found.url}")


def main() -> int:
    data, port = Path(sys.argv[1]), int(sys.argv[2])
    options = Options(settings=Settings(), data=data, port=port, ephemeral="--ephemeral" in sys.argv)
    commands = Commands(api=(sys.executable, PART, "api"), worker=(sys.executable, PART, "worker"))
    verbs = Verbs(migrate=schema.upgrade, identify=identify, register=register)
    try:
        asyncio.run(up(options, verbs=lambda: verbs, commands=commands, welcome=welcome))
    except CannotStart as refusal:
        tell(f"{refusal.what}\n{refusal.fix}")
        return refusal.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
