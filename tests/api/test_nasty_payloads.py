"""One table of nasty bytes through POST /v1/workflows: always a known problem or an acceptance, never a 5xx."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from app.api.shapes.problem import Problem
from app.store.database import Database
from tests.api.test_posting_workflows import workflows_in

pytestmark = pytest.mark.anyio


def around(value: bytes, *, field: bytes = b"input") -> bytes:
    definition = b'{"name":"x","steps":{"a":{"set":{"b":1}}}}'
    return b'{"definition":' + definition + b',"' + field + b'":' + value + b"}"


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "malformed_json"),
    "white space": (b" \n\t ", 400, "malformed_json"),
    "NUL byte": (b"\x00", 400, "malformed_json"),
    "half an object": (b'{"definition":', 400, "malformed_json"),
    "trailing comma": (b'{"definition":{},}', 400, "malformed_json"),
    "two values": (b"{}{}", 400, "malformed_json"),
    "single quotes": (b"{'definition':1}", 400, "malformed_json"),
    "invalid UTF-8": (around(b'{"a":"\xff\xfe"}'), 400, "malformed_json"),
    "overlong UTF-8": (around(b'{"a":"\xc0\x80"}'), 400, "malformed_json"),
    "surrogate in UTF-8": (around(b'{"a":"\xed\xa0\x80"}'), 400, "malformed_json"),
    "UTF-16": ('{"definition":{}}'.encode("utf-16"), 400, "malformed_json"),
    "raw control character": (around(b'{"a":"\x01"}'), 400, "malformed_json"),
    "gzip": (gzip.compress(around(b"{}")), 400, "malformed_json"),
    "YAML": (b"definition:\n  name: x\n", 400, "malformed_json"),
    "a form": (b"definition=x&input=y", 400, "malformed_json"),
    "an array": (b"[]", 422, "invalid_value"),
    "a string": (b'"definition"', 422, "invalid_value"),
    "null": (b"null", 422, "invalid_value"),
    "a number": (b"1e400", 422, "invalid_value"),
    "empty object": (b"{}", 422, "invalid_value"),
    "duplicate key": (around(b'{"a":1,"a":2}'), 422, "invalid_value"),
    "duplicate top-level key": (b'{"input":{},"input":{},"definition":{}}', 422, "invalid_value"),
    "NUL in a string": (around(b'{"a":"\\u0000"}'), 422, "invalid_value"),
    "NUL in a key": (around(b'{"\\u0000":1}'), 422, "invalid_value"),
    "NUL in a label": (around(b'{"team":"\\u0000"}', field=b"labels"), 422, "invalid_value"),
    "lone high surrogate": (around(b'{"a":"\\ud800"}'), 422, "invalid_value"),
    "lone low surrogate": (around(b'{"a":"\\udfff x"}'), 422, "invalid_value"),
    "surrogate in a key": (around(b'{"\\ud800":1}'), 422, "invalid_value"),
    "surrogate as a field": (b'{"\\ud800":1,"definition":{}}', 422, "invalid_value"),
    "NaN": (around(b'{"a":NaN}'), 422, "invalid_value"),
    "Infinity": (around(b'{"a":-Infinity}'), 422, "invalid_value"),
    "a double too large": (around(b'{"a":1e400}'), 422, "invalid_value"),
    "beyond jsonb": (around(b'{"a":1e131073}'), 422, "invalid_value"),
    "1,001 digits": (around(b'{"a":' + b"9" * 1001 + b"}"), 422, "invalid_value"),
    "4,301 digits": (around(b'{"a":' + b"9" * 4301 + b"}"), 422, "invalid_value"),
    "65 levels": (around(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"), 422, "invalid_value"),
    "20,000 brackets": (b"[" * 20_000, 422, "invalid_value"),
    "20,000 levels": (around(b"[" * 20_000 + b"]" * 20_000), 422, "invalid_value"),
    "20,000 objects": (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, 422, "invalid_value"),
    "many unknown fields": (b"{" + b",".join(b'"f%d":1' % n for n in range(5_000)) + b"}", 422, "invalid_value"),
    "prototype pollution": (around(b"{}", field=b"__proto__"), 422, "invalid_value"),
    "empty field name": (around(b"{}", field=b""), 422, "invalid_value"),
    "URL with a newline": (around(b'{"url":"http://x\\n.example/"}', field=b"webhook"), 422, "invalid_value"),
    "URL with a bad port": (around(b'{"url":"http://x:99999999/"}', field=b"webhook"), 422, "invalid_value"),
    "URL with a bad bracket": (around(b'{"url":"http://[::1"}', field=b"webhook"), 422, "invalid_value"),
    "endless deadline": (around(b'"999999999999d"', field=b"deadline"), 422, "invalid_value"),
    "Arabic digits": (around('"٣h"'.encode(), field=b"deadline"), 422, "invalid_value"),
    "beyond the limit": (around(b'"' + b"x" * 70_000 + b'"'), 413, "body_too_large"),
}

ACCEPTED: dict[str, bytes] = {
    "byte order mark": b"\xef\xbb\xbf" + around(b"{}"),
    "1,000 digits": around(b'{"a":' + b"9" * 1000 + b"}"),
    "64 levels": around(b'{"a":' + b"[" * 62 + b"]" * 62 + b"}"),
    "smallest double": around(b'{"a":5e-324}'),
    "every plane": around('{"😀":"\U0010ffff\u202e\u200b"}'.encode()),
    "surrogate pair": around(b'{"a":"\\ud83d\\ude00"}'),
    "SQL": around(b'{"a":"\'; DROP TABLE workflows; --"}'),
}

OTHER_TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json-patch+json",
    "application/yaml",
    "application/json; charset=latin-1",
    "multipart/form-data; boundary=x",
    "\u00e9",
    "application/json, text/plain",
]

PATHS = [
    "/v1/workflows/%00",
    "/v1/workflows/wf_%FF%FE",
    "/v1/workflows/..%2f..%2fetc",
    "/v1/workflows/wf_" + "Z" * 26,
    "/v1/workflows/" + "x" * 5_000,
    "/v1/workflows/wf_00000000000000000000000000/steps/%00",
    "/v1/workflows/wf_00000000000000000000000000/steps/a/calls/99999999999999999999",
    "/v1/effects/call_%ED%A0%80",
    "/v1/approvals/'--",
    "/errors/%00",
    "/%00",
]

QUERIES = [
    "label.a=%00",
    "label.=x",
    "label.a=1&bad=1",
    "definition=%00",
    "attention=%00",
    "key=%00",
    "failure.kind=%00",
    "since=yesterday",
    "since=2026-11-22T10:00:00",
    "since=0001-01-01T00:00:00%2B23:59",
    "limit=0",
    "limit=9e9",
    "limit=x",
    "cursor=%00",
    "cursor=!!!!",
    "cursor=e30",
    "cursor=W1tbW1tbW1tbW1tb",
    "cursor=" + "A" * 5_000,
    "status=won",
    "unknown=1",
    "q=x",
]


async def post(api: httpx.AsyncClient, body: bytes, *, content_type: str = "application/json") -> httpx.Response:
    headers = {"Idempotency-Key": "nasty", "Content-Type": content_type}
    return await api.post("/v1/workflows", content=body, headers=headers)


async def test_nasty_body_is_refused_with_a_known_problem_when_posted(
    api: httpx.AsyncClient, database: Database
) -> None:
    wrong: dict[str, str] = {}

    for name, (body, status, code) in REFUSED.items():
        response = await post(api, body)
        problem = Problem.model_validate_json(response.content)
        if (response.status_code, problem.code, problem.status) != (status, code, status):
            wrong[name] = response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert problem.request_id == response.headers["request-id"]

    assert wrong == {}
    assert await workflows_in(database) == 0


async def test_odd_but_sound_body_is_kept_unchanged_when_posted(api: httpx.AsyncClient) -> None:
    for name, body in ACCEPTED.items():
        response = await api.post(
            "/v1/workflows", content=body, headers={"Idempotency-Key": name, "Content-Type": "application/json"}
        )

        assert response.status_code == 202, name
        again = await api.get(response.headers["location"])
        assert again.json()["input"] == json.loads(body.decode("utf-8-sig"))["input"], name


async def test_body_is_refused_when_its_type_is_not_json(api: httpx.AsyncClient) -> None:
    for content_type in OTHER_TYPES:
        headers = [("Idempotency-Key", "k"), ("Content-Type", content_type.encode("utf-8"))]

        response = await api.post("/v1/workflows", content=b"{}", headers=headers)

        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type"), content_type


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
async def test_body_is_read_when_its_type_is_json_in_other_letters(api: httpx.AsyncClient, content_type: str) -> None:
    response = await post(api, around(b"{}"), content_type=content_type)

    assert response.status_code == 202


async def test_endless_body_is_refused_when_its_length_was_not_announced(api: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"[" * 8_192

    response = await api.post(
        "/v1/workflows", content=chunks(), headers={"Idempotency-Key": "k", "Content-Type": "application/json"}
    )

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_position_is_told_when_the_body_is_not_json(api: httpx.AsyncClient) -> None:
    response = await post(api, b'{"definition": {},\n "input" 1}')

    assert "line 2, column 10" in response.json()["detail"]


async def test_pointers_are_told_when_values_cannot_be_stored(api: httpx.AsyncClient) -> None:
    response = await post(api, around(b'{"a":[1,NaN],"b/c":"\\u0000"}'))

    assert {error["pointer"] for error in response.json()["errors"]} == {"/input/a/1", "/input/b~1c"}


async def test_nasty_path_is_not_found_when_asked_for(api: httpx.AsyncClient) -> None:
    for path in PATHS:
        response = await api.get(path)

        assert response.status_code in (404, 422), path
        assert Problem.model_validate_json(response.content).code in ("not_found", "invalid_value"), path


async def test_nasty_query_is_refused_with_its_name_when_listing(api: httpx.AsyncClient) -> None:
    for query in QUERIES:
        response = await api.get(f"/v1/workflows?{query}")

        problem = Problem.model_validate_json(response.content)
        assert response.status_code == 422, query
        assert any(error.pointer.startswith("?") for error in problem.errors), query
