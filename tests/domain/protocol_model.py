"""The protocol of effects, third part: everything that may happen in its world (`protocol_world.py`), step by step.

`steps(…)` lists what may happen next. A worker may send, lose its link to Postgres or die between any two steps; a
request that left arrives now, late or never; the tool acts or refuses; answers are lost or read late; the sweep looks
whenever it likes; a person errs; time passes. What the ledger decides then is asked of `protocol_rules.py`. The walking
is in `protocol_explorer.py`.

Bounds of the model, not of the protocol: two attempts, then its patience is over; small times; the call that undoes an
effect always works (it is another call of this protocol); requests are not doubled on the way (a fresh connection does
not); no process freezes between its fence check and its write.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.domain import protocol_rules
from tests.domain.protocol_rules import DOUBT, EARLY, FINAL, KEYED, NEXT_KEY, READ_ONLY, REPEAT, SUCCEED, WAIT, Rules
from tests.domain.protocol_world import (
    KEY_TTL,
    SECOND_LIFE_KEY,
    TIMEOUT,
    Attempt,
    World,
    contradiction,
    gone_in,
    key_fresh,
    patient,
    quarantine,
    uncertain,
)

Step = tuple[str, World]
"""What happened and who did it (the first word); the world after it."""


def steps(rules: Rules, effect: str, world: World) -> Iterator[Step]:
    """All that may happen next."""
    yield from _claim(rules, effect, world)
    for index, attempt in enumerate(world.attempts):
        if attempt.worker not in ("dead", "done"):
            yield from _work(rules, effect, world, index, attempt)
    if world.call == "intended":
        yield from _give_up(rules, effect, world)
    for flight in world.flights:
        yield from _arrive(effect, world, flight)
    if world.call == "probing":
        yield from _probe(rules, world)
    if world.call == "in_doubt":
        yield from _resolve(rules, world)
    if not world.mistaken:
        yield from _undo_and_redo(rules, effect, world)
    yield "time passes", _tick(rules, world)


# --- what the ledger and the workers do ----------------------------------------------------------------------------


def _claim(rules: Rules, effect: str, world: World) -> Iterator[Step]:
    """Only what is due is claimed; the intent is committed before a byte leaves."""
    lapsed = world.call == "intended" and world.attempts[-1].lease <= 0 and not rules.only_due_is_claimed
    if (world.call != "due" and not lapsed) or not patient(world):
        return
    left = world.key_left
    if not key_fresh(rules, effect, world):
        if uncertain(world):
            yield "ledger finds the key too old", world._replace(call="in_doubt")
            return
        left = -1  # nothing was executed under it: a first use starts its time anew
    if effect == KEYED and left < 0:
        left = KEY_TTL - (rules.settle if rules.key_margin_covers_flight else 0)
    attempts = (*world.attempts, Attempt(key=world.key))
    yield f"ledger claims attempt {len(attempts)}", world._replace(call="intended", attempts=attempts, key_left=left)


def _work(rules: Rules, effect: str, world: World, index: int, attempt: Attempt) -> Iterator[Step]:
    """A living worker sends, and tells what it knows; or loses the answer, its link, its life."""
    who = f"worker {index + 1}"
    if attempt.worker == "ready":
        if attempt.deadline > 0 and attempt.lease > 0:
            flights = tuple(sorted((*world.flights, (index, attempt.key, rules.settle))))
            yield f"{who} sends", _with(world, index, attempt._replace(worker="sent"))._replace(flights=flights)
        yield f"{who} sends nothing", _with(world, index, attempt._replace(worker="not_sent"))
    elif attempt.worker in ("sent", "succeeded", "failed"):
        yield f"{who} loses the answer", _with(world, index, attempt._replace(worker="unknown"))
    if attempt.worker not in ("ready", "sent"):
        yield _record(rules, effect, world, index, attempt)
    if attempt.linked:  # once it was given up, a link or a life lost is the same as saying nothing
        yield f"{who} loses its link", _with(world, index, attempt._replace(linked=False))
        yield f"{who} dies", _with(world, index, attempt._replace(worker="dead", linked=False))
    if not rules.intent_is_awaited and attempt.deadline == TIMEOUT and world.call == "intended":
        forgotten = _with(world, index, attempt._replace(outcome="no row"))
        yield "postgres restarts without the intent", forgotten._replace(call="due")


def _record(rules: Rules, effect: str, world: World, index: int, attempt: Attempt) -> Step:
    """Evidence first, then the decision."""
    observed = attempt.worker if attempt.outcome == "" else attempt.outcome
    quiet = rules.settle if observed == "unknown" else 0  # silent from now on; what it sent may still be under way
    told = _with(
        world,
        index,
        attempt._replace(worker="done", linked=False, deadline=0, lease=0, quiet=quiet, outcome=observed),
    )
    if observed == "no row":
        return f"worker {index + 1} finds no row of its own", told
    others = any(a.uncertain for n, a in enumerate(world.attempts) if n >= world.vouched and n != index)
    fresh, patience = key_fresh(rules, effect, world), patient(world)
    on_time = world.call == "intended" and index == len(world.attempts) - 1
    if on_time:
        ruling = protocol_rules.after_answer(
            rules, effect, observed=observed, others_uncertain=others, key_fresh=fresh, patience=patience
        )
    else:
        ruling = protocol_rules.after_late_answer(
            rules,
            effect,
            call=world.call,
            observed=observed,
            others_uncertain=others,
            key_fresh=fresh,
            patience=patience,
        )
    if rules.contradictions_are_told and contradiction(told):
        told = told._replace(contradicted=True)
    when = "on time" if on_time else f"late to {world.call}"
    return f"worker {index + 1} records {observed} {when}: {ruling}", _ruled(rules, told, ruling)


def _give_up(rules: Rules, effect: str, world: World) -> Iterator[Step]:
    """The sweep: a death that was witnessed, a lease that is over, or nothing said long after the send deadline."""
    attempt = world.attempts[-1]
    silent_in = []
    if attempt.worker == "dead" or (not attempt.linked and not rules.death_needs_proof):
        silent_in.append(("is told of its death", 0))
    if attempt.lease <= 0 or (not attempt.linked and effect in EARLY):
        silent_in.append(("calls it lost", max(attempt.deadline, attempt.lease)))
    elif attempt.deadline <= -rules.settle:
        silent_in.append(("hears nothing", attempt.deadline))
    for how, ticks in silent_in:
        ruling = protocol_rules.after_loss(
            rules,
            effect,
            silent=ticks <= 0,
            key_fresh=key_fresh(rules, effect, world),
            patience=patient(world),
        )
        if ruling != WAIT:
            lost = attempt._replace(lost=True, linked=False, quiet=ticks + rules.settle)
            given_up = _with(world, len(world.attempts) - 1, lost)
            yield f"ledger {how}, attempt {len(world.attempts)}: {ruling}", _ruled(rules, given_up, ruling)


def _probe(rules: Rules, world: World) -> Iterator[Step]:
    """Asking and recording are two moments: in between the lost request may arrive."""
    over = quarantine(rules, world) <= 0
    seen = world.probe or "unclear"
    if not world.probe:
        reads = "found" if world.present else "absent" if over else "absent early"
        yield f"probe reads {reads}", world._replace(probe=reads)
    ruling = protocol_rules.after_probe(
        rules,
        seen=seen.removesuffix(" early"),
        asked_after_quarantine=seen == "absent",
        quarantine_over=over,
        patience=patient(world),
    )
    if ruling != WAIT:
        heard = world._replace(verdict={SUCCEED: "happened", DOUBT: ""}.get(ruling, "did_not_happen"))
        if heard.verdict == "did_not_happen":
            heard = heard._replace(vouched=len(world.attempts))
        yield f"ledger hears {seen} from the probe: {ruling}", _ruled(rules, heard, ruling)
    elif world.probe:
        yield "ledger asks the probe again", world._replace(probe="")


def _undo_and_redo(rules: Rules, effect: str, world: World) -> Iterator[Step]:
    """A compensation; and the same effect wanted again under the same business key."""
    if world.call == "succeeded" and world.life == "first" and effect != READ_ONLY:
        if not rules.undo_waits_for_strays or all(gone_in(rules, attempt) <= 0 for attempt in world.attempts):
            yield "ledger undoes it", world._replace(life="undone", present=False)
    elif world.life == "undone" and effect == KEYED:
        again = World(
            life="second",
            key=SECOND_LIFE_KEY if rules.key_changes_after_undo else world.key,
            flights=tuple((-1, key, left) for _, key, left in world.flights),
            memory=world.memory,
        )
        yield "ledger is asked for it again", again


def _ruled(rules: Rules, world: World, ruling: str) -> World:
    key = world.key
    if ruling == NEXT_KEY or (ruling == REPEAT and not rules.key_stays_after_unknown):
        key += 1
    match ruling:
        case "succeed":
            return world._replace(call="succeeded", probe="")
        case "fail":
            return _over(world, "failed")
        case "doubt":
            return world._replace(call="in_doubt", probe="")
        case "probe":
            return world._replace(call="probing", probe="")
        case "nothing":
            return world
    return world._replace(call="due", probe="", key=key, key_left=world.key_left if key == world.key else -1)


# --- what the world does -------------------------------------------------------------------------------------------


def _arrive(effect: str, world: World, flight: tuple[int, int, int]) -> Iterator[Step]:
    """A request reaches the tool, which acts, refuses, or replays what it stored under the key. It may refuse before it
    looks at the key, too."""
    index, key, _ = flight
    here = world._replace(flights=tuple(other for other in world.flights if other is not flight))
    stored = next((answer for known, answer, _ in world.memory if known == key), None)
    who = "tool, asked by a stray," if index < 0 else f"tool, asked by {index + 1},"
    if stored is not None:
        yield f"{who} replays {stored}", _answered(here, index, stored)
        yield f"{who} refuses at the gate", _answered(here, index, "failed")
        return
    done = here._replace(executed=min(world.executed + 1, 2), present=True)
    yield f"{who} acts", _answered(_remember(effect, done, key, "succeeded"), index, "succeeded")
    yield f"{who} refuses", _answered(_remember(effect, here, key, "failed"), index, "failed")


def _resolve(rules: Rules, world: World) -> Iterator[Step]:
    """A person's word, true or not. That it did not happen is taken only after the quarantine."""
    happened = world._replace(verdict="happened", mistaken=world.mistaken or not world.executed)
    yield (
        "person says happened",
        _over(happened, "succeeded") if happened.mistaken else happened._replace(call="succeeded"),
    )
    if quarantine(rules, world) <= 0 or not rules.doubt_waits_for_quarantine:
        mistaken = world.mistaken or world.present
        denied = world._replace(verdict="did_not_happen", vouched=len(world.attempts), mistaken=mistaken)
        yield (
            "person says did_not_happen",
            denied._replace(call="due") if patient(world) else _over(denied, "cancelled"),
        )
    yield "person abandons", _over(world, "abandoned")._replace(verdict="abandon")


