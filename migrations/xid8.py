"""Postgres's 64-bit transaction id as a column type: a copy of the one in `app/store/tables.py`, frozen here.

A migration must still run when the application's type has been renamed or removed.
"""

from __future__ import annotations

from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"
