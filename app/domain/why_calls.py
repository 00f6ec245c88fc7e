"""Why one call does not move: where it stands, since when, until when, who can move it.

`reason_of(situation, call)` for a call that is not settled. What a *group* of calls waits for (a pause, a switch) and
what the workflow itself waits for is in `why.py`. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from app.domain import ids, uninstalled, why_budgets, why_commands
from app.domain.amounts import clock, counted, moment
from app.domain.failure_words import CHANGES, HELD, VERDICTS, in_short
from app.domain.headlines import ACCEPTED, MESSAGE_LIMIT
from app.domain.plain import clipped
from app.domain.situation import OPERATOR, PERSON, TIME, TITLE_LIMIT, WORKER, Reason, Row, Situation
from app.domain.states import (
    AttemptOutcome,
    CallKind,
    CallState,
    DueKind,
    EffectClass,
    FailureKind,
    HeldReason,
)


def reason_of(situation: Situation, call: Row) -> Reason:
    """Of a call that is not settled."""
    reason = _placed(_reason_of(situation, call), call)
    over = reason.not_before is not None and reason.not_before <= situation.now
    return replace(reason, not_before=None) if over else reason


def _reason_of(situation: Situation, call: Row) -> Reason:
    awaited = situation.due(DueKind.RESULT, call["id"])
    if awaited is not None:
        return _result(situation, call, awaited)
    match CallState(call["state"]):
        case CallState.DUE:
            return _due(situation, call)
        case CallState.INTENDED:
            return _intended(situation, call)
        case CallState.PROBING:
            return _probing(situation, call)
        case CallState.IN_DOUBT:
            return _doubt(situation, call)
        case _:
            return _held(situation, call)


def undo_failed(situation: Situation, call: Row) -> Reason:
    """An effect that is still done although it was to be undone: on the work-list until somebody settles it."""
    name = ids.encode("call", call["id"])
    failed = situation.undo_failures.get(call["id"], {})
    why = clipped(failed.get("reason", ""), MESSAGE_LIMIT)
    reason = Reason(
        kind="compensation_failed",
        headline=f"{call['step']} could not be undone: {why or f'the undo of {what(call)} failed.'}",
        since=failed.get("at"),
        who=OPERATOR,
        commands=tuple(why_commands.settle_undo(name, action=action) for action in ("retry", "done", "skip")),
    )
    return _placed(reason, call)


# --- due ---


def _due(situation: Situation, call: Row) -> Reason:
    due = situation.due(DueKind.CALL, call["id"])
    workflow = ids.encode("wf", situation.workflow["id"])
    if due is None:
        return _unwoken(situation, call)
    since = due["due_at"]
    if since > situation.now:
        last = call["recovery"][-1] if call["recovery"] else None
        after = "" if last is None else f" after {in_short(str(last['kind']))}"
        stopped = _stopped_itself(situation, call)
        again = f"It is tried again at {clock(since)}, on whichever worker is free."
        return Reason(
            kind="backing_off",
            headline=f"{what(call)} is asked again{after} at {clock(since)}."
            if stopped is None
            else f"{clipped(stopped, 2 * MESSAGE_LIMIT)} {again}",
            until=since,
            who=TIME,
            commands=(why_commands.operate(workflow, call["step"], action="retry-now"),),
        )
    if not situation.workers:
        text = f"No worker is alive: {what(call)} has been due since {clock(since)}."
        return Reason(
            kind="no_worker", headline=text, since=since, who=OPERATOR,
            commands=(why_commands.start_worker(),),
        )  # fmt: skip
    if call["engine_version"] not in situation.workers:
        text = f"No living worker knows engine version {call['engine_version']}, which {what(call)} needs."
        return Reason(kind="no_worker", headline=text, since=since, who=OPERATOR)
    if situation.restored and call["kind"] != CallKind.MODEL and call["effect"] != EffectClass.READ_ONLY:
        text = f"The database was restored: {what(call)} may have been sent in the time that is lost."
        return Reason(
            kind="restored", headline=text, since=since, who=OPERATOR,
            commands=(why_commands.recover(),),
        )  # fmt: skip
    ahead = situation.ahead.get(call["id"], 0)
    place = f"queued behind {counted(ahead, 'call')}" if ahead else "next to be sent"
    text = f"{what(call)} is {place}{_instead_of(call)}."
    return Reason(kind="queued", headline=text, since=since, who=WORKER)


def _instead_of(call: Row) -> str:
    """Of a call that was made because an answer could not be used: why, and what is asked now."""
    record = call["recovery"][-1] if call["recovery"] and not call["attempts"] else None
    if record is None or not record.get("change"):
        return ""
    count = f" ({record['used']} of {record['allowed']})" if record.get("allowed") else ""
    message = str(record.get("message") or in_short(str(record["kind"]))).rstrip(".")
    done = CHANGES.get(str(record["change"]), str(record["change"]))
    return f": {clipped(message, MESSAGE_LIMIT)}; {done}{count}"


def _stopped_itself(situation: Situation, call: Row) -> str | None:
    """What a worker said that could not send it at all: nobody's failure, so no recovery speaks of it."""
    last = next((row for row in situation.attempts if row["id"] == call["attempt_id"]), None)
    failure = None if last is None or last["outcome"] != AttemptOutcome.NOT_SENT else last["failure"]
    if last is None or not failure or failure["kind"] != FailureKind.WORKER_LOST:
        return None
    return f"{uninstalled.in_words(failure)}." if uninstalled.is_one(last) else str(failure["message"])


