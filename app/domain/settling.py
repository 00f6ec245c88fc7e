"""What an attempt's outcome means for its call: on time, or late. The effect class decides.

Certainty belongs to the attempt, the decision to the call: a call is `failed` only if every attempt definitely did
not happen; what cannot be known is `in_doubt` and parked, never guessed. A success settles the call however late it
arrives; a late failure settles nothing while another attempt is uncertain.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from app.domain import concluding, dependencies, doubting, drifting, evidence, parking, repeating, tool_results
from app.domain.aggregate import Attempt, Call
from app.domain.bindings import instant
from app.domain.facts import CallSettled, IllegalTransition, ResultTimedOut
from app.domain.failure_words import LATE, REPORTED
from app.domain.outcomes import Failure, Outcome
from app.domain.states import ACCEPTED, AttemptOutcome, CallKind, CallState, DueKind, EffectClass, FailureKind
from app.domain.transition import Draft, Due

UNSETTLED: Final = (CallState.IN_DOUBT, CallState.PROBING)
_ARRIVED: Final = {LATE: "The answer arrived after all.", REPORTED: "The tool reported its result."}


def settle(draft: Draft, fact: CallSettled) -> None:
    call = draft.call(fact.call_id)
    dependencies.heed(draft, fact)
    attempt = call.attempt(fact.attempt_id)
    if attempt is None:
        raise IllegalTransition(f"attempt {fact.attempt_id} is not one of call {fact.call_id}")
    at_fence = call.attempt_id == attempt.id and call.state == CallState.INTENDED
    if fact.kept:
        draft.clear_due(DueKind.APPLY, call.id)
    elif not at_fence and _reported_after_all(attempt, fact.outcome):
        evidence.reported(draft, attempt, fact.outcome)
        _late(draft, call, attempt, fact.outcome, by=REPORTED)
        return
    elif attempt.outcome is not None and not at_fence:
        return  # told twice: an outcome is written once
    if attempt.outcome is None and fact.outcome.pending:
        if attempt.status_code == ACCEPTED:
            return  # told twice
        _accepted(draft, call, attempt, fact.outcome, at_fence=at_fence)
        return
    promised = attempt.outcome is None and attempt.status_code == ACCEPTED
    if attempt.outcome is None:
        if promised and (at_fence or fact.outcome.certainty is AttemptOutcome.SUCCEEDED):
            draft.clear_due(DueKind.RESULT, call.id)  # a late "no" leaves the wait for what was sent since
        evidence.write(draft, call, attempt, fact.outcome)
    if at_fence:
        call.lost_in_a_row = 0
        _on_time(draft, call, attempt, fact.outcome)
    else:
        _late(draft, call, attempt, fact.outcome, by=REPORTED if promised else LATE)


def _reported_after_all(attempt: Attempt, outcome: Outcome) -> bool:
    """The answer was lost, and the tool tells by itself that it did it: the attempt stays what its sender saw of it."""
    return attempt.outcome == AttemptOutcome.UNKNOWN and outcome.certainty is AttemptOutcome.SUCCEEDED


def _accepted(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome, *, at_fence: bool) -> None:
    """202: the tool has it, and says later what came of it. No worker is held meanwhile: the attempt stays open, and
    is asked about when its time is up, or by the tool's probe."""
    evidence.arrived(draft, call, attempt, outcome)
    if call.tool is None:
        return
    until = draft.now + draft.plan.tools[call.tool].result_within
    if not at_fence:
        if call.state in UNSETTLED:  # the tool has it after all, and may act on it as long as its result may take
            _prolong(draft, call, since=until)
        return
    call.lost_in_a_row = 0
    draft.event("effect.accepted", call=call, attempt=attempt.id, data={"tool": call.tool, "until": instant(until)})
    if parking.probe_of(draft, call) is not None and not parking.must_park(draft, call):
        draft.clear_sent(call)
        parking.probe(draft, call, since=until, reason="The tool accepted the request (202); its result is awaited.")
    else:
        _await_result(draft, call, until=until)


def _await_result(draft: Draft, call: Call, *, until: datetime) -> None:
    """Its worker has nothing more to say about it; the tool has, until then."""
    draft.clear_sent(call)
    draft.set_due(Due(kind=DueKind.RESULT, ref=call.id, due_at=until, ring_at=until, lane=call.lane))


def _prolong(draft: Draft, call: Call, *, since: datetime) -> None:
    quarantine = since + timedelta(milliseconds=call.settle_ms)
    call.not_before = max(call.not_before or quarantine, quarantine)
    draft.touch_call(call)


def time_out_result(draft: Draft, fact: ResultTimedOut) -> None:
    """Accepted, and nothing came: as unknown as a reply that was lost."""
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    draft.clear_due(DueKind.RESULT, call.id)
    awaited = attempt is not None and attempt.outcome is None and attempt.status_code == ACCEPTED
    if attempt is None or not awaited or call.state != CallState.INTENDED:
        return
    failure = Failure(
        kind=FailureKind.TIMEOUT,
        message=f"{call.tool} accepted the request (202), but its result did not come in time.",
        fix="Look at the tool; if it takes longer, raise `result_within`.",
        status_code=ACCEPTED,
    )
    attempt.lost_at = draft.now  # given up, and still without an outcome: its result may come late
    draft.touch_attempt(attempt)
    _unknown(draft, call, attempt, failure)


