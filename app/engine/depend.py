"""What is called, and whether it may be called now: the breakers and rate limits that all workers share.

    report      before an outcome is recorded: counted if it says something; what the decision has to know comes back
    stand_back  the claim found a breaker or a limit before a call: it becomes the canary, or is held
    release     every sweep: those of the held whose time has come and who may go
    reset       an operator says that the trouble is over

`report` is a short transaction of its own, and only for what went wrong, for canaries and for answers that say that a
limit is near: it holds no workflow's lock, and the evidence does not wait for it if it fails. Dying after it counts a
failure twice at most. Dying between a canary's grant and its claim leaves the place to the next one after ten seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.domain import breakers as breaking
from app.domain import dependencies, quotas, releasing
from app.domain.breakers import Advice, Breaker, Told, Verdict
from app.domain.dependencies import SHARED
from app.domain.dependency_facts import DependencyDown, DependencyLooked
from app.domain.facts import Fact
from app.domain.outcomes import Outcome
from app.domain.quotas import Heard, Limits
from app.domain.states import EARLY_CLASSES, AttemptOutcome, BreakerState, CallKind, FailureKind
from app.engine import transactions
from app.engine.advance import Advanced, advance, ring
from app.engine.gather import Gatherer
from app.engine.services import Services
from app.store import breakers, limits
from app.store.breakers import Place
from app.store.claims import Claimed

log = structlog.get_logger(__name__)

LOOK: Final = 500
"""Waiting calls that one sweep looks at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one outcome says about what was called."""

    counted: Sequence[tuple[Place, Told]] = ()
    """The first is about what the decision is told of."""
    scope: str | None = None
    """Of `heard`."""
    heard: Heard | None = None

    @property
    def opens(self) -> list[Place]:
        """Whose rows are made if there are none."""
        return [place for place, told in self.counted if told.verdict in (Verdict.FAILED, Verdict.REFUSED)]


async def report(services: Services, claimed: Claimed, outcome: Outcome) -> Advice | None:
    """Never raises: what is known of a tool is worth less than the outcome that is to be recorded."""
    what = _report_of(services, claimed, outcome)
    if what is None:
        return None
    if services.reports is None:
        services.reports = Gatherer(partial(count, services), limit=services.settings.batch)
    try:
        return await services.reports.submit(what)
    except Exception:
        log.exception("depend.not_counted")
        return None


def _report_of(services: Services, claimed: Claimed, outcome: Outcome) -> Report | None:
    scope = dependencies.scope_of(
        kind=claimed.kind, tool=claimed.tool, model=claimed.request.get("model"), credential=services.credential
    )
    if scope is None:
        return None
    place, window = releasing.place_of(claimed.tenant_id, scope), services.rules.breaker_window
    verdict, failure = dependencies.verdict(claimed.kind, outcome), outcome.failure
    if verdict is Verdict.ANSWERED:
        services.seen.answered(place, window=window)
    canary_of = claimed.canary_of or ()
    counted: list[tuple[Place, Told]] = []
    if failure is not None and verdict in (Verdict.FAILED, Verdict.REFUSED):
        about = place
        if verdict is Verdict.REFUSED:
            about = releasing.place_of(claimed.tenant_id, dependencies.parking_scope(scope, failure))
        told = Told(
            verdict=verdict,
            kind=failure.kind,
            message=failure.message,
            successes=services.seen.tell_successes(place, window=window),
            canary=about[1] in canary_of,
            repeats=_repeats(claimed, outcome),
        )
        counted.append((about, told))
    for other in canary_of:
        about = releasing.place_of(claimed.tenant_id, other)
        if not counted or about != counted[0][0]:
            answered = verdict if verdict is Verdict.ANSWERED else Verdict.NOTHING
            counted.append((about, Told(verdict=answered, canary=True)))
    heard = _heard(services, claimed, outcome, place)
    if not counted and heard is None:
        return None
    return Report(counted=counted, scope=None if heard is None else scope, heard=heard)


def _repeats(claimed: Claimed, outcome: Outcome) -> bool:
    """Whether the decision may repeat it: only then it takes a token of the retry budget."""
    return outcome.certainty is not AttemptOutcome.UNKNOWN or claimed.effect in EARLY_CLASSES


def _heard(services: Services, claimed: Claimed, outcome: Outcome, place: Place) -> Heard | None:
    """Something only if a limit is near, or was reached."""
    if claimed.kind != CallKind.MODEL:
        return None
    if outcome.usage is not None:
        services.seen.used(place, outcome.usage)
    refused = outcome.failure is not None and outcome.failure.kind is FailureKind.RATE_LIMITED
    near = outcome.limits is not None and outcome.limits.near
    if not refused and not (near and services.seen.tells(place)):
        return None
    per_call = services.seen.per_call(place)
    return Heard(
        allowances=outcome.limits,
        rate_limited=refused,
        retry_after=None if outcome.failure is None else outcome.failure.retry_after,
        input_per_call=per_call[0],
        output_per_call=per_call[1],
    )


async def count(services: Services, batch: Sequence[Report]) -> list[Advice | None]:
    """One transaction for all that came in meanwhile."""

    async def work(connection: transactions.Connection) -> list[Advice | None]:
        advice = await _count_outcomes(services, connection, batch)
        await _learn_limits(connection, batch)
        return advice

    return await transactions.run(services.database, "report", work)


async def _count_outcomes(
    services: Services, connection: transactions.Connection, batch: Sequence[Report]
) -> list[Advice | None]:
    places = sorted({place for one in batch for place, _ in one.counted})
    if not places:
        return [None] * len(batch)
    opened = sorted({place for one in batch for place in one.opens})
    if opened:
        await breakers.opened(connection, opened, burst=services.rules.retry_burst)
    rows = await breakers.locked(connection, places)
    before, now = dict(rows), await breakers.clock(connection)
    answers: list[Advice | None] = []
    for one in batch:
        advice: list[Advice | None] = []
        for place, told in one.counted:
            row = rows.get(place)
            if row is None:  # reset by an operator meanwhile
                advice.append(None)
                continue
            rows[place], given = breaking.told(row, told, now=now, rules=services.rules)
            advice.append(None if told.verdict not in (Verdict.FAILED, Verdict.REFUSED) else given)
        answers.append(advice[0] if advice else None)
    await breakers.write(connection, list(rows.values()))
    for place, row in rows.items():
        await _tell_change(connection, place, before[place], row)
    return answers


async def _tell_change(connection: transactions.Connection, place: Place, before: Breaker, after: Breaker) -> None:
    if before.state == after.state:
        return
    woken = 0
    if after.state == BreakerState.CLOSED:
        woken = await breakers.wake(connection, place, shared=SHARED)
    log.warning("breaker", scope=place[1], state=after.state, was=before.state, kind=after.kind, woken=woken)


async def _learn_limits(connection: transactions.Connection, batch: Sequence[Report]) -> None:
    heard = [(one.scope, one.heard) for one in batch if one.scope is not None and one.heard is not None]
    if not heard:
        return
    scopes = sorted({scope for scope, _ in heard})
    await limits.opened(connection, scopes)
    rows, now = await limits.locked(connection, scopes), await breakers.clock(connection)
    for scope, word in heard:
        rows[scope] = quotas.learned(rows[scope], word, now=now)
    await limits.write(connection, list(rows.values()))


# --- before a claim -------------------------------------------------------------------------------------------------


async def stand_back(services: Services, claimed: Claimed) -> bool:
    """Whether the call may be claimed after all: it is the canary now, or nothing stands before it any more. Else it
    is held, or its workflow is locked and it stays due."""
    places = [releasing.place_of(claimed.tenant_id, scope) for scope in claimed.stands or ()]

    async def work(connection: transactions.Connection) -> Advanced | None:
        if places and await _granted(connection, places, claimed.call_id):
            return None
        found = await _found(services, connection, places, claimed)
        if found is None:
            return None
        # The rows of the breakers are locked: nobody may be waited for.
        return await advance(services, connection, {claimed.workflow_id: [found]}, skip_locked=True)

    advanced = await transactions.run(services.database, "stand-back", work, size=services.settings.pool_size)
    if advanced is not None:
        ring(services, advanced)
    return advanced is None


async def _granted(connection: transactions.Connection, places: Sequence[Place], call_id: UUID) -> bool:
    """The canary of all that stand before it. Asked only when it is time for one: a refused update locks nothing."""
    rows, now = await breakers.read(connection, places), await breakers.clock(connection)
    shut = [(place, row) for place, row in rows.items() if row.state != BreakerState.CLOSED and row.canary != call_id]
    if not shut or any(row.until is not None and row.until > now for _, row in shut):
        return False
    return all([await breakers.grant(connection, place, call_id=call_id) for place, _ in shut])


async def _found(
    services: Services, connection: transactions.Connection, places: Sequence[Place], claimed: Claimed
) -> Fact | None:
    """What stands before it, under a lock that lasts until it is held: who closes a breaker then wakes it."""
    rows, now = await breakers.standing(connection, places), await breakers.clock(connection)
    for row in rows.values():
        if row.state != BreakerState.CLOSED and row.canary != claimed.call_id:
            return DependencyDown(
                call_id=claimed.call_id,
                step=claimed.step,
                scope=row.scope,
                quota=False,
                kind=row.kind or FailureKind.NETWORK,
                reason=breaking.story(row),
                until=releasing.look_again_at(row, now=now, rules=services.rules),
            )
    if claimed.short is None:
        return None
    limit = (await limits.read(connection, [claimed.short])).get(claimed.short)
    if limit is None or not (limit.blocked(now) or limit.armed(now)):
        return None
    return _short(claimed, limit, now=now)


def _short(claimed: Claimed, limit: Limits, *, now: datetime) -> Fact:
    who = breaking.named(limit.scope)
    until = limit.blocked_until if limit.blocked(now) and limit.blocked_until is not None else now
    reason = (
        f"The provider takes no more requests for {who} until {until.strftime('%H:%M:%S')}."
        if limit.blocked(now)
        else f"The rate limit of {who} is nearly used up: calls are let go one after another, each tenant in its turn."
    )
    return DependencyDown(
        call_id=claimed.call_id,
        step=claimed.step,
        scope=limit.scope,
        quota=True,
        kind=FailureKind.RATE_LIMITED,
        reason=reason,
        until=until,
    )


# --- every sweep ----------------------------------------------------------------------------------------------------


async def release(services: Services) -> Mapping[UUID, Sequence[Fact]]:
    """Facts of those that may go. What is looked at later costs one statement for all."""

    async def work(connection: transactions.Connection) -> Mapping[UUID, Sequence[Fact]]:
        await _housekeeping(services, connection)
        waiting = await breakers.ripe(connection, limit=LOOK)
        return {} if not waiting else await _release(services, connection, waiting)

    return await transactions.run(services.database, "sweep", work)


async def _housekeeping(services: Services, connection: transactions.Connection) -> None:
    if not services.seen.welcomed:
        await breakers.wake_of_others(connection, credential=services.credential)
        services.seen.welcomed = True
    if services.seen.tidies():
        await breakers.tidy(connection)
        await limits.tidy(connection)


async def _release(
    services: Services, connection: transactions.Connection, waiting: Sequence[breakers.Waiting]
) -> Mapping[UUID, Sequence[Fact]]:
    waiters = {
        one.ref: releasing.Waiter(ref=one.ref, tenant_id=one.tenant_id, scope=one.scope, since=one.since)
        for one in waiting
    }
    scopes = sorted({one.scope for one in waiting})
    known = await limits.read(connection, scopes)
    mine = await limits.locked(connection, sorted(known), skip_locked=True)
    rows, now = (
        await breakers.read(connection, sorted({w.place for w in waiters.values()})),
        await breakers.clock(connection),
    )
    released = releasing.release(
        [w for w in waiters.values() if w.scope not in known or w.scope in mine],
        breakers=rows,
        limits=mine,
        now=now,
        rules=services.rules,
        credential=services.credential,
    )
    await breakers.put_off(connection, sorted(released.looked_at.items()))
    await limits.write(connection, released.limits)
    facts: dict[UUID, list[Fact]] = defaultdict(list)
    go = set(released.go)
    for one in waiting:
        if one.ref in go:
            facts[one.workflow_id].append(DependencyLooked(call_id=one.ref, step=one.step))
    return facts


# --- operators ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """All that is known about what a tenant calls and that is, or was, in trouble."""

    now: datetime
    breakers: Sequence[Breaker]
    limits: Mapping[str, Limits]
    held: Mapping[str, int]
    """Scope → how many of the tenant's calls wait for it."""


async def listed(services: Services, tenant_id: UUID) -> State:
    async def work(connection: transactions.Connection) -> State:
        return State(
            breakers=await breakers.listed(connection, tenant_id=tenant_id, shared=SHARED),
            limits=await limits.read(connection),
            held=await breakers.held(connection, tenant_id=tenant_id),
            now=await breakers.clock(connection),
        )

    return await transactions.run(services.database, "operate", work, size=services.settings.pool_size)


async def reset(services: Services, tenant_id: UUID, *, scope: str, by: str, note: str | None = None) -> int | None:
    """How many calls go on because of it, within the next sweeps; None: nothing was known of that scope."""
    place = releasing.place_of(tenant_id, scope)

    async def work(connection: transactions.Connection) -> int | None:
        return await breakers.reset(
            connection, place, shared=SHARED, tenant_id=tenant_id, by=by, note=note, audit_id=uuid7()
        )

    return await transactions.run(services.database, "operate", work, size=services.settings.pool_size)