# --- in flight ---


def _intended(situation: Situation, call: Row) -> Reason:
    due = situation.due(DueKind.ATTEMPT, call["id"]) or situation.due(DueKind.CALL, call["id"])
    if due is None:
        if situation.due(DueKind.APPLY, call["id"]) is None:
            return _unwoken(situation, call)
        text = f"The answer of {what(call)} is stored; what follows from it is being recorded."
        return Reason(kind="recording", headline=text, who=TIME)
    attempt = next((row for row in situation.attempts if row["id"] == call["attempt_id"]), None)
    if attempt is None:
        return Reason(kind="in_flight", headline=f"{what(call)} is being asked.", who=WORKER)
    name = clipped(attempt["worker_name"] or "a worker", TITLE_LIMIT)
    decided = max(due["due_at"], attempt["send_deadline"])
    if attempt["worker_lost_at"] is not None or attempt["send_deadline"] < situation.now:
        gone = (
            f"The worker {name} was lost at {clock(attempt['worker_lost_at'])} while it was calling {what(call)}"
            if attempt["worker_lost_at"] is not None
            else f"The worker {name} has not said what became of {what(call)}"
        )
        return Reason(
            kind="worker_lost",
            headline=f"{gone}; until {clock(decided)} a late answer may still settle it, then it is decided "
            f"({call['effect']}).",
            since=attempt["worker_lost_at"] or attempt["send_deadline"],
            until=decided,
            who=TIME,
        )
    return Reason(
        kind="in_flight",
        headline=f"{name} is calling {what(call)} (attempt {attempt['n']}); "
        f"it answers by {clock(attempt['send_deadline'])} or is given up.",
        since=attempt["sent_at"] or attempt["intended_at"],
        until=attempt["send_deadline"],
        who="the model" if call["kind"] == CallKind.MODEL else "the tool",
    )


def _result(situation: Situation, call: Row, due: Row) -> Reason:
    attempt = next((row for row in situation.attempts if row["id"] == call["attempt_id"]), None)
    return Reason(
        kind="result",
        headline=f"{what(call)} was accepted (202); its result is waited for until {moment(due['due_at'])}.",
        since=None if attempt is None else attempt["received_at"],
        until=due["due_at"],
        who="the tool",
    )


# --- not known ---


def _probing(situation: Situation, call: Row) -> Reason:
    open_probe = next((row for row in situation.calls if row["id"] == call["probe_id"]), None)
    probe = situation.probes.get(call["tool"])
    asker = clipped((open_probe or {}).get("tool") or ("its probe" if probe is None else probe.tool), TITLE_LIMIT)
    due = None if open_probe is None else situation.due(DueKind.CALL, open_probe["id"])
    next_at = None if due is None or due["due_at"] <= situation.now else due["due_at"]
    said = situation.verdicts.get(call["id"], ())
    asked = (
        f"{counted(len(said), 'answer')} so far, the last: {VERDICTS.get(said[-1], said[-1])}"
        if said
        else "no answer yet"
    )
    when = "is being asked now" if next_at is None else f"is asked at {clock(next_at)}"
    deadline = None if probe is None or call["not_before"] is None else call["not_before"] + probe.deadline
    until = "" if deadline is None else f"; still unclear at {clock(deadline)}, it becomes a doubt"
    attempt = next((row for row in situation.attempts if row["id"] == call["attempt_id"]), None)
    accepted = attempt is not None and attempt["status_code"] == ACCEPTED and attempt["outcome"] is None
    question = f"{what(call)} was accepted (202)" if accepted else f"Nobody knows whether {what(call)} happened"
    return Reason(
        kind="probing",
        headline=f"{question}; {asker} {when} ({asked}){until}.",
        since=call["doubt_since"],
        until=next_at or deadline,
        not_before=call["not_before"],
        who=TIME,
    )