def keep(draft: Draft, fact: CallSettled) -> bool:
    """Evidence alone, without a decision: for the day when deciding fails. Whether a decision is still to be made:
    what a 202 means is decided when its result comes, or is overdue."""
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    if attempt is None:
        return False  # of a database that was set back since: there is nothing to write it to
    if attempt.outcome is not None:
        return True
    if not fact.outcome.pending:
        evidence.write(draft, call, attempt, fact.outcome)
        return True
    evidence.arrived(draft, call, attempt, fact.outcome)
    if call.attempt_id == attempt.id and call.state == CallState.INTENDED and call.tool is not None:
        _await_result(draft, call, until=draft.now + draft.plan.tools[call.tool].result_within)
    return False


def _on_time(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    failure = outcome.failure
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            concluding.succeed(draft, call, attempt, tool_results.result_of(draft, call, outcome))
        case AttemptOutcome.NOT_SENT if failure is not None and drifting.holds(draft, call, failure):
            return
        case AttemptOutcome.NOT_SENT if failure is not None:
            repeating.again_or(draft, call, attempt, failure, new_generation=False)
        case AttemptOutcome.FAILED if failure is not None:
            match _repeat_means(draft, call, attempt, failure):
                case "succeeded":
                    concluding.succeed(draft, call, attempt, tool_results.result_of(draft, call, outcome))
                    return
                case "failed":
                    _vouch(draft, call, attempt, failure)
            repeating.again_or(draft, call, attempt, failure, new_generation=not repeating.executed_nothing(failure))
        case AttemptOutcome.UNKNOWN if failure is not None:
            _unknown(draft, call, attempt, failure)


def _repeat_means(draft: Draft, call: Call, attempt: Attempt, failure: Failure) -> str | None:
    """What the answer to a repeat says about the first one, as declared: 404 to a DELETE that it did it, 404 to an
    update that there was nothing it could have changed."""
    tool = None if call.tool is None else draft.plan.tools.get(call.tool)
    first = [a for a in call.uncertain if a is not attempt] or call.lost_past
    if tool is None or failure.status_code is None or not first:
        return None
    return tool.on_repeat_status.get(failure.status_code)


def _vouch(draft: Draft, call: Call, attempt: Attempt, failure: Failure) -> None:
    """By the tool's declaration this answer says of every attempt before it that it did nothing."""
    call.resolved = {
        "outcome": "did_not_happen",
        "note": failure.message,
        "by": f"on_repeat_status: {failure.status_code}",
        "at": instant(draft.now),
        "attempts": attempt.n,
    }
    draft.touch_call(call)


def _unknown(draft: Draft, call: Call, attempt: Attempt, failure: Failure) -> None:
    """The request may have taken effect. Only a class that says repeating is safe is repeated."""
    if repeating.repeatable(draft, call) and not parking.must_park(draft, call):
        repeating.again_or(draft, call, attempt, failure, new_generation=False)
    else:
        repeating.park(draft, call, since=draft.now, reason=failure.message)


def _late(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome, *, by: str) -> None:
    state = CallState(call.state)
    if state.final:
        _contradiction(draft, call, attempt, outcome)
        return
    alone = not [a for a in call.uncertain if a is not attempt] and not call.lost_past
    failure = outcome.failure
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            call.attempt_id = attempt.id  # revokes a repeat that was not sent yet
            parking.stop_probe(draft, call)
            if attempt.n <= call.vouched:
                _contradicted(draft, call, attempt, outcome, settled="did_not_happen")
            if state in UNSETTLED:
                draft.event(
                    "effect.resolved",
                    call=call,
                    attempt=attempt.id,
                    moved=(state, CallState.SUCCEEDED),
                    data={"outcome": "happened", "by": by, "note": _ARRIVED[by]},
                )
            if state is CallState.IN_DOUBT:
                doubting.clear(draft, call)
            concluding.succeed(draft, call, attempt, tool_results.result_of(draft, call, outcome))
        case AttemptOutcome.NOT_SENT | AttemptOutcome.FAILED if alone and state is not CallState.INTENDED and failure:
            parking.stop_probe(draft, call)
            if state in UNSETTLED:
                draft.event(
                    "effect.resolved",
                    call=call,
                    attempt=attempt.id,
                    moved=(state, repeating.leads_to(draft, call, attempt, failure)),
                    data={"outcome": "did_not_happen", "by": by, "note": failure.message},
                )
            if state is CallState.IN_DOUBT:
                doubting.clear(draft, call)
            call.failure = None
            refused = outcome.certainty is AttemptOutcome.FAILED and not repeating.executed_nothing(failure)
            repeating.again_or(draft, call, attempt, failure, new_generation=refused)
        case AttemptOutcome.UNKNOWN if state in UNSETTLED:
            _prolong(draft, call, since=draft.now)
        case _:
            draft.touch_call(call)  # evidence only


def _contradiction(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    """After a verdict or a final state evidence changes nothing, and is never silent."""
    if call.effect == EffectClass.READ_ONLY or call.kind == CallKind.MODEL:
        return
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            contradicts = call.state != CallState.SUCCEEDED or attempt.n <= call.vouched
        case AttemptOutcome.FAILED | AttemptOutcome.NOT_SENT:
            by_word = call.resolved is not None and call.resolved.get("outcome") == "happened"
            contradicts = by_word and not call.uncertain and not call.succeeded_once
        case _:
            contradicts = False
    if contradicts:
        _contradicted(draft, call, attempt, outcome, settled=call.state)


def _contradicted(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome, *, settled: str) -> None:
    draft.event(
        "effect.contradicted", call=call, attempt=attempt.id, data={"settled": settled, "evidence": outcome.certainty}
    )
    draft.attend("contradicted", tool=call.tool)
