"""What a person can say next, as commands that work when pasted: one a line, alternatives are lines of their own.

Never `a|b`: the shell would run the first and look for a program named like the second. The words themselves are
those of `app/domain/why_commands.py`, so that every command prints the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.domain import why_commands
from app.domain.outcomes import JSON

VERDICTS: Final = ("happened", "did_not_happen", "abandon")
UNDO_ACTIONS: Final = ("retry", "done", "skip")
MODES: Final = ("undo", "keep")
_REOPENABLE: Final = (None, "not_needed", "skipped")
"""What `compensation` says while nothing was undone."""


def of_doubt(effect: str) -> list[str]:
    return [why_commands.resolve(effect, outcome=verdict).cli for verdict in VERDICTS]


def of_undo(effect: str) -> list[str]:
    return [why_commands.settle_undo(effect, action=action).cli for action in UNDO_ACTIONS]


def of_saga(workflow: str) -> list[str]:
    return [why_commands.decide_saga(workflow, mode=mode).cli for mode in MODES]


def of_approval(approval: str) -> list[str]:
    """Looking comes first: whoever approves says yes to exact arguments."""
    return [f"surefoot show {approval}", f"surefoot approve {approval}", f"surefoot reject {approval}"]


def of_workflow(workflow: Mapping[str, JSON]) -> list[str]:
    """For what it waits for, or why it failed: never empty."""
    found: list[str] = []
    for one in workflow["waiting_on"]:
        found += [command for command in _of_wait(one, str(workflow["id"])) if command not in found]
    name = str(workflow["id"])
    if workflow["status"] == "paused":
        found.append(why_commands.resume(name).cli)
    if workflow["status"] == "failed" and (workflow.get("failure") or {}).get("kind") == "budget_exceeded":
        found.append(f"surefoot budget {name}")
    if workflow["status"] in ("failed", "cancelled") and workflow.get("compensation") in _REOPENABLE:
        found.append(why_commands.retry(name).cli)
    return [*found, f"surefoot trace {name}"]


def _of_wait(one: Mapping[str, JSON], workflow: str) -> list[str]:
    if one.get("approval"):
        return of_approval(str(one["approval"]))
    if one["kind"] == "doubt" and one.get("effect"):
        return of_doubt(str(one["effect"]))
    if one["kind"] == "held" and one.get("reason") == "operator":
        return ["surefoot holds"]
    if one["kind"] == "held" and one.get("reason") == "budget":
        return [f"surefoot budget {workflow}"]
    if one["kind"] == "saga":
        return of_saga(workflow)
    if one["kind"] == "compensation" and one.get("effect"):
        return of_undo(str(one["effect"]))
    return []
