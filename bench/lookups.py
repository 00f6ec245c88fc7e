"""What people ask of a long history: every GET with how long it takes and how many rows Postgres read for it.

    lookups.ask(place, examples)      latencies, by name of the question
    lookups.explain(place, do)        rows read by the worst plan of each statement that ran meanwhile (auto_explain)

A question is core if everybody asks it (by id, the newest page); the others filter, and a filter that nothing matches
must look at everything there is unless an index knows it. Rows read are what the plan's scans returned and threw away:
they do not depend on what else the machine does.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from bench import site

TIMES: Final = 12
PATIENCE: Final = 3.0
"""Seconds for one question: a slow one is asked less often."""

FLUSHED: Final = 0.3
"""Seconds after the last answer until its plans are in the log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """What there is to ask about."""

    workflow: str
    effect: str
    step: str
    key: str
    definition: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    name: str
    path: str
    core: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One statement as it ran."""

    text: str
    milliseconds: float
    rows: int
    """Read by its scans, filtered ones included."""
    sequential: tuple[str, ...]
    """Tables read from end to end."""
    asked_by: str
    """The session's application name."""


def questions(given: Examples) -> list[Question]:
    one = f"/v1/workflows/{given.workflow}"
    return [
        Question(name="GET workflow", path=one),
        Question(name="GET steps", path=f"{one}/steps"),
        Question(name="GET step", path=f"{one}/steps/{given.step}"),
        Question(name="GET call", path=f"{one}/steps/{given.step}/calls/1"),
        Question(name="GET events", path=f"{one}/events"),
        Question(name="GET trace", path=f"{one}/trace"),
        Question(name="GET trace as text", path=f"{one}/trace?format=text"),
        Question(name="GET why", path=f"{one}/why"),
        Question(name="GET effects of a workflow", path=f"{one}/effects"),
        Question(name="GET effect", path=f"/v1/effects/{given.effect}"),
        Question(name="list workflows", path="/v1/workflows?limit=50"),
        Question(name="list effects", path="/v1/effects?limit=50"),
        Question(name="list effects in doubt", path="/v1/effects?state=in_doubt"),
        Question(name="list open approvals", path="/v1/approvals?status=open"),
        Question(name="list workflows by key", path=f"/v1/workflows?key={given.key}"),
        Question(name="list workers", path="/v1/workers"),
        Question(name="readyz", path="/readyz"),
        Question(name="metrics", path="/metrics"),
        Question(name="list running (none)", path="/v1/workflows?status=running&limit=50"),
        Question(name="list waiting (none)", path="/v1/workflows?status=waiting&limit=50"),
        Question(name="list needing attention (none)", path="/v1/workflows?attention=outcome_unknown&limit=50"),
        Question(name="list failed (none)", path="/v1/workflows?status=failed&limit=50", core=False),
        Question(name="list succeeded", path="/v1/workflows?status=succeeded&limit=50", core=False),
        Question(name="list of a definition", path=f"/v1/workflows?definition={given.definition}", core=False),
        Question(name="list of a definition (none)", path="/v1/workflows?definition=no-such", core=False),
        Question(name="list by label (none)", path="/v1/workflows?label.team=nobody", core=False),
        Question(name="list by failure kind (none)", path="/v1/workflows?failure.kind=timeout", core=False),
        Question(name="list since 2020", path="/v1/workflows?since=2020-01-01T00:00:00Z", core=False),
        Question(name="list since tomorrow (none)", path="/v1/workflows?since=2100-01-01T00:00:00Z", core=False),
        Question(name="list by key (unknown)", path="/v1/workflows?key=unknown"),
        Question(name="effects of a tool (none)", path="/v1/effects?tool=no.such", core=False),
        Question(name="effects whose undo failed (none)", path="/v1/effects?undo=failed"),
        Question(name="effects undone (none)", path="/v1/effects?undo=done", core=False),
        Question(name="effects failed (none)", path="/v1/effects?state=failed", core=False),
        Question(name="list all approvals", path="/v1/approvals", core=False),
    ]