def _tick(rules: Rules, world: World) -> World:
    """A tick for all that waits. What can matter to nobody any more is dropped, so that worlds that are alike meet."""
    attempts = tuple([_older(rules, attempt) for attempt in world.attempts])
    flights = tuple([(index, key, left - 1) for index, key, left in world.flights if left > 1])
    asked = {key for _, key, _ in flights} | {attempt.key for attempt in attempts if attempt.worker == "ready"}
    repeats = world.call not in FINAL and patient(world)
    if repeats or (world.call == "succeeded" and not rules.key_changes_after_undo):
        asked.add(world.key)
    left = world.key_left - 1 if world.key_left > TIMEOUT else min(world.key_left, 0)
    return world._replace(
        attempts=attempts,
        key_left=left if repeats else -1,
        flights=flights,
        memory=tuple([(key, answer, left - 1) for key, answer, left in world.memory if left > 1 and key in asked]),
    )


def _older(rules: Rules, attempt: Attempt) -> Attempt:
    deadline, lease, quiet = attempt.deadline, attempt.lease, attempt.quiet
    if quiet >= 0 and attempt.worker != "ready":
        return attempt._replace(deadline=0, lease=0, quiet=max(quiet - 1, 0))
    until = 0 if quiet >= 0 else -rules.settle
    return attempt._replace(
        deadline=max(deadline - 1, until),
        lease=lease if attempt.linked else max(lease - 1, until),
        quiet=quiet - 1 if quiet > 0 else quiet,
    )


def _answered(world: World, index: int, answer: str) -> World:
    """The answer is on the wire; whoever asked may be gone."""
    if index < 0 or world.attempts[index].worker != "sent":
        return world
    return _with(world, index, world.attempts[index]._replace(worker=answer))


def _remember(effect: str, world: World, key: int, answer: str) -> World:
    if effect != KEYED:
        return world
    return world._replace(memory=tuple(sorted((*world.memory, (key, answer, KEY_TTL)))))


# --- small print ---------------------------------------------------------------------------------------------------


def _over(world: World, call: str) -> World:
    """Ended, and not to be undone: how long an attempt has been silent, how old the key is, nobody asks any more."""
    attempts = tuple([attempt._replace(quiet=0) for attempt in world.attempts])
    return world._replace(call=call, attempts=attempts, key_left=-1, probe="")


def _with(world: World, index: int, attempt: Attempt) -> World:
    attempts = world.attempts
    return world._replace(attempts=(*attempts[:index], attempt, *attempts[index + 1 :]))
