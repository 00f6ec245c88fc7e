"""The oracle: what must be true whatever happened, judged by ledgers that are not ours. Each law is one function.

    judge(ledgers, rows, …) -> [Checked]   all of them; `verdicts.expect_none` raises with every violation in words

    law     says                                                          function
    S1 S2   every 202 has its workflow; one workflow per key              submissions.no_loss, one_per_key
    S3      no effect happened twice                                      effects.no_duplicates
    S4      succeeded: it happened; failed, cancelled, not_sent: it did not   effects.no_phantoms
    U1      a workflow that failed left nothing done that it can undo    effects.nothing_left_done (not part of `judge`)
    S5      a doubt has a cause, and is settled as the world says         doubts.honest
    S6      one open attempt per call, one outcome per attempt            rows.single_writer
    S7      events without gaps, every adjacent pair a legal move         rows.events_tell_it_all
    S8      something wakes every workflow that is not final              rows.something_wakes_it
    S9      turns within limits, every token billed once                  rows.limits_hold
    L1 L2   nothing runnable is left, no lease, transaction, delivery     rows.everything_ends, nothing_left_behind
    W1–W4   webhooks: delivered, in order, verified, same id same bytes   webhooks.*
    H2      a status never goes back                                      submissions.monotone
    K1      canary secrets are nowhere                                    canaries.nowhere (not part of `judge`)

Input: `ledgers.Ledgers` (the tool server's, the client's, the receiver's, and the faults given) and a read-only
`snapshot.at_one_instant(url)`. S3, S4, S6, S7, S8 hold at every instant; the others when everything has come to rest.
"""

from __future__ import annotations

from typing import Final

from tests.chaos.oracle import doubts, effects, rows, submissions, webhooks
from tests.chaos.oracle.ledgers import Ledgers
from tests.chaos.oracle.snapshot import Snapshot
from tests.chaos.oracle.verdicts import Checked

TURNS: Final = 50
"""What an agent may take if its definition does not say."""


def judge_now(ledgers: Ledgers, snapshot: Snapshot) -> list[Checked]:
    """The laws that hold at every instant. The ledgers are read *after* the snapshot: an effect comes before its row.

    S4 is not among them: between a tool's doing and our record a row that says `cancelled` may still be revised.
    """
    return [
        effects.no_duplicates(ledgers.tools),
        rows.single_writer(snapshot),
        rows.events_tell_it_all(snapshot),
        rows.something_wakes_it(snapshot),
    ]


def judge(
    ledgers: Ledgers,
    snapshot: Snapshot,
    *,
    secret: str | None = None,
    seconds: float = 10.0,
    all_ended: bool = True,
    turns: int = TURNS,
) -> list[Checked]:
    """Every law, at rest. `secret`: the receiver's signing secret, if there was a receiver; `seconds`: of rest."""
    found = [
        submissions.no_loss(ledgers.submissions, snapshot),
        submissions.one_per_key(ledgers.submissions, snapshot),
        effects.no_duplicates(ledgers.tools),
        effects.no_phantoms(ledgers.tools, snapshot),
        doubts.honest(ledgers, snapshot, all_settled=all_ended),
        rows.single_writer(snapshot),
        rows.events_tell_it_all(snapshot),
        rows.something_wakes_it(snapshot),
        rows.limits_hold(snapshot, turns=turns),
        rows.everything_ends(snapshot, seconds=seconds, all_ended=all_ended),
        rows.nothing_left_behind(snapshot, seconds=seconds),
        submissions.monotone(ledgers.sightings),
    ]
    if secret is not None:
        found += [
            webhooks.all_delivered(ledgers.receipts, snapshot),
            webhooks.in_order(ledgers.receipts),
            webhooks.all_verify(ledgers.receipts, secret=secret),
            webhooks.same_bytes(ledgers.receipts),
        ]
    return found
