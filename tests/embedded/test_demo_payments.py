"""The demo's bank: money moves once or not at all, and its books say so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.embedded import wire
from app.embedded.tool_ledger import Ledger
from app.embedded.tools import Tools

pytestmark = pytest.mark.anyio

PAYMENT: dict[str, Any] = {"reference": "p1", "amount": 1250, "currency": "EUR", "card": "tok_visa"}


@asynccontextmanager
async def _bank(ledger: Path | None = None) -> AsyncIterator[httpx.AsyncClient]:
    tools = Tools(ledger=Ledger(ledger))
    async with (
        wire.listening(tools.handle) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        yield client


async def _authorize(client: httpx.AsyncClient, *, key: str = "a1", **changed: Any) -> httpx.Response:
    return await client.post("/payments/authorizations", json=PAYMENT | changed, headers={"Idempotency-Key": key})


async def _settle(client: httpx.AsyncClient, *, key: str = "s1") -> httpx.Response:
    asked = {"authorization_id": "auth_1"}
    return await client.post("/payments/settlements", json=asked, headers={"Idempotency-Key": key})


async def _refund(client: httpx.AsyncClient, *, key: str = "r1") -> httpx.Response:
    return await client.post("/payments/refunds", json={"settlement_id": "set_1"}, headers={"Idempotency-Key": key})


async def _void(client: httpx.AsyncClient) -> httpx.Response:
    return await client.delete("/payments/authorizations", params={"authorization_id": "auth_1"})


async def _books(client: httpx.AsyncClient) -> Any:
    return (await client.get("/payments/reconcile", params={"authorization_id": "auth_1"})).json()


async def test_bank_moves_money_once_when_each_request_comes_twice() -> None:
    async with _bank() as client:
        first = [(await _authorize(client)).json(), (await _settle(client)).json()]
        second = [(await _authorize(client)).json(), (await _settle(client)).json()]
        books = await _books(client)

    assert first == second
    assert books == {
        "authorization_id": "auth_1", "status": "settled", "authorized": 1250, "settled": 1250, "refunded": 0,
        "balance": 1250,
    }  # fmt: skip


async def test_bank_settles_nothing_twice_when_it_is_asked_with_another_key() -> None:
    async with _bank() as client:
        await _authorize(client)
        statuses = [(await _settle(client, key=key)).status_code for key in ("s1", "s2")]

    assert statuses == [200, 422]


async def test_bank_releases_a_reservation_once_and_says_the_same_again() -> None:
    async with _bank() as client:
        await _authorize(client)
        voided = [(await _void(client)).json() for _ in range(2)]
        settled = await _settle(client)
        entries = (await client.get("/ledger", params={"tool": "payments.void"})).json()["data"]

    assert voided == [{"authorization_id": "auth_1", "voided": True}] * 2
    assert [entry["executed"] for entry in entries] == [True, False]
    assert settled.status_code == 422


async def test_bank_refunds_what_was_settled_and_then_has_nothing_left_to_release() -> None:
    async with _bank() as client:
        await _authorize(client)
        await _settle(client)
        refund = (await _refund(client)).json()
        twice = await _refund(client, key="r2")
        voided = (await _void(client)).json()
        books = await _books(client)

    assert refund == {"refund_id": "ref_1", "settlement_id": "set_1", "authorization_id": "auth_1", "amount": 1250}
    assert twice.status_code == 422
    assert voided == {"authorization_id": "auth_1", "voided": False}
    assert (books["settled"], books["refunded"], books["balance"]) == (1250, 1250, 0)


@pytest.mark.parametrize("check", ["velocity", "sanctions", "device"])
async def test_bank_refuses_a_check_when_the_card_is_made_for_it(check: str) -> None:
    async with _bank() as client:
        await _authorize(client, card=f"tok_{check}")
        answers = {
            each: (
                await client.get("/payments/fraud_check", params={"authorization_id": "auth_1", "check": each})
            ).status_code
            for each in ("velocity", "sanctions", "device")
        }

    assert answers == {**dict.fromkeys(answers, 200), check: 422}


async def test_bank_declines_and_remembers_no_refusal_under_its_key() -> None:
    async with _bank() as client:
        declined = await _authorize(client, card="tok_declined")
        tried_again = await _authorize(client)
        await _authorize(client, key="a2", card="tok_unsettled")
        asked = {"authorization_id": "auth_2"}
        unsettled = await client.post("/payments/settlements", json=asked, headers={"Idempotency-Key": "s2"})

    assert (declined.status_code, tried_again.status_code, unsettled.status_code) == (402, 200, 402)


@pytest.mark.parametrize("amount", [0, -1, 1.5, "12"])
async def test_bank_refuses_an_amount_that_is_no_whole_number_of_the_smallest_unit(amount: Any) -> None:
    async with _bank() as client:
        answer = await _authorize(client, amount=amount)

    assert answer.status_code == 400


async def test_bank_finds_a_payment_by_the_key_of_each_operation_also_after_a_restart(tmp_path: Path) -> None:
    async with _bank(tmp_path / "ledger.jsonl") as client:
        await _authorize(client, key="same")
        await _settle(client, key="s1")
    async with _bank(tmp_path / "ledger.jsonl") as client:
        sought = [("authorize", "same"), ("settle", "s1"), ("settle", "same"), ("refund", "s1")]
        found = [
            (await client.get("/payments/find", params={"operation": operation, "key": key})).json()["payments"]
            for operation, key in sought
        ]

    assert [len(one) for one in found] == [1, 1, 0, 0]
    assert found[0] == [
        {
            "authorization_id": "auth_1", "settlement_id": "set_1", "refund_id": None, "reference": "p1",
            "status": "settled", "amount": 1250, "currency": "EUR",
        }
    ]  # fmt: skip
