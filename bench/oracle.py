"""Was anything lost, or done twice? Asked of the client (what it was promised) and of the tool (what arrived).

Postgres is asked for the calls that belong to the promises; it is never believed about what happened.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg

from app.domain import ids

Connection = psycopg.Connection[Any]
Arrivals = Mapping[str, Sequence[float]]
"""Call id → when each of its requests reached the tool, seconds since 1970."""


def arrivals(tools_url: str) -> Arrivals:
    connection = http.client.HTTPConnection(urlsplit(tools_url).netloc, timeout=60)
    try:
        connection.request("GET", "/ledger")
        told: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    found: Arrivals = told["arrivals"]
    return found


def faults(connection: Connection, *, accepted: Sequence[str], calls: int, arrived: Arrivals | None) -> list[str]:
    """`accepted`: the workflows a 202 promised; `calls`: how many tool calls each makes; `arrived`: None if the tool
    keeps no ledger of ours. What is wrong, in sentences; empty if nothing is."""
    wanted = [ids.decode("wf", workflow) for workflow in accepted]
    found: list[str] = []
    if len(set(accepted)) != len(accepted):
        found.append(f"{len(accepted) - len(set(accepted))} submissions were answered with another one's workflow")
    done = _count(connection, "SELECT count(*) FROM workflows WHERE id = ANY(%s) AND status = 'succeeded'", wanted)
    if done != len(set(accepted)):
        found.append(f"{len(set(accepted)) - done} of {len(accepted)} accepted workflows have not succeeded")
    rows = connection.execute(
        "SELECT id FROM calls WHERE workflow_id = ANY(%s) AND kind = 'tool' AND state = 'succeeded'", [wanted]
    ).fetchall()
    if len(rows) != calls * len(accepted):
        found.append(f"{len(rows)} tool calls succeeded, {calls * len(accepted)} should have")
    if arrived is not None:
        known = [ids.encode("call", row[0]) for row in rows]
        twice = sum(1 for call in known if len(arrived.get(call, ())) > 1)
        never = sum(1 for call in known if not arrived.get(call))
        if twice:
            found.append(f"{twice} calls reached the tool more than once")
        if never:
            found.append(f"{never} calls that count as succeeded never reached the tool")
    return found


def _count(connection: Connection, query: str, wanted: Sequence[Any]) -> int:
    row = connection.execute(query, [list(wanted)]).fetchone()  # type: ignore[call-overload]
    return 0 if row is None else int(row[0])
