"""The protocol of effects, first part: its protections, each with a switch, and its decisions.

Written from the documented protocol and not from the product. The model (`protocol_model.py`) asks these functions
whenever its ledger has something to decide, and `test_protocol_model.py` asks the product the same questions: so what
was explored is what is built. A switch that is off takes one protection away; the exploration must find the harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

READ_ONLY, IDEMPOTENT, KEYED = "read_only", "idempotent", "keyed"
CHECKABLE, AT_MOST_ONCE = "checkable", "at_most_once"
CLASSES: Final = (READ_ONLY, IDEMPOTENT, KEYED, CHECKABLE, AT_MOST_ONCE)
EARLY: Final = (READ_ONLY, IDEMPOTENT, KEYED)
"""May be repeated before the lost worker is known to be silent."""
ONCE: Final = (KEYED, CHECKABLE, AT_MOST_ONCE)
"""A second execution is harm."""
FINAL: Final = ("succeeded", "failed", "cancelled", "abandoned")

SUCCEED, FAIL, DOUBT, PROBE, REPEAT = "succeed", "fail", "doubt", "probe", "repeat"
NEXT_KEY: Final = "repeat with the next key"
"""The same request as a new generation: the tool must not replay what it stored for the last one."""
WAIT: Final = "wait"
"""Not yet: the sender may still send, or the probe is asked again."""
NOTHING: Final = "nothing"
"""Evidence only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    intent_is_awaited: bool = True
    """The intent is on disk before a byte leaves."""
    only_due_is_claimed: bool = True
    """A lapsed lease makes nothing claimable: what becomes of the call is decided first, by its class."""
    death_needs_proof: bool = True
    """A connection that is gone proves nothing: its worker may live, and send."""
    doubt_waits_for_quarantine: bool = True
    """A person's "it did not happen" is taken only when nothing can arrive any more."""
    quarantine_counts_every_attempt: bool = True
    """… of any attempt, not only of the last."""
    absent_waits_for_quarantine: bool = True
    """A probe that does not find it is believed only after the quarantine."""
    absent_was_read_after_quarantine: bool = True
    """… and only if it was asked then: an older answer that comes later says nothing."""
    unknown_at_most_once_is_doubt: bool = True
    """What may happen at most once is not repeated after a timeout."""
    failure_after_unknown_is_doubt: bool = True
    """A refusal says nothing about an earlier attempt whose outcome is unknown (DELETE, answer lost, then 404)."""
    key_expires: bool = True
    """No repeat with a key that the tool may have forgotten."""
    key_margin_covers_flight: bool = True
    """… by the time at which the repeat may arrive, not only by the time at which it is sent."""
    key_stays_after_unknown: bool = True
    """After an unknown outcome the repeat carries the same key."""
    key_changes_after_undo: bool = True
    """After an undo the next request carries another key: else the tool says "created" of what was deleted."""
    undo_waits_for_strays: bool = True
    """Nothing is undone while a copy of the request may still arrive."""
    late_success_settles: bool = True
    """A success is taken however late it comes."""
    contradictions_are_told: bool = True
    """Evidence against a verdict or a final state is reported, never silent."""
    settle: int = 1
    """Ticks for which a request that left may still arrive."""


def after_answer(
    rules: Rules, effect: str, *, observed: str, others_uncertain: bool, key_fresh: bool, patience: bool
) -> str:
    """What an attempt's own word means. `observed` is its outcome; `others_uncertain`: an earlier attempt may have
    taken effect; `key_fresh`: a repeat finds the key remembered; `patience`: another attempt is allowed at all."""
    maybe_done = others_uncertain and effect != READ_ONLY
    match observed:
        case "succeeded":
            return SUCCEED
        case "unknown":
            again = patience and repeatable(rules, effect, key_fresh=key_fresh)
            return REPEAT if again else _unknowable(effect)
        case "not_sent" if patience:
            return REPEAT  # it changes nothing about what was known before; the claim looks at the key again
        case "failed" if patience and not maybe_done:
            return NEXT_KEY
        case "failed" if maybe_done and not rules.failure_after_unknown_is_doubt:
            return FAIL
    return _unknowable(effect) if maybe_done else FAIL


def after_loss(rules: Rules, effect: str, *, silent: bool, key_fresh: bool, patience: bool) -> str:
    """Its worker is gone. A class that must not be repeated stays with it until it is silent, so that a late answer
    can still settle it quietly."""
    if effect not in EARLY and not silent:
        return WAIT
    return after_answer(
        rules, effect, observed="unknown", others_uncertain=False, key_fresh=key_fresh, patience=patience
    )


def after_late_answer(
    rules: Rules, effect: str, *, call: str, observed: str, others_uncertain: bool, key_fresh: bool, patience: bool
) -> str:
    """The word of an attempt that was given up. `call` is the state it finds; a final one never changes."""
    if call in FINAL:
        return NOTHING
    if observed == "succeeded":
        return SUCCEED if rules.late_success_settles else NOTHING
    if observed == "unknown" or others_uncertain or call == "intended":
        return NOTHING
    return after_answer(
        rules, effect, observed=observed, others_uncertain=False, key_fresh=key_fresh, patience=patience
    )


def after_probe(rules: Rules, *, seen: str, asked_after_quarantine: bool, quarantine_over: bool, patience: bool) -> str:
    """What a probe's answer (found, absent, unclear) means. `quarantine_over`: now, when the answer is recorded."""
    if seen == "found":
        return SUCCEED
    if seen == "unclear":
        return DOUBT if quarantine_over else WAIT
    believed = asked_after_quarantine if rules.absent_was_read_after_quarantine else quarantine_over
    if rules.absent_waits_for_quarantine and not believed:
        return WAIT
    return REPEAT if patience else FAIL


def repeatable(rules: Rules, effect: str, *, key_fresh: bool) -> bool:
    """Whether the same bytes may go again although an earlier attempt may have taken effect."""
    if effect == AT_MOST_ONCE:
        return not rules.unknown_at_most_once_is_doubt
    return effect in (READ_ONLY, IDEMPOTENT) or (effect == KEYED and (key_fresh or not rules.key_expires))


def _unknowable(effect: str) -> str:
    return {READ_ONLY: FAIL, CHECKABLE: PROBE}.get(effect, DOUBT)
