"""The commands that move a workflow, each as a line for the shell and as a curl.

A command is exact: its ids are filled in, it can be pasted. Only what a person has to write (a note) is left open, as
`…` inside quotes. The curl reads the server and the key from SUREFOOT_URL and SUREFOOT_KEY. Pure.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from urllib.parse import quote

from app.domain import budget_words
from app.domain.accounts import Account
from app.domain.outcomes import JSON

NOTE = "…"
"""What a person fills in: how they know, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    cli: str
    curl: str | None
    """None: only the command line does this (it starts a process, or needs the database)."""


def show_trace(workflow: str) -> Command:
    return _get(f"surefoot trace {workflow}", f"/v1/workflows/{workflow}/trace?format=text")


def show_why(workflow: str) -> Command:
    return _get(f"surefoot why {workflow}", f"/v1/workflows/{workflow}/why")


def show_step(workflow: str, step: str) -> Command:
    path = f"/v1/workflows/{workflow}/steps/{quote(step, safe='')}"
    return _get(f"surefoot show {workflow} {shlex.quote(step)}", path)


def show_approval(approval: str) -> Command:
    return _get(f"surefoot show {approval}", f"/v1/approvals/{approval}")


def decide(approval: str, *, decision: str, revision: int) -> Command:
    comment = f" --comment {shlex.quote(NOTE)}" if decision == "reject" else ""
    body = {"decision": decision, "revision": revision} | ({"comment": NOTE} if comment else {})
    return _post(f"surefoot {decision} {approval}{comment}", f"/v1/approvals/{approval}/decision", body)


def resolve(effect: str, *, outcome: str) -> Command:
    cli = f"surefoot resolve {effect} {outcome.replace('_', '-')} --note {shlex.quote(NOTE)}"
    return _post(cli, f"/v1/effects/{effect}/resolve", {"outcome": outcome, "note": NOTE})


def settle_undo(effect: str, *, action: str) -> Command:
    cli = f"surefoot undo {effect} {action} --note {shlex.quote(NOTE)}"
    return _post(cli, f"/v1/effects/{effect}/compensation", {"action": action, "note": NOTE})


def decide_saga(workflow: str, *, mode: str) -> Command:
    cli = f"surefoot compensate {workflow} {mode} --note {shlex.quote(NOTE)}"
    return _post(cli, f"/v1/workflows/{workflow}/compensate", {"mode": mode, "note": NOTE})


def retry(workflow: str) -> Command:
    return _post(f"surefoot retry {workflow}", f"/v1/workflows/{workflow}/retry", {})


def resume(workflow: str) -> Command:
    return _post(f"surefoot resume {workflow}", f"/v1/workflows/{workflow}/resume", {})


def cancel(workflow: str) -> Command:
    return _post(f"surefoot cancel {workflow}", f"/v1/workflows/{workflow}/cancel", {})


def operate(workflow: str, step: str, *, action: str) -> Command:
    path = f"/v1/workflows/{workflow}/steps/{quote(step, safe='')}/{action}"
    return _post(f"surefoot step {workflow} {shlex.quote(step)} {action}", path, {})


def top_up(workflow: str, account: Account, measure: str, *, wanted: int) -> Command:
    """As much again as there was, and enough for a call that wants so much."""
    options = budget_words.top_up(account, measure, wanted=wanted)
    body: dict[str, JSON] = {}
    for name, value in zip(options[::2], options[1::2], strict=True):
        key = name.removeprefix("--").replace("-", "_")
        body[key] = int(value) if key in ("tokens", "turns", "tool_calls") else value
    cli = " ".join(["surefoot budget", workflow, *map(shlex.quote, options)])
    return _post(cli, f"/v1/workflows/{workflow}/budget", body)


def release(scope: str) -> Command:
    """`tenant`, `tool:<name>` or `model:<name>`."""
    kind, _, name = scope.partition(":")
    cli = " ".join(["surefoot release", kind, *([shlex.quote(name)] if name else [])])
    url = f'"$SUREFOOT_URL/v1/switches/{quote(scope, safe="")}"'
    return Command(cli=cli, curl=f"curl -X DELETE {url} {_AUTHORIZED}")


def show_breakers() -> Command:
    return _get("surefoot breakers", "/v1/breakers")


def reset_breaker(scope: str) -> Command:
    """As `GET /v1/breakers` lists it."""
    return _post(f"surefoot breakers reset {shlex.quote(scope)}", f"/v1/breakers/{quote(scope, safe='')}/reset", {})


def start_worker() -> Command:
    return Command(cli="surefoot worker", curl=None)


def recover() -> Command:
    return Command(cli="surefoot recover --since 2h --dry-run", curl=None)


_AUTHORIZED = '-H "Authorization: Bearer $SUREFOOT_KEY"'


def _get(cli: str, path: str) -> Command:
    return Command(cli=cli, curl=f'curl "$SUREFOOT_URL{path}" {_AUTHORIZED}')


def _post(cli: str, path: str, body: JSON) -> Command:
    sent = shlex.quote(json.dumps(body, separators=(",", ":"), ensure_ascii=False))
    return Command(
        cli=cli,
        curl=f'curl -X POST "$SUREFOOT_URL{path}" {_AUTHORIZED} -H "Content-Type: application/json" -d {sent}',
    )
