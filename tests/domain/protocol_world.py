"""The protocol of effects, second part: a world small enough to be walked through completely, and its promises.

One effect: its line in the ledger (`World.call`), the attempts at it, the requests under way, and the tool with a truth
of its own, which nobody but a probe or a person can see. What may happen in it is in `protocol_model.py`; here is what
it looks like, what the ledger can tell from its own rows, and (`broken`) which promise a state breaks.

A request that left may arrive for `settle` ticks. So nothing can arrive any more (the quarantine is over) once the
sender is silent, by its own word, by its witnessed death, or because both its send deadline and its lease are over,
and `settle` ticks more have passed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.domain.protocol_rules import FINAL, KEYED, ONCE, READ_ONLY, Rules

ATTEMPTS: Final = 2
"""For one request; asked for again after its undo it has one."""
TIMEOUT: Final = 2
"""Ticks from the claim to the send deadline."""
LEASE: Final = 2
"""Ticks from a worker's last heartbeat to the end of its lease."""
KEY_TTL: Final = 4
"""Ticks for which the tool remembers a key, from the request that brought it. Room for one repeat in time."""
SECOND_LIFE_KEY: Final = 9
"""The generation after an undo: none that was used before."""


class Attempt(NamedTuple):
    """One try: the worker that makes it, and its row in the ledger."""

    worker: str = "ready"
    """ready | sent | succeeded, failed, unknown, not_sent (what it knows and has not recorded) | dead | done"""
    linked: bool = True
    """It reaches Postgres. Without a link it has no heartbeat; to record something it must be linked again."""
    deadline: int = TIMEOUT
    """Ticks until its send deadline. Counted on below zero for as long as a request sent just before may arrive."""
    lease: int = LEASE
    quiet: int = -1
    """Ticks until the ledger takes it for gone with all that it sent; -1 while its sender may still send."""
    key: int = 1
    """The generation it sends."""
    outcome: str = ""
    """What is on record: succeeded | failed | not_sent | unknown, or nothing yet. Write-once."""
    lost: bool = False
    """The ledger gave it up."""

    @property
    def uncertain(self) -> bool:
        return self.outcome in ("", "unknown")


class World(NamedTuple):
    call: str = "due"
    attempts: tuple[Attempt, ...] = ()
    vouched: int = 0
    """Up to which attempt a probe or a person said that it did not happen."""
    verdict: str = ""
    key: int = 1
    """The generation: for the tool each is another key."""
    key_left: int = -1
    """Ticks for which the ledger trusts the tool's memory; -1 before the first intent under this key."""
    probe: str = ""
    """What a probe under way has read: found | absent | absent early (before the quarantine was over)."""
    contradicted: bool = False
    life: str = "first"
    """first | undone (compensated) | second (asked for again under the same business key)"""
    flights: tuple[tuple[int, int, int], ...] = ()
    """Requests under way: attempt, key, ticks until it is gone."""
    executed: int = 0
    """The truth, at the tool: how many times it acted for this request."""
    present: bool = False
    """The truth: it is there, and not undone."""
    memory: tuple[tuple[int, str, int], ...] = ()
    """The tool's: key, stored answer, ticks until it is forgotten."""
    mistaken: bool = False
    """A person gave a verdict that is not the truth."""


# --- what the ledger can tell from its rows ------------------------------------------------------------------------


def quarantine(rules: Rules, world: World) -> int:
    """Ticks until "it did not happen" may be believed."""
    counted = uncertain(world) if rules.quarantine_counts_every_attempt else world.attempts[-1:]
    return max([gone_in(rules, attempt) for attempt in counted], default=0)


def gone_in(rules: Rules, attempt: Attempt) -> int:
    """Ticks until nothing of it can arrive: the sender is silent, and what it sent by then had time to settle."""
    if not attempt.uncertain:
        return 0
    return attempt.quiet if attempt.quiet >= 0 else max(attempt.deadline, attempt.lease) + rules.settle


def uncertain(world: World) -> list[Attempt]:
    """Attempts that may have taken effect and for which nobody has vouched."""
    return [attempt for attempt in world.attempts[world.vouched :] if attempt.uncertain]


def key_fresh(rules: Rules, effect: str, world: World) -> bool:
    """Whether a repeat that is sent at its deadline still finds the key remembered."""
    return effect != KEYED or world.key_left < 0 or world.key_left >= TIMEOUT or not rules.key_expires


def patient(world: World) -> bool:
    """Whether another attempt is allowed at all."""
    return len(world.attempts) < (ATTEMPTS if world.life == "first" else 1)


# --- the promises --------------------------------------------------------------------------------------------------


def contradiction(world: World) -> bool:
    """Whether what is on record speaks against a verdict, a probe or a final state."""
    outcomes = [attempt.outcome for attempt in world.attempts]
    if "succeeded" in outcomes:
        return "succeeded" in outcomes[: world.vouched] or world.call in ("failed", "cancelled", "abandoned")
    return world.verdict == "happened" and not any(attempt.uncertain for attempt in world.attempts)


def broken(effect: str, world: World) -> str:
    """The promise that this state breaks, in words; empty if it breaks none. A person who errs may cause a second
    execution or a wrong end; the promise is then that evidence against it is not silent."""
    outcomes = [attempt.outcome for attempt in world.attempts]
    if not world.mistaken:
        if effect in ONCE and world.executed > 1:
            return "it was executed twice"
        if world.call == "succeeded" and not world.executed:
            return "it is called succeeded and never happened"
        if world.call in ("failed", "cancelled") and world.executed and effect != READ_ONLY:
            return f"it is called {world.call} and happened"
        if world.life == "undone" and world.present:
            return "it was undone and came back"
    if "succeeded" in outcomes and world.call not in FINAL and not world.contradicted:
        return "a success is on record and was ignored"
    if world.call == "in_doubt" and not uncertain(world):
        return "it is in doubt although everything is known"
    if world.call == "succeeded" and "succeeded" not in outcomes and world.verdict != "happened":
        return "it is called succeeded and nobody said so"
    if world.call == "failed" and uncertain(world) and effect != READ_ONLY:
        return "it is called failed although an attempt is uncertain"
    if contradiction(world) != world.contradicted:
        return "a contradiction is silent" if not world.contradicted else "a contradiction was told that is none"
    return ""