def ask(place: site.Place, given: Examples) -> dict[str, list[float]]:
    """Milliseconds of each answer, by question."""
    return {question.name: _times(place, question) for question in questions(given)}


def _times(place: site.Place, question: Question, *, times: int = TIMES) -> list[float]:
    connection = http.client.HTTPConnection(urlsplit(place.url).netloc, timeout=60)
    found: list[float] = []
    until = time.monotonic() + PATIENCE
    while len(found) < times and (not found or time.monotonic() < until):
        began = time.monotonic()
        connection.request("GET", question.path, headers={"Authorization": f"Bearer {place.key}"})
        answer = connection.getresponse()
        body = answer.read()
        found.append((time.monotonic() - began) * 1000)
        if answer.status not in (200, 503, 504):
            raise SystemExit(f"bench: GET {question.path} was answered {answer.status}: {body[:300]!r}")
    connection.close()
    return found


def plans_of(place: site.Place, given: Examples) -> dict[str, list[Plan]]:
    """The plans behind one answer to each question."""
    found: dict[str, list[Plan]] = {}
    with explaining(place) as since:
        for question in questions(given):
            _times(place, question, times=1)
            time.sleep(FLUSHED)
            found[question.name] = [plan for plan in since() if plan.asked_by == "surefoot"]
    return found


class explaining:
    """Postgres writes every statement's plan into its log meanwhile; gives a function: what came since the last ask."""

    def __init__(self, place: site.Place) -> None:
        self._place = place
        self._log: Path = place.site.postgres.log
        self._at = 0

    def __enter__(self) -> Callable[[], list[Plan]]:
        self._set({"log_min_duration": "0", "log_analyze": "on", "log_format": "json", "log_timing": "off"})
        self._at = self._log.stat().st_size
        return self._since

    def __exit__(self, *_: object) -> None:
        self._set({"log_min_duration": "-1"})

    def _set(self, settings: Mapping[str, str]) -> None:
        with psycopg.connect(self._place.database_url, autocommit=True) as connection:
            connection.execute("LOAD 'auto_explain'")
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET auto_explain.{name} = '{value}'")  # type: ignore[call-overload]
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(FLUSHED)

    def _since(self) -> list[Plan]:
        with self._log.open("rb") as file:
            file.seek(self._at)
            text = file.read().decode(errors="replace")
            self._at = file.tell()
        return list(read_plans(text))


_BEGINS: Final = re.compile(r"^\S+ \S+ \S+ \[\d+\] (?P<app>.*?) *LOG:  duration: (?P<ms>[\d.]+) ms  plan:$")


def read_plans(log: str) -> Iterator[Plan]:
    """Of Postgres's log: each plan, with the session that asked."""
    lines = iter(log.split("\n"))
    line = next(lines, None)
    while line is not None:
        begins = _BEGINS.match(line)
        line = next(lines, None)
        if begins is None:
            continue
        written: list[str] = []
        while line is not None and line.startswith("\t"):
            written.append(line[1:])
            line = next(lines, None)
        told: dict[str, Any] = json.loads("\n".join(written))
        yield Plan(
            text=" ".join(told["Query Text"].split()),
            milliseconds=float(begins["ms"]),
            rows=int(sum(_read(node) for node in _nodes(told["Plan"]))),
            sequential=tuple(n["Relation Name"] for n in _nodes(told["Plan"]) if n["Node Type"].endswith("Seq Scan")),
            asked_by=begins["app"],
        )


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _read(node: Mapping[str, Any]) -> float:
    """Rows that a scan looked at, over all its loops."""
    if "Relation Name" not in node:
        return 0.0
    thrown = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    return (node.get("Actual Rows", 0) + thrown) * node.get("Actual Loops", 1)
