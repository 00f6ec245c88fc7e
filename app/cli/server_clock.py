"""What time it is where the workflows are: the database's clock, which is the one that stamps them.

This machine's clock may be minutes off, and "in doubt since 2h ago" would then mean other doubts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from app.cli.exits import Stop

if TYPE_CHECKING:
    from app.cli.client import Client

_SAMPLE: Final = "surefoot_database_time_seconds "


def now(client: Client) -> datetime:
    """Raises `Stop` if the server cannot tell (its database does not answer)."""
    for line in str(client.get("/metrics")).splitlines():
        if line.startswith(_SAMPLE):
            return datetime.fromtimestamp(float(line.removeprefix(_SAMPLE)), UTC)
    raise Stop("The server does not know what time it is.", fix="Give an instant, like 2026-11-22T13:05:00Z.")
