"""Why nothing moves: from the rows of one workflow to the reasons, each with since, until, who can move it, and how.

    explain(situation) -> [Reason, …]      what a person must do first, then what goes on by itself
    after_end(workflow) -> [Command, …]    what can be done with one that has ended

Every call that is not settled is accounted for exactly once: alone, or in a group that has one cause (a pause, a
switch). A workflow for which nothing is found to wait says so (`nothing`): that is a fault of ours, and never silent.
Rows are mappings with the column names of `app/store/tables.py`; `app/store/why_views.py` reads them. Pure: the clock
is the database's, in `Situation.now`. What is said about a single call is in `why_calls.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from app.domain import ids, why_calls, why_commands, why_dependencies
from app.domain.amounts import counted, moment
from app.domain.plain import clipped
from app.domain.situation import ENDING_DUES, OPERATOR, PERSON, TIME, TITLE_LIMIT, Kind, Reason, Row, Situation
from app.domain.states import CallKind, CallState, DueKind, HeldReason, WorkflowStatus

__all__ = ["KINDS", "Kind", "Reason", "Situation", "after_end", "explain"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""The kinds in the order in which reasons are told: what most needs somebody comes first."""

_OF_APPROVALS: Final = frozenset({HeldReason.APPROVAL, HeldReason.REPEAT, HeldReason.DRIFT})
_ASIDE: Final = frozenset({CallKind.PROBE})
"""Calls that are told about with the call they ask about."""


def explain(situation: Situation) -> list[Reason]:
    """Nothing for a workflow that has ended, at least one reason for any other."""
    workflow = situation.workflow
    if WorkflowStatus(workflow["status"]).final:
        return []
    reasons = [
        *_whole_workflow(situation),
        *(_approval(situation, row) for row in situation.approvals),
        *_paused(situation),
        *_switched_off(situation),
        *why_dependencies.reasons(situation),
        *(why_calls.undo_failed(situation, call) for call in situation.calls if call["undo"] == "failed"),
    ]
    for call in situation.calls:
        if CallState(call["state"]).final or call["kind"] in _ASIDE:
            continue
        if call["state"] != CallState.HELD or not _told_with_others(situation, call):
            reasons.append(why_calls.reason_of(situation, call))
    if not any(reason.kind not in ("draining", "compensating") for reason in reasons):
        reasons.append(_nothing(situation))
    return sorted(reasons, key=lambda reason: KINDS.index(reason.kind))


def _whole_workflow(situation: Situation) -> list[Reason]:
    """What the workflow's own row says: it drains, it undoes, an operator is to decide about a failure."""
    workflow, name = situation.workflow, ids.encode("wf", situation.workflow["id"])
    status = WorkflowStatus(workflow["status"])
    if workflow["saga"] == "held":
        done = counted(workflow["undos"], "effect")
        return [
            Reason(
                kind="saga_held",
                headline=f"Failed{_place(workflow)}; an operator decides whether {done} done before "
                f"{'is' if workflow['undos'] == 1 else 'are'} undone.",
                since=workflow["updated_at"],
                who=OPERATOR,
                commands=(
                    why_commands.decide_saga(name, mode="undo"),
                    why_commands.decide_saga(name, mode="keep"),
                    why_commands.retry(name),
                ),
            )
        ]
    if status is WorkflowStatus.COMPENSATING:
        return [_undoing(situation, name)]
    if not status.draining:
        return []
    open_ones = workflow["open_calls"] + workflow["doubts"] + workflow["held"]
    what = f"Failing{_place(workflow)}" if status is WorkflowStatus.FAILING else "Being cancelled"
    headline = f"{what}: nothing new is started; {counted(open_ones, 'call')} must be settled before it ends."
    return [Reason(kind="draining", headline=headline, who="whoever settles those calls", commands=(_trace(name),))]


def _undoing(situation: Situation, name: str) -> Reason:
    """Workers go on only where a call that undoes something is under way; the rest waits for that one, or for the word
    about an undo that failed."""
    workflow = situation.workflow
    left = workflow["undos"] - workflow["undos_failed"]
    moving = any(not CallState(call["state"]).final for call in situation.calls)
    done = f"Undoing what was done: {workflow['effects_undone']} undone"
    if moving or not workflow["undos_failed"]:
        headline, who = f"{done}, {left} to go.", "workers" if moving else TIME
    else:
        failed = "the undo that failed" if workflow["undos_failed"] == 1 else "the undos that failed"
        rest = f"{left} to go, which {'waits' if left == 1 else 'wait'} for" if left else "it ends with"
        headline, who = f"{done}, {rest} an operator's word about {failed}.", OPERATOR
    return Reason(kind="compensating", headline=headline, who=who, commands=(_trace(name),))


def after_end(workflow: Row) -> list[why_commands.Command]:
    """What can still be done with a workflow that has ended. Once something was undone, or was given up without
    knowing, it cannot go on from there."""
    status, name = WorkflowStatus(workflow["status"]), ids.encode("wf", workflow["id"])
    if not status.final:
        return []
    goes_on = not workflow["effects_undone"] and not workflow["effects_abandoned"]
    retried = [why_commands.retry(name)] if status is not WorkflowStatus.SUCCEEDED and goes_on else []
    return [*retried, _trace(name)]


