"""Watching one workflow until it ends, needs a person, or the time is over: `--wait`, `--follow`.

`wait` holds a request open at the server (`Prefer: wait`). `follow` polls the events, which are numbered without gaps,
and hands on what is new. A server that is away for a while (a restart) is waited for, up to `PATIENCE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from app.cli import printing
from app.cli.client import Client
from app.cli.exits import FAILED, OK, TIMED_OUT, UNREACHABLE, WAITS, Stop
from app.domain.outcomes import JSON
from app.domain.plain import plain
from app.domain.states import FINAL_STATUSES

HOLD: Final = 20
"""Seconds the server holds one request: below the idle timeouts of proxies."""
POLL: Final = 0.4
"""Seconds between two looks while following."""
PATIENCE: Final = 15.0
"""Seconds a server that was there may be away."""

_PERSONS: Final = frozenset({"approval", "doubt"})
_PERSONS_REASONS: Final = frozenset({"approval", "repeat", "drift", "poisoned", "operator", "budget"})
_OPERATORS: Final = frozenset({"saga", "compensation"})
"""What a workflow waits for while it fails or undoes: its status says that, and not `waiting`."""
_SAID_ELSEWHERE: Final = frozenset({"step", "attempt"})


def wait(client: Client, workflow_id: str, *, seconds: float | None) -> JSON:
    """The workflow once it ended or needs a person, or as it is when the time is over."""
    until = _Until(seconds)
    while True:
        began = time.monotonic()
        hold = max(int(min(HOLD, until.left())), 1)
        found = _patiently(lambda hold=hold: client.get(f"/v1/workflows/{workflow_id}", wait=hold))  # type: ignore[misc]
        if settled(found) or until.over():
            return found
        if time.monotonic() - began < POLL:
            time.sleep(POLL)


def follow(
    client: Client,
    workflow_id: str,
    *,
    seconds: float | None,
    seen: Callable[[JSON, list[JSON]], None],
    quiet: Callable[[], None] = lambda: None,
) -> JSON:
    """Calls `seen(workflow, new events)` whenever something happened, `quiet()` between; returns like `wait`."""
    until, after = _Until(seconds), 0
    while True:
        found = _patiently(lambda: client.get(f"/v1/workflows/{workflow_id}"))
        new = list(events(client, workflow_id, after=after)) if found["last_seq"] > after else []
        if new:
            after = new[-1]["seq"]
            seen(found, new)
        if settled(found) or until.over():
            return found
        if not new:
            quiet()
        time.sleep(POLL)


def events(client: Client, workflow_id: str, *, after: int = 0, limit: int = 200) -> Iterator[JSON]:
    """Every event after that number, page by page."""
    while True:
        query = {"after": after, "limit": limit}
        page = _patiently(lambda query=query: client.get(f"/v1/workflows/{workflow_id}/events", query=query))  # type: ignore[misc]
        yield from page["data"]
        if not page["has_more"] or not page["data"]:
            return
        after = page["data"][-1]["seq"]


def settled(workflow: Mapping[str, JSON]) -> bool:
    return workflow["status"] in FINAL_STATUSES or needs_person(workflow)


def needs_person(workflow: Mapping[str, JSON]) -> bool:
    if workflow["status"] == "paused" or any(one["kind"] in _OPERATORS for one in workflow["waiting_on"]):
        return True
    if workflow["status"] != "waiting":
        return False
    return any(
        one["kind"] in _PERSONS or (one["kind"] == "held" and one.get("reason") in _PERSONS_REASONS)
        for one in workflow["waiting_on"]
    )


def exit_code(workflow: Mapping[str, JSON]) -> int:
    if workflow["status"] == "succeeded":
        return OK
    if workflow["status"] in FINAL_STATUSES:
        return FAILED
    return WAITS if needs_person(workflow) else TIMED_OUT


def event_line(event: Mapping[str, JSON]) -> str:
    """`14:02:11.030  #3   understand  agent.step.started  context_size=812`."""
    data = event.get("data") or {}
    said = "  ".join(f"{name}={_value(value)}" for name, value in data.items() if name not in _SAID_ELSEWHERE)
    instant = str(event["timestamp"])[11:23].rstrip("Z")
    place = plain(str(event.get("step") or "·"))
    return f"{instant:<12}  #{event['seq']:<4}{place:<18}  {event['type']}  {said}".rstrip()


def _value(value: JSON) -> str:
    if isinstance(value, Mapping):
        return plain(str(value.get("message") or dict(value)))
    return "-" if value is None else plain(str(value))


def _patiently(ask: Callable[[], JSON]) -> JSON:
    """Once more, and again, while the server is away for less than `PATIENCE`."""
    began = time.monotonic()
    told = False
    while True:
        try:
            return ask()
        except Stop as error:
            if error.code != UNREACHABLE or time.monotonic() - began > PATIENCE:
                raise
            if not told:
                printing.note("the server does not answer; still trying")
                told = True
            time.sleep(POLL)


class _Until:
    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        return float(HOLD) if self._end is None else max(self._end - time.monotonic(), 0.0)

    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end
