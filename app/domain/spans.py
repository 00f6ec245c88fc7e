"""What a trace is made of: `Span`, `Trace`, their JSON, and the chains of calls that replaced each other.

`to_json` and `from_json` are inverse, so that a client draws the same picture as the server (`trace_text.py`). Spans
are built from rows by `trace.py`. Pure: an open span has no duration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.outcomes import JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One bar of the picture. Money is decimal `usd` text; None means unknown, never zero."""

    id: str
    kind: str
    """workflow, step, call or attempt. A probe and a compensation are calls under the call that they are about."""
    name: str
    headline: str
    status: str
    """The row's own status, state or outcome; an attempt without an outcome is `open` or `lost`."""
    started_at: datetime | None
    ended_at: datetime | None
    cost_usd: str | None
    usage: JSON
    effect: str | None = None
    key: str | None = None
    recovery: tuple[JSON, ...] = ()
    children: tuple[Span, ...] = ()
    n: int | None = None
    """Number of the call in its step, or of the attempt in its call."""
    title: str | None = None
    """Of a step, as the definition gave it."""
    via: str | None = None
    """Of a call: the tool, or the model."""
    turn: int | None = None
    retry_of: str | None = None
    failure: JSON = None
    result: str | None = None
    """A few words of an effect's result: `event evt_8841`."""
    waiting: JSON = None
    """What a person or a clock owes: `{"kind": approval|doubt|held|probe|result|timer|undo, "reason", "since",
    "not_before", "approval"}`. `not_before` is null once it is over."""
    decided: JSON = None
    """What a person said of it: `{"what": doubt|approval|step, "said", "by", "note", "at", "asked", "diff",
    "before"}`; `asked` is when the question was put, `diff` what was changed in the arguments, `before` the approval of
    a call that was in doubt later."""
    role: str | None = None
    """Of a call under another one: `probe` (asks whether it happened) or `compensation` (undoes it)."""
    items: JSON = None
    """`{"total", "ok", "failed", "open"}` of a `for_each`."""
    undo: str = "none"
    partial: JSON = None
    """Of an open attempt at a model call: what has been written so far (`partials.py`), if anybody can tell."""

    @property
    def duration(self) -> timedelta | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return max(self.ended_at - self.started_at, timedelta())

    @property
    def attempts(self) -> tuple[Span, ...]:
        """Of a call: its tries."""
        return tuple(child for child in self.children if child.kind == "attempt")

    @property
    def calls(self) -> tuple[Span, ...]:
        """Of a step: its calls; of a call: the probes and compensations that are about it."""
        return tuple(child for child in self.children if child.kind == "call")

    def walk(self) -> Iterator[Span]:
        yield self
        for child in self.children:
            yield from child.walk()

    def to_json(self) -> dict[str, JSON]:
        duration = self.duration
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "headline": self.headline,
            "status": self.status,
            "started_at": instant_text(self.started_at),
            "ended_at": instant_text(self.ended_at),
            "duration_ms": None if duration is None else milliseconds(duration),
            "cost_usd": self.cost_usd,
            "usage": self.usage,
            "effect": self.effect,
            "key": self.key,
            "recovery": list(self.recovery),
            "n": self.n,
            "title": self.title,
            "via": self.via,
            "turn": self.turn,
            "retry_of": self.retry_of,
            "failure": self.failure,
            "result": self.result,
            "waiting": self.waiting,
            "decided": self.decided,
            "items": self.items,
            "undo": self.undo,
            "role": self.role,
            "partial": self.partial,
            "children": [child.to_json() for child in self.children],
        }

    @staticmethod
    def from_json(value: Mapping[str, JSON]) -> Span:
        return Span(
            id=value["id"],
            kind=value["kind"],
            name=value["name"],
            headline=value["headline"],
            status=value["status"],
            started_at=_instant(value["started_at"]),
            ended_at=_instant(value["ended_at"]),
            cost_usd=value["cost_usd"],
            usage=value["usage"],
            effect=value["effect"],
            key=value["key"],
            recovery=tuple(value["recovery"]),
            children=tuple(Span.from_json(child) for child in value["children"]),
            n=value.get("n"),
            title=value.get("title"),
            via=value.get("via"),
            turn=value.get("turn"),
            retry_of=value.get("retry_of"),
            failure=value.get("failure"),
            result=value.get("result"),
            waiting=value.get("waiting"),
            decided=value.get("decided"),
            items=value.get("items"),
            undo=value.get("undo", "none"),
            role=value.get("role"),
            partial=value.get("partial"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    workflow: Mapping[str, JSON]
    """id, status, headline, definition, failure, source: the members of the API's workflow that a picture needs; and
    reopened: `[{"by", "note", "at"}]`."""
    totals: Mapping[str, JSON]
    """`{"duration_ms", "cost_usd", "retries", "recovery_usd", "recovery_ms", "effects": {done, unknown, undone,
    abandoned, duplicates_prevented}}`."""
    as_of: datetime
    root: Span

    def to_json(self) -> dict[str, JSON]:
        return {
            "workflow": dict(self.workflow),
            "totals": dict(self.totals),
            "as_of": instant_text(self.as_of),
            "spans": [self.root.to_json()],
        }

    @staticmethod
    def from_json(value: Mapping[str, JSON]) -> Trace:
        as_of = _instant(value["as_of"])
        if as_of is None:
            raise ValueError("a trace says what instant it shows")
        return Trace(
            workflow=value["workflow"],
            totals=value["totals"],
            as_of=as_of,
            root=Span.from_json(value["spans"][0]),
        )


def chains(calls: Sequence[Span]) -> list[list[Span]]:
    """Calls and those that replaced them, in the order the first of each was made."""
    chain_of: dict[str, list[Span]] = {}
    found: list[list[Span]] = []
    for call in calls:
        chain = chain_of.get(call.retry_of) if call.retry_of is not None else None
        if chain is None:
            chain = []
            found.append(chain)
        chain.append(call)
        chain_of[call.id] = chain
    return found


def microusd(text: str) -> int:
    """`0.0264` → 26400, without a float on the way."""
    whole, _, fraction = text.partition(".")
    return int(whole) * 1_000_000 + int(fraction.ljust(6, "0")[:6])


def milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))


def instant_text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")


def _instant(text: JSON) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
