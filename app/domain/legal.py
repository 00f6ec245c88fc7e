"""The state machines as a table: which fact may move which state where. What is not listed raises.

`docs/state_machine.md` is printed from here and `tests/domain/test_legal_moves.py` tries every pair. A row says what
*may* follow; which of it does is decided in `settling`, `turns`, `starting` and `ending`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.domain.facts import IllegalTransition

_ENDS: Final = ("failing", "succeeded", "failed", "cancelled")
_FLOW: Final = ("running", "waiting", "failing", "succeeded", "failed")
_DRAINED: Final = ("failed", "cancelled")

TABLE: Final[Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]]] = {
    "workflow": {
        "queued": {"WorkflowAccepted": _FLOW},
        "running": {
            "CallSettled": _FLOW,
            "WorkerLost": _FLOW,
            "KeyExpired": _FLOW,
            "DoubtResolved": _FLOW,
            "ApprovalDecided": _FLOW,
            "ApprovalExpired": _FLOW,
            "StepTimedOut": _FLOW,
            "StepEnded": _FLOW,
            "StepReady": _FLOW,
            "ItemEnded": _FLOW,
            "ItemsWanted": _FLOW,
            "ItemsEnded": _FLOW,
            "StepsDone": ("succeeded", "failing"),
            "KeyAnswered": _FLOW,
            "ToolsAsked": _FLOW,
            "WorkflowAccepted": _FLOW,
            "CancelRequested": ("cancelling",),
            "DeadlinePassed": ("failing",),
        },
        "waiting": {
            "CallSettled": _FLOW,
            "DoubtResolved": _FLOW,
            "ApprovalDecided": _FLOW,
            "ApprovalExpired": _FLOW,
            "StepTimedOut": _FLOW,
            "StepEnded": _FLOW,
            "StepReady": _FLOW,
            "ItemEnded": _FLOW,
            "ItemsWanted": _FLOW,
            "ItemsEnded": _FLOW,
            "StepsDone": ("succeeded", "failing"),
            "KeyAnswered": _FLOW,
            "ToolsAsked": _FLOW,
            "CancelRequested": ("cancelling",),
            "DeadlinePassed": ("failing",),
        },
        "failing": {
            "CallSettled": _DRAINED,
            "WorkerLost": _DRAINED,
            "KeyExpired": _DRAINED,
            "DoubtResolved": _DRAINED,
            "DrainBegan": _DRAINED,
            "CancelRequested": ("cancelling",),
        },
        "cancelling": {
            "CallSettled": _DRAINED,
            "WorkerLost": _DRAINED,
            "KeyExpired": _DRAINED,
            "DoubtResolved": _DRAINED,
            "DrainBegan": _DRAINED,
        },
        "paused": {},
        "compensating": {},
        "succeeded": {},
        "failed": {},
        "cancelled": {},
    },
    "step": {
        "pending": {
            "StepReady": ("running", "skipped", "failed"),
            "ItemEnded": ("running",),
            "ItemsWanted": ("running",),
            "CallSettled": ("running",),
            "DoubtResolved": ("running",),
            "ApprovalDecided": ("running",),
            "ApprovalExpired": ("running",),
            "KeyAnswered": ("running",),
            "ToolsAsked": ("running",),
        },
        "ready": {},
        "running": {
            "StepReady": ("succeeded", "failed", "waiting"),
            "ItemEnded": ("succeeded", "failed", "waiting"),
            "ItemsWanted": ("succeeded", "failed", "waiting"),
            "ItemsEnded": ("succeeded", "failed"),
            "CallSettled": ("succeeded", "failed", "cancelled", "waiting"),
            "WorkerLost": ("failed", "cancelled"),
            "DoubtResolved": ("succeeded", "failed", "cancelled", "waiting"),
            "ApprovalDecided": ("succeeded", "failed", "cancelled", "waiting"),
            "ApprovalExpired": ("succeeded", "failed", "cancelled", "waiting"),
            "StepTimedOut": ("failed", "cancelled"),
            "KeyAnswered": ("failed", "succeeded", "waiting"),
            "KeyExpired": ("failed",),
            "ToolsAsked": ("failed", "cancelled"),
            "DrainBegan": ("cancelled",),
        },
        "waiting": {
            "ApprovalDecided": ("succeeded", "failed"),
            "ApprovalExpired": ("succeeded", "failed"),
            "StepTimedOut": ("failed", "cancelled"),
            "DrainBegan": ("cancelled",),
        },
        "succeeded": {},
        "failed": {},
        "skipped": {},
        "cancelled": {},
    },
    "call": {
        "held": {
            "ApprovalDecided": ("due", "failed"),
            "ApprovalExpired": ("failed",),
            "CallSettled": ("succeeded", "due", "failed", "in_doubt", "cancelled"),
            "ToolsAsked": ("succeeded",),
            "StepTimedOut": ("cancelled", "in_doubt"),
            "DrainBegan": ("cancelled", "in_doubt"),
        },
        "due": {
            "CallSettled": ("succeeded", "due", "failed", "in_doubt", "cancelled"),
            "KeyExpired": ("due", "in_doubt"),
            "StepTimedOut": ("cancelled",),
            "DrainBegan": ("cancelled",),
        },
        "intended": {
            "CallSettled": ("succeeded", "failed", "due", "in_doubt", "cancelled"),
            "WorkerLost": ("due", "in_doubt", "held", "cancelled"),
        },
        "probing": {},
        "in_doubt": {
            "CallSettled": ("succeeded", "failed", "due", "cancelled", "in_doubt"),
            "DoubtResolved": ("succeeded", "due", "abandoned", "cancelled"),
        },
        "succeeded": {},
        "failed": {},
        "cancelled": {},
        "abandoned": {},
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    machine: str
    state: str
    fact: str
    leads_to: tuple[str, ...]


def table() -> list[Row]:
    """Every listed pair, for the printed table."""
    return [
        Row(machine=machine, state=state, fact=fact, leads_to=leads_to)
        for machine, states in TABLE.items()
        for state, facts in states.items()
        for fact, leads_to in facts.items()
    ]


def check(machine: str, state: str, to: str, *, fact: str) -> None:
    """Raises `IllegalTransition` unless the table lists the move."""
    if to not in TABLE[machine][state].get(fact, ()):
        raise IllegalTransition(f"{machine}: {fact} does not lead from {state} to {to}")
