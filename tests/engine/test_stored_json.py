"""What was stored as JSON is read as the standard library reads it, also where the quick parser would not take it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from app.store.database import Database

QUICK: dict[str, str] = {
    "an object": '{"b":1,"a":[null,true,false,{}]}',
    "text of every plane": '"a\\u00e9\\ud83d\\ude00\U0010ffff"',
    "a NUL": '"a\\u0000b"',
    "zero": "0",
    "minus zero": "-0",
    "minus nothing": "-0.0",
    "a whole float": "1.0",
    "a tenth": "0.1",
    "an exponent": "1E2",
    "17 digits": "0.30000000000000004",
    "smallest double": "5e-324",
    "largest double": "1.7976931348623157e308",
    "less than any double": "1e-400",
    "30 digits": "123456789012345678901234567890",
    "1,000 digits": "9" * 1000,
}
SLOW: dict[str, str] = {
    "half a surrogate pair": '"a\\ud800b"',
    "the other half": '{"\\udfff":1}',
    "900 levels": "[" * 900 + "]" * 900,
}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, pool_size=1)
    yield made
    await made.close()


@pytest.mark.parametrize("text", [*QUICK.values(), *SLOW.values()], ids=[*QUICK, *SLOW])
async def test_stored_json_is_read_as_the_standard_library_reads_it(database: Database, text: str) -> None:
    async with database.hot("test") as connection:
        row = await (await connection.execute("SELECT %(text)s::json AS value", {"text": text})).fetchone()

    assert row is not None
    assert repr(row["value"]) == repr(json.loads(text))  # 0, -0.0 and 0.0 are three
