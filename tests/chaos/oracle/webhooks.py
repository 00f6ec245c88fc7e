"""W1 delivered or given up visibly, W2 in order, W3 every signature verifies, W4 same id, same bytes: by the receiver.

The verifier is written from the text of the Standard Webhooks specification (§ Signature scheme) and shares no library
with the signer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from app.domain import ids
from tests.chaos.oracle import snapshot
from tests.chaos.oracle.ledgers import Receipt
from tests.chaos.oracle.snapshot import Row, Snapshot
from tests.chaos.oracle.verdicts import Checked, Violation

DEFAULT: Final = ("workflow.*", "approval.requested", "effect.in_doubt")
"""What is sent to a receiver that does not say which events it wants (`docs/api.md`)."""

_WANTED: Final = """
SELECT e.workflow_id, e.id, e.seq, e.type, w.webhook->'events' AS wanted, d.state
FROM events e JOIN workflows w ON w.id = e.workflow_id
LEFT JOIN deliveries d ON d.workflow_id = e.workflow_id AND d.event_id = e.id
WHERE {ours} AND w.webhook IS NOT NULL"""


def verified(receipt: Receipt, secret: str) -> bool:
    try:
        signed = b".".join([receipt.id.encode(), receipt.headers["webhook-timestamp"].encode(), receipt.body])
        given = [part.partition(",") for part in receipt.headers["webhook-signature"].split(" ")]
    except KeyError:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(version == "v1" and hmac.compare_digest(text, wanted) for version, _, text in given)


def all_delivered(receipts: Sequence[Receipt], rows: Snapshot) -> Checked:
    """W1: every event that a receiver asked for was taken by it at least once, or says that it was given up.

    One that is still open is the business of L2: it has a next try, or was left behind.
    """
    taken = {receipt.id for receipt in receipts if 200 <= receipt.status < 300}
    wanted = [row for row in rows(_WANTED) if _asked_for(row)]
    found = [violation for row in wanted for violation in _undelivered(row, taken)]
    return Checked(
        law="W1", says="webhooks delivered or given up visibly", count=len(wanted), of="events", violations=found
    )


def _asked_for(row: Row) -> bool:
    patterns = row["wanted"] or DEFAULT
    return any(
        pattern in ("*", row["type"]) or (pattern.endswith(".*") and row["type"].startswith(pattern[:-1]))
        for pattern in patterns
    )


def _undelivered(row: Row, taken: set[str]) -> Iterable[Violation]:
    name, workflow = ids.encode("evt", row["id"]), snapshot.wf(row["workflow_id"])
    what = f"event {row['seq']} {row['type']} ({name})"
    if row["state"] is None:
        yield Violation(law="W1", workflow=workflow, words=f"{what} has no delivery")
    elif row["state"] == "delivered" and name not in taken:
        yield Violation(law="W1", workflow=workflow, words=f"{what} is called delivered, the receiver never took it")


def in_order(receipts: Sequence[Receipt]) -> Checked:
    """W2: what a receiver sees for the first time is newer than all it has taken of that workflow."""
    newest: dict[str, int] = defaultdict(int)
    seen: set[str] = set()
    found: list[Violation] = []
    for receipt in receipts:
        workflow, seq = str(receipt.data["workflow_id"]), int(receipt.data["sequence"])
        if receipt.id not in seen and seq < newest[workflow]:
            words = f"event {seq} came for the first time after event {newest[workflow]}"
            found.append(Violation(law="W2", workflow=workflow, words=words))
        seen.add(receipt.id)
        newest[workflow] = max(newest[workflow], seq)
    return Checked(law="W2", says="webhooks of a workflow in order", count=len(newest), of="streams", violations=found)


def all_verify(receipts: Sequence[Receipt], *, secret: str) -> Checked:
    found = [
        Violation(law="W3", words=f"{receipt.id}: the signature does not verify")
        for receipt in receipts
        if not verified(receipt, secret)
    ]
    return Checked(law="W3", says="every signature verifies", count=len(receipts), of="receipts", violations=found)


def same_bytes(receipts: Sequence[Receipt]) -> Checked:
    bodies: Mapping[str, set[bytes]] = defaultdict(set)
    for receipt in receipts:
        bodies[receipt.id].add(receipt.body)
    found = [
        Violation(law="W4", words=f"{name} came with {len(each)} different bodies")
        for name, each in bodies.items()
        if len(each) > 1
    ]
    again = len(receipts) - len(bodies)
    return Checked(law="W4", says="same id, same bytes", count=again, of="redeliveries", violations=found)
