"""The demo's bank: authorize, check, settle, and back again with void and refund.

Amounts are whole numbers in the currency's smallest unit. What a card is for decides what goes wrong:

    tok_declined                            authorize answers 402
    tok_velocity tok_sanctions tok_device   that fraud check answers 422
    tok_unsettled                           settle answers 402: the bank took its authorization back
    anything else                           goes well

Its state follows from the ledger's executed entries. A refusal changes nothing and is not remembered under its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.embedded.tool_ledger import Entry

CHECKS: Final = ("velocity", "sanctions", "device")
_ID: Final = {
    "payments.authorize": "authorization_id",
    "payments.settle": "settlement_id",
    "payments.refund": "refund_id",
}
_BECOMES: Final = {
    "payments.authorize": "authorized",
    "payments.settle": "settled",
    "payments.void": "voided",
    "payments.refund": "refunded",
}


class Refused(Exception):
    """The tool says no, for good; nothing was changed."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class Payments:
    def __init__(self) -> None:
        self._payments: dict[str, dict[str, Any]] = {}
        """By authorization: what was asked for, every id since, `status`, and the key of each operation."""
        self._settled = self._refunded = 0

    def outcome(self, tool: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        """The result of an effect that is about to take place, and whether it changes anything. Raises `Refused`."""
        match tool:
            case "payments.authorize":
                return self._authorize(arguments), True
            case "payments.settle":
                return self._settle(self._payment(arguments)), True
            case "payments.refund":
                return self._refund(arguments["settlement_id"]), True
        payment = self._payment(arguments)
        voidable = payment["status"] == "authorized"
        voided = voidable or payment["status"] == "voided"
        return {"authorization_id": payment["authorization_id"], "voided": voided}, voidable

    def apply(self, entry: Entry) -> None:
        tool, result = entry["tool"], entry["result"]
        if tool == "payments.authorize":
            asked = {name: entry["arguments"][name] for name in ("reference", "card")}
            self._payments[result["authorization_id"]] = {**asked, **result, "keys": {}}
        payment = self._payments[result["authorization_id"]]
        payment["status"] = _BECOMES[tool]
        payment["keys"][tool.removeprefix("payments.")] = entry["key"]
        if tool in _ID:
            payment[_ID[tool]] = result[_ID[tool]]
        self._settled += tool == "payments.settle"
        self._refunded += tool == "payments.refund"

    def read(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Raises `Refused`: a fraud check that does not pass, or a payment that is not known."""
        if tool == "payments.find":
            operation, key = arguments["operation"], arguments["key"]
            return {"payments": [_shown(one) for one in self._payments.values() if one["keys"].get(operation) == key]}
        payment = self._payment(arguments)
        return _checked(payment, arguments["check"]) if tool == "payments.fraud_check" else _reconciled(payment)

    def _authorize(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(arguments["amount"], int) or arguments["amount"] < 1:
            raise Refused(400, "amount is a whole number, at least 1, in the currency's smallest unit")
        if arguments["card"] == "tok_declined":
            raise Refused(402, "the bank declined the card")
        number = f"auth_{len(self._payments) + 1}"
        return {
            "authorization_id": number,
            "status": "authorized",
            "amount": arguments["amount"],
            "currency": arguments["currency"],
        }

    def _settle(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        # Not 409: to a caller with a key that means that its own request is still in progress.
        if payment["status"] != "authorized":
            raise Refused(422, f"the authorization is {payment['status']}")
        if payment["card"] == "tok_unsettled":
            raise Refused(402, "the bank took its authorization back")
        number = {"settlement_id": f"set_{self._settled + 1}", "authorization_id": payment["authorization_id"]}
        return {**number, "status": "settled", "amount": payment["amount"], "currency": payment["currency"]}

    def _refund(self, settlement_id: str) -> dict[str, Any]:
        found = [one for one in self._payments.values() if one.get("settlement_id") == settlement_id]
        if not found:
            raise Refused(404, "there is no such settlement")
        if found[0]["status"] == "refunded":
            raise Refused(422, "it has been refunded before")
        number = {"refund_id": f"ref_{self._refunded + 1}", "settlement_id": settlement_id}
        return {**number, "authorization_id": found[0]["authorization_id"], "amount": found[0]["amount"]}

    def _payment(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        payment = self._payments.get(arguments["authorization_id"])
        if payment is None:
            raise Refused(404, "there is no such authorization")
        return payment


def _checked(payment: Mapping[str, Any], check: str) -> dict[str, Any]:
    if check not in CHECKS:
        raise Refused(400, f"check is one of {', '.join(CHECKS)}")
    if payment["card"] == f"tok_{check}":
        raise Refused(422, f"{check}: this payment must not go through")
    return {"check": check, "verdict": "clear"}


def _reconciled(payment: Mapping[str, Any]) -> dict[str, Any]:
    """What the bank's own books say about one payment."""
    settled = payment["amount"] if payment["status"] in ("settled", "refunded") else 0
    refunded = payment["amount"] if payment["status"] == "refunded" else 0
    moved = {"authorized": payment["amount"], "settled": settled, "refunded": refunded, "balance": settled - refunded}
    return {"authorization_id": payment["authorization_id"], "status": payment["status"], **moved}


def _shown(payment: Mapping[str, Any]) -> dict[str, Any]:
    """Without the card and the keys; an id that does not exist yet is null, so that expressions may name it."""
    ids = {name: payment.get(name) for name in _ID.values()}
    return {**ids, **{name: payment[name] for name in ("reference", "status", "amount", "currency")}}
