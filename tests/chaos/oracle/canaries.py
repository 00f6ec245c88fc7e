"""K1: a secret that only a worker may send is nowhere else: not in any table, log, event or webhook, not in Redis.

Looked for as it is, as base64 and as the hex that Postgres prints bytes in.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from tests.chaos.oracle.ledgers import Receipt
from tests.chaos.oracle.verdicts import Checked, Violation

_CHUNK: Final = 1 << 20


def nowhere(canaries: Sequence[str], *, places: Mapping[str, Iterable[bytes]]) -> Checked:
    """`places`: name → its bytes in chunks (a dump, a log, what was received)."""
    looked, found = 0, []
    for place, chunks in places.items():
        tail = b""
        for chunk in chunks:
            looked += len(chunk)
            window = tail + chunk
            found += [
                Violation(law="K1", words=f"the secret {canary[:6]}… is in {place}")
                for canary in canaries
                if any(form in window for form in forms(canary))
            ]
            tail = window[-4 * max(map(len, canaries), default=1) :]
    return Checked(law="K1", says="secrets are nowhere", count=looked, of="bytes", violations=_once(found))


def forms(canary: str) -> tuple[bytes, ...]:
    raw = canary.encode()
    # A base64 text's middle depends on where it starts: what is inside at each of the three offsets.
    inside = tuple(base64.b64encode(b"\0" * offset + raw)[4:-4] for offset in range(3))
    return (raw, raw.hex().encode(), *inside)


def _once(found: list[Violation]) -> list[Violation]:
    return list({violation.words: violation for violation in found}.values())


def dump(url: str) -> Iterator[bytes]:
    """Every row of every table as COPY prints it."""
    with psycopg.connect(url, application_name="oracle") as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))) as rows:
                yield from (bytes(chunk) for chunk in rows)


def log(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def webhooks(receipts: Iterable[Receipt]) -> Iterator[bytes]:
    for receipt in receipts:
        yield receipt.body + b"\n" + repr(dict(receipt.headers)).encode() + b"\n"