def _approval(situation: Situation, row: Row) -> Reason:
    """A question to a person, of a step or about a call; nobody else moves it."""
    name = ids.encode("apr", row["id"])
    title = clipped(row["title"], TITLE_LIMIT)
    held = {"repeat": " (it was done before)", "drift": " (the tool changed)"}.get(row["kind"], "")
    not_him = row["approver"] == "other_than_submitter"
    until = f" Nobody answering by {moment(row['expires_at'])} counts as a no." if row["expires_at"] else ""
    return Reason(
        kind="approval",
        headline=f"{row['step']} asks a person{held}: {title}{'' if title.endswith(('.', '?', '!')) else '.'}{until}",
        step=row["step"],
        reason=None if row["call_id"] is None else row["kind"].replace("tool", "approval"),
        call=None if row["call_id"] is None else ids.encode("call", row["call_id"]),
        approval=name,
        since=row["created_at"],
        until=row["expires_at"],
        who="anyone with the scope approve" + (" except who submitted it" if not_him else ""),
        commands=(
            *((why_commands.show_approval(name),) if row["call_id"] is not None else ()),  # what would be sent
            *(
                why_commands.decide(name, decision=decision, revision=row["revision"])
                for decision in ("approve", "reject")
                if decision in row["allow"] or row["call_id"] is not None
            ),
        ),
    )


def _paused(situation: Situation) -> list[Reason]:
    """One reason for the pause, however many calls it holds."""
    held = _held_for(situation, HeldReason.PAUSE)
    if situation.workflow["status"] != WorkflowStatus.PAUSED and not held:
        return []
    pause = situation.pause or {}
    by = f" by {clipped(pause['by'], TITLE_LIMIT)}" if pause.get("by") else ""
    because = f": {clipped(pause['reason'], TITLE_LIMIT)}" if pause.get("reason") else ""
    calls = f"; {_counted(situation, held)} held" if held else ""
    return [
        Reason(
            kind="paused",
            headline=f"Paused{by}{because}{calls}.",
            reason=HeldReason.PAUSE,
            since=pause.get("at"),
            who=OPERATOR,
            commands=(why_commands.resume(ids.encode("wf", situation.workflow["id"])),),
        )
    ]


def _switched_off(situation: Situation) -> list[Reason]:
    """One reason for each switch that stands before calls of this workflow."""
    scopes: dict[str, list[Row]] = {}
    for call in _held_for(situation, HeldReason.OPERATOR):
        due = situation.due(DueKind.SWITCH, call["id"])
        scopes.setdefault(str((due or {}).get("note") or ""), []).append(call)
    return [_switch(situation, scope, calls) for scope, calls in scopes.items()]


def _switch(situation: Situation, scope: str, calls: Sequence[Row]) -> Reason:
    switch = next((row for row in situation.switches if row["scope"] == scope), None) or {}
    because = f": {clipped(switch['reason'], TITLE_LIMIT)}" if switch.get("reason") else ""
    by = f" by {clipped(switch['by'], TITLE_LIMIT)}" if switch.get("by") else ""
    what = {"tenant": "Everything"}.get(scope, scope.replace(":", " ", 1) or "The tool")
    first = calls[0]
    return Reason(
        kind="held",
        headline=f"{what} is switched off{by}{because}; {_counted(situation, calls)} held.",
        reason=HeldReason.OPERATOR,
        step=first["step"] if len(calls) == 1 else None,
        call=ids.encode("call", first["id"]) if len(calls) == 1 else None,
        since=switch.get("created_at"),
        who=OPERATOR,
        commands=(why_commands.release(scope),) if scope else (),
    )


def _nothing(situation: Situation) -> Reason:
    workflow = situation.workflow
    name = ids.encode("wf", workflow["id"])
    ends = min((due["due_at"] for due in situation.dues if due["kind"] in ENDING_DUES), default=None)
    until = "" if ends is None else f" before its time is up at {moment(ends)}"
    return Reason(
        kind="nothing",
        headline=f"Nothing would wake it{until}: no row says what it waits for. Please report it.",
        since=workflow["updated_at"],
        until=ends,
        who=PERSON,
        commands=(_trace(name), why_commands.cancel(name)),
    )


def _told_with_others(situation: Situation, call: Row) -> bool:
    """Held calls whose reason is told once for all of them, or by their approval."""
    reason = HeldReason(call["held_reason"])
    if reason in (HeldReason.PAUSE, HeldReason.OPERATOR, *why_dependencies.REASONS):
        return True
    return reason in _OF_APPROVALS and any(row["call_id"] == call["id"] for row in situation.approvals)


def _held_for(situation: Situation, reason: HeldReason) -> list[Row]:
    return [call for call in situation.calls if call["state"] == CallState.HELD and call["held_reason"] == reason]


def _counted(situation: Situation, calls: Sequence[Row]) -> str:
    text = counted(len(calls), "call")
    return f"at least {text}" if situation.more else text


def _place(workflow: Row) -> str:
    step = (workflow["failure"] or {}).get("step")
    return f" in {clipped(step, TITLE_LIMIT)}" if step else ""


def _trace(workflow: str) -> why_commands.Command:
    return why_commands.show_trace(workflow)
