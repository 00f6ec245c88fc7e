"""The state machines as a table: which fact may move which state where. What is not listed raises.

`docs/state_machine.md` is printed from here and `tests/domain/test_legal_moves.py` tries every pair. A row says what
*may* follow; which of it does is decided in `settling`, `turns`, `starting` and `ending`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.domain.facts import IllegalTransition

_ON: Final = (
    "CallSettled", "WorkerLost", "KeyExpired", "DoubtResolved", "ApprovalDecided", "ApprovalExpired", "StepTimedOut",
    "StepEnded", "StepReady", "ItemEnded", "ItemsWanted", "ItemsEnded", "KeyAnswered", "ToolsAsked", "ProbeEnded",
    "ResultTimedOut", "OwnerLooked", "SwitchedOff", "SwitchReleased", "StepOperated", "StepReopened",
    "DatabaseRestored", "MayHaveHappened", "BudgetExceeded", "BudgetFreed", "BudgetLooked", "BudgetRaised",
    "DurationPassed", "ContextSummarised", "ModelSwitched", "DependencyDown", "DependencyLooked",
)  # fmt: skip
"""Facts that let a workflow go on, or fail."""
_FLOW: Final = ("running", "waiting", "failing")
_DRAINED: Final = ("compensating", "failed", "cancelled")
_UNKNOWN: Final = ("in_doubt", "probing", "abandoned")
_SETTLED: Final = ("succeeded", "failed", "due", "held", "cancelled", *_UNKNOWN)
_STEP_ENDS: Final = ("succeeded", "failed", "cancelled", "waiting")

TABLE: Final[Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]]] = {
    "workflow": {
        "queued": {"WorkflowAccepted": ("running",)},
        "running": {
            **dict.fromkeys((*_ON, "WorkflowAccepted", "RetryRequested", "ResumeRequested"), _FLOW),
            "StepsDone": ("succeeded", "failing"),
            "PauseRequested": ("paused",),
            "CancelRequested": ("cancelling",),
            "DeadlinePassed": ("failing",),
        },
        "waiting": {
            **dict.fromkeys(_ON, _FLOW),
            "StepsDone": ("succeeded", "failing"),
            "PauseRequested": ("paused",),
            "CancelRequested": ("cancelling",),
            "DeadlinePassed": ("failing",),
        },
        "paused": {
            **dict.fromkeys(_ON, ("failing",)),
            "StepsDone": ("succeeded", "failing"),
            "ResumeRequested": ("running",),
            "CancelRequested": ("cancelling",),
            "DeadlinePassed": ("failing",),
        },
        "failing": {
            "DrainBegan": _DRAINED,
            "CancelRequested": ("cancelling",),
            "RetryRequested": ("running",),
        },
        "cancelling": {"DrainBegan": _DRAINED, "RetryRequested": ("running",)},
        "compensating": {"DrainBegan": ("failed", "cancelled")},
        "succeeded": {},
        "failed": {"RetryRequested": ("running",)},
        "cancelled": {"RetryRequested": ("running",)},
    },
    "step": {
        "pending": {
            **dict.fromkeys(_ON, ("running",)),
            "StepReady": ("running", "skipped", "failed"),
            "StepOperated": ("running", "succeeded", "skipped", "failed"),
        },
        "ready": {},
        "running": {
            **dict.fromkeys(_ON, _STEP_ENDS),
            "WorkerLost": ("failed", "cancelled"),
            "KeyExpired": ("failed",),
            **dict.fromkeys(("StepTimedOut", "DurationPassed"), ("failed", "cancelled")),
            "StepOperated": ("succeeded", "failed", "skipped", "cancelled", "waiting"),
            "DrainBegan": ("cancelled",),
        },
        "waiting": {
            "ApprovalDecided": ("succeeded", "failed"),
            "ApprovalExpired": ("succeeded", "failed"),
            "StepOperated": ("succeeded", "failed", "skipped", "cancelled"),
            **dict.fromkeys(("StepTimedOut", "DurationPassed"), ("failed", "cancelled")),
            "DrainBegan": ("cancelled",),
        },
        "succeeded": {},
        "failed": {"RetryRequested": ("pending",), "StepReopened": ("pending",)},
        "skipped": {},
        "cancelled": {"RetryRequested": ("pending",), "StepReopened": ("pending",)},
    },
    "call": {
        "held": {
            "ApprovalDecided": ("due", "held", "failed", "cancelled", "abandoned"),
            "ApprovalExpired": ("failed", "abandoned"),
            "CallSettled": _SETTLED,
            "ToolsAsked": ("succeeded",),
            "StepReopened": ("succeeded",),
            "KeyAnswered": ("due", "held", "succeeded", "failed"),
            "OwnerLooked": ("succeeded", "failed"),
            **dict.fromkeys(("SwitchReleased", "DependencyLooked"), ("due", "held")),
            "ResumeRequested": ("due", "held"),
            "BudgetExceeded": ("due", "held", "failed"),
            **dict.fromkeys(("BudgetFreed", "BudgetLooked", "BudgetRaised"), ("due", "held")),
            "DurationPassed": ("cancelled", *_UNKNOWN),
            "StepOperated": ("due", "held", "cancelled", *_UNKNOWN),
            "StepTimedOut": ("cancelled", *_UNKNOWN),
            "DrainBegan": ("cancelled", *_UNKNOWN),
        },
        "due": {
            "CallSettled": _SETTLED,
            "KeyExpired": ("due", "held", *_UNKNOWN),
            "SwitchedOff": ("held",),
            "DependencyDown": ("due", "held"),
            "PauseRequested": ("due", "held"),
            "DurationPassed": ("held", "cancelled", *_UNKNOWN),
            "StepOperated": ("due", "held", "cancelled", *_UNKNOWN),
            "StepTimedOut": ("cancelled", *_UNKNOWN),
            "MayHaveHappened": _UNKNOWN,
            "DrainBegan": ("cancelled", *_UNKNOWN),
        },
        "intended": {
            "CallSettled": _SETTLED,
            "WorkerLost": ("due", "held", "failed", "cancelled", *_UNKNOWN),
            "ResultTimedOut": ("due", "held", "failed", "cancelled", *_UNKNOWN),
            "MayHaveHappened": _UNKNOWN,
        },
        "probing": {
            "ProbeEnded": ("succeeded", "due", "held", "cancelled", "in_doubt"),
            "CallSettled": ("succeeded", "failed", "due", "held", "cancelled", "in_doubt"),
            # A probe whose question cannot be put is a doubt at once, whatever fact it began with.
            **dict.fromkeys(
                (
                    "WorkerLost",
                    "KeyExpired",
                    "ResultTimedOut",
                    "DoubtResolved",
                    "StepTimedOut",
                    "StepOperated",
                    "DrainBegan",
                    "MayHaveHappened",
                    "DurationPassed",
                ),
                ("in_doubt",),
            ),
        },
        "in_doubt": {
            "CallSettled": _SETTLED,
            "DoubtResolved": ("succeeded", "due", "held", "abandoned", "cancelled", "probing"),
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
