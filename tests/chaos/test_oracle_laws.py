"""The oracle can fail: ledgers in which something went wrong, one law each."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.oracle import canaries, effects, submissions, webhooks
from tests.chaos.oracle.doubts import caused
from tests.chaos.oracle.ledgers import Fault, Receipt, Sighting, ToolEntry
from tests.chaos.oracle.verdicts import Checked, expect_none

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def _entry(tool: str = "email.send", *, call: str = "call_1", executed: bool = True, **more: Any) -> ToolEntry:
    made: dict[str, Any] = {"key": None, "arguments": {"subject": "a"}, "status": 200, "at": NOW, "attempt": 1, **more}
    return ToolEntry(
        tool=tool,
        key=made["key"],
        arguments=made["arguments"],
        executed=executed,
        status=made["status"],
        at=made["at"],
        call=call,
        attempt=made["attempt"],
        result=made.get("result"),
    )


def _laws(checked: Checked) -> list[str]:
    return [violation.law for violation in checked.violations]


def test_s3_objects_when_a_mail_was_sent_twice_whoever_asked() -> None:
    twice = [_entry(call="call_1"), _entry(call="call_2")]

    assert _laws(effects.no_duplicates(twice)) == ["S3"]
    assert _laws(effects.no_duplicates([_entry(), _entry(call="call_2", arguments={"subject": "b"})])) == []


def test_s3_objects_when_a_key_was_executed_twice() -> None:
    arguments = ({"title": "a"}, {"title": "b"})
    twice = [
        _entry("calendar.create_event", call=f"call_{number}", key="k", arguments=each)
        for number, each in enumerate(arguments)
    ]

    assert _laws(effects.no_duplicates(twice)) == ["S3"]


def test_s3_objects_when_attempts_of_one_call_differ_in_their_bytes() -> None:
    attempts = [
        _entry("calendar.delete_event", arguments={"event_id": name}, attempt=number)
        for number, name in enumerate(("evt_1", "evt_2"), start=1)
    ]

    assert _laws(effects.no_duplicates(attempts)) == ["S3"]


def test_s3_allows_a_second_booking_when_the_first_was_undone() -> None:
    booked = [
        _entry(
            "calendar.create_event",
            call=f"call_{number}",
            key=f"k#{number}",
            arguments={"title": "a"},
            result={"event_id": f"evt_{number}"},
        )
        for number in (1, 2)
    ]
    undone = _entry("calendar.delete_event", call="call_3", arguments={"event_id": "evt_1"})

    assert _laws(effects.no_duplicates([*booked, undone])) == []
    assert _laws(effects.no_duplicates(booked)) == ["S3"]


def test_h2_objects_when_a_final_status_changes_or_an_ending_turns_back() -> None:
    def read(*statuses: str) -> list[str]:
        return _laws(submissions.monotone([Sighting(workflow="wf_1", status=each) for each in statuses]))

    assert read("running", "waiting", "running", "succeeded", "succeeded") == []
    assert read("succeeded", "running") == ["H2"]
    assert read("failing", "running") == ["H2"]
    assert read("failed", "succeeded") == ["H2"]


def _receipt(seq: int, *, name: str = "", workflow: str = "wf_1", status: int = 204, secret: str = SECRET) -> Receipt:
    body = json.dumps({"data": {"workflow_id": workflow, "sequence": seq}}).encode()
    name, stamp = name or f"evt_{seq}", "1795348800"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}
    return Receipt(id=name, body=body, headers=headers, status=status, at=NOW)


def test_w2_objects_when_an_older_event_comes_for_the_first_time() -> None:
    assert _laws(webhooks.in_order([_receipt(1), _receipt(2), _receipt(2), _receipt(3)])) == []
    assert _laws(webhooks.in_order([_receipt(1), _receipt(3), _receipt(2)])) == ["W2"]


def test_w3_objects_when_a_signature_was_made_with_another_secret() -> None:
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()

    assert _laws(webhooks.all_verify([_receipt(1)], secret=SECRET)) == []
    assert _laws(webhooks.all_verify([_receipt(1, secret=other)], secret=SECRET)) == ["W3"]


def test_w4_objects_when_one_id_has_two_bodies() -> None:
    assert _laws(webhooks.same_bytes([_receipt(1), _receipt(1)])) == []
    assert _laws(webhooks.same_bytes([_receipt(1, name="evt"), _receipt(2, name="evt")])) == ["W4"]


@pytest.mark.parametrize("hidden", [b"x %s y", b"\\x2d%s"])
def test_k1_finds_a_secret_when_it_lies_across_two_chunks(hidden: bytes) -> None:
    secret = "canary-1234567890"
    whole = hidden % (secret.encode() if b" " in hidden else secret.encode().hex().encode())

    found = canaries.nowhere([secret], places={"a log": [whole[:9], whole[9:]]})

    assert _laws(found) == ["K1"]
    assert _laws(canaries.nowhere([secret], places={"a log": [b"nothing of it"]})) == []


def test_k1_finds_a_secret_when_it_is_written_in_base64() -> None:
    secret = "canary-1234567890"
    places = {"a log": [base64.b64encode(b"xy" + secret.encode() + b"z")]}

    assert _laws(canaries.nowhere([secret], places=places)) == ["K1"]


def test_a_doubt_is_explained_only_when_a_fault_hit_its_attempt() -> None:
    attempt = {
        "intended_at": NOW,
        "over": NOW + timedelta(seconds=8),
        "settle_ms": 1000,
        "pid": 7,
        "arguments": {"subject": "a"},
    }

    def hit(**fault: Any) -> bool:
        at = fault.pop("at", NOW + timedelta(seconds=1))
        return caused(Fault(kind="x", at=at, until=at, **fault), attempt)

    assert hit(pids=frozenset({7}))
    assert not hit(pids=frozenset({8}))
    assert hit(marks=frozenset({"a"}))
    assert not hit(marks=frozenset({"b"}))
    assert hit()
    assert not hit(at=NOW + timedelta(minutes=1))


def test_expect_none_lists_what_both_sides_say_when_something_was_violated() -> None:
    with pytest.raises(AssertionError, match=r"S3: call_1: email\.send .* executed 2 times"):
        expect_none([effects.no_duplicates([_entry(), _entry()])])