def _doubt(situation: Situation, call: Row) -> Reason:
    name = ids.encode("call", call["id"])
    until = call["not_before"]
    quarantine = until is not None and until > situation.now
    late = (
        f"; what has left may still arrive until {clock(until)}, so did-not-happen only from then on"
        if quarantine
        else ""
    )
    outcomes = ["happened", "did_not_happen", "abandon"]
    if call["tool"] in situation.probes:
        outcomes.append("probe")
    return Reason(
        kind="doubt",
        headline=f"Nobody knows whether {what(call)} happened ({counted(call['attempts'], 'request')} sent){late}.",
        since=call["doubt_since"],
        not_before=until,
        who="a person who looks at the tool itself",
        commands=tuple(why_commands.resolve(name, outcome=outcome) for outcome in outcomes),
    )


# --- held ---


def _held(situation: Situation, call: Row) -> Reason:
    reason = HeldReason(call["held_reason"])
    workflow = ids.encode("wf", situation.workflow["id"])
    if reason is HeldReason.ATTACHED:
        return _attached(situation, call)
    if reason is HeldReason.BUDGET:
        return why_budgets.held(situation, call, what=what(call))
    if reason in (HeldReason.APPROVAL, HeldReason.REPEAT, HeldReason.DRIFT):
        return _unwoken(situation, call)  # its approval is gone
    return Reason(
        kind="held",
        headline=f"{what(call)} is held: {HELD[reason]}.",
        reason=reason,
        since=call["doubt_since"],
        who=OPERATOR,
        commands=(
            why_commands.operate(workflow, call["step"], action="retry-now"),
            why_commands.operate(workflow, call["step"], action="fail"),
            why_commands.cancel(workflow),
        ),
    )


def _attached(situation: Situation, call: Row) -> Reason:
    owner = situation.owners.get(call["target"])
    due = situation.due(DueKind.ATTACHED, call["id"])
    if due is None:
        return _unwoken(situation, call)
    if owner is None:
        text = (
            f"{what(call)} waits for a call with the same key that is gone; looked at again at {clock(due['due_at'])}."
        )
        return Reason(kind="attached", headline=text, reason=HeldReason.ATTACHED, who=TIME)
    workflow = ids.encode("wf", owner["workflow_id"])
    return Reason(
        kind="attached",
        headline=f"{what(call)} has the same key as {owner['step']} of {workflow} ({owner['state']}): "
        "it takes that result and is not sent.",
        reason=HeldReason.ATTACHED,
        since=call["created_at"],
        who="the workflow that owns the key",
        commands=(why_commands.show_why(workflow),),
    )


def _unwoken(situation: Situation, call: Row) -> Reason:
    workflow = ids.encode("wf", situation.workflow["id"])
    return Reason(
        kind="nothing",
        headline=f"{what(call)} is {call['state']}, and no row would wake it. That is a fault of Surefoot; report it.",
        since=call["created_at"],
        who=PERSON,
        commands=(why_commands.show_trace(workflow), why_commands.cancel(workflow)),
    )


# --- words ---


def what(call: Row) -> str:
    """`email.send in invite.1`, `the model in plan`, `the undo by calendar.delete_event in create`."""
    if call["kind"] == CallKind.MODEL:
        return f"the model in {call['step']}"
    tool = clipped(call["tool"] or call["kind"], TITLE_LIMIT)
    return (
        f"the undo by {tool} in {call['step']}"
        if call["kind"] == CallKind.COMPENSATION
        else f"{tool} in {call['step']}"
    )


def _placed(reason: Reason, call: Row) -> Reason:
    """With the call it is about, and a capital letter where the sentence does not begin with a tool's name."""
    effect = call["kind"] in (CallKind.TOOL, CallKind.COMPENSATION) and call["effect"] != EffectClass.READ_ONLY
    name = ids.encode("call", call["id"])
    text = reason.headline
    headline = f"T{text[1:]}" if text.startswith("the ") else text
    return replace(reason, headline=headline, step=call["step"], call=name, effect=name if effect else None)
