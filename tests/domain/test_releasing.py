"""Who of those that wait may go: nobody before its time, one canary, then few at a time and each tenant in its turn."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.domain import breakers, ids, quotas, releasing
from app.domain.quotas import Allowances, Heard, Limits, Window
from app.domain.releasing import Waiter
from app.domain.rules import Rules
from app.domain.states import BreakerState

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
RULES = Rules()
TOOL, MODEL = "tool:crm.search", "model:1f2e3d4c/claude-haiku-5-5"
TENANTS = [ids.derived("tenant", str(n)) for n in range(3)]


def waiters(scope: str, *tenants: UUID) -> list[Waiter]:
    """In the order in which they came."""
    return [
        Waiter(ref=ids.derived("call", str(n)), tenant_id=tenant, scope=scope, since=NOW + timedelta(seconds=n))
        for n, tenant in enumerate(tenants)
    ]


def opened(scope: str, *, until: float) -> breakers.Breaker:
    fresh = breakers.fresh(TENANTS[0], scope, now=NOW, rules=RULES)
    return replace(fresh, state=BreakerState.OPEN, opened=1, until=NOW + timedelta(seconds=until))


def armed(left: int) -> Limits:
    word = Heard(
        allowances=Allowances(requests=Window(limit=600, remaining=left)),
        rate_limited=False,
        retry_after=None,
        input_per_call=0.0,
        output_per_call=0.0,
    )
    return quotas.learned(quotas.fresh(MODEL, now=NOW), word, now=NOW)


def test_nobody_goes_before_the_breaker_allows_a_canary_and_all_are_looked_at_about_then() -> None:
    found = waiters(TOOL, *[TENANTS[0]] * 9)
    row = opened(TOOL, until=5)

    released = releasing.release(
        found, breakers={(TENANTS[0], TOOL): row}, limits={}, now=NOW, rules=RULES, credential="1f2e3d4c"
    )

    assert released.go == []
    assert all(row.until <= at <= row.until + timedelta(seconds=1) for at in released.looked_at.values() if row.until)


def test_one_of_many_goes_when_it_is_time_for_a_canary_and_the_oldest_of_them() -> None:
    found = waiters(TOOL, *[TENANTS[0]] * 9)

    row = {(TENANTS[0], TOOL): opened(TOOL, until=-1)}
    released = releasing.release(found[::-1], breakers=row, limits={}, now=NOW, rules=RULES, credential="1f2e3d4c")

    assert released.go == [found[0].ref]
    assert released.looked_at.keys() == {waiter.ref for waiter in found}


def test_nobody_goes_while_a_canary_was_just_let_through() -> None:
    half = replace(
        opened(TOOL, until=-1), state=BreakerState.HALF_OPEN, canary=TENANTS[1], canary_until=NOW + timedelta(seconds=9)
    )

    released = releasing.release(
        waiters(TOOL, TENANTS[0]),
        breakers={(TENANTS[0], TOOL): half},
        limits={},
        now=NOW,
        rules=RULES,
        credential="1f2e3d4c",
    )

    assert released.go == []


def test_breaker_of_one_tenants_tool_holds_no_other_tenants_call() -> None:
    found = waiters(TOOL, TENANTS[0], TENANTS[1])

    row = {(TENANTS[0], TOOL): opened(TOOL, until=60)}
    released = releasing.release(found, breakers=row, limits={}, now=NOW, rules=RULES, credential="1f2e3d4c")

    assert released.go == [found[1].ref]


def test_calls_parked_because_of_another_credential_are_let_go_a_few_at_a_time() -> None:
    found = waiters("model:aaaaaaaa/*", *[TENANTS[0]] * 30)
    parked = replace(opened("model:aaaaaaaa/*", until=60), tenant_id=releasing.SHARED, state=BreakerState.PARKED)

    row = {(releasing.SHARED, "model:aaaaaaaa/*"): parked}
    released = releasing.release(found, breakers=row, limits={}, now=NOW, rules=RULES, credential="1f2e3d4c")

    assert released.go == [waiter.ref for waiter in found[: quotas.RAMP]]


def test_all_go_once_nothing_stands_before_them() -> None:
    found = waiters(TOOL, *TENANTS)

    released = releasing.release(found, breakers={}, limits={}, now=NOW, rules=RULES, credential="1f2e3d4c")

    assert set(released.go) == {waiter.ref for waiter in found}


def test_what_is_left_of_a_limit_is_handed_out_tenant_by_tenant() -> None:
    found = waiters(MODEL, *[TENANTS[0]] * 10, TENANTS[1], TENANTS[2], TENANTS[1])

    released = releasing.release(
        found, breakers={}, limits={MODEL: armed(5)}, now=NOW, rules=RULES, credential="1f2e3d4c"
    )

    by_ref = {waiter.ref: waiter.tenant_id for waiter in found}
    assert [by_ref[ref] for ref in released.go] == [TENANTS[0], TENANTS[1], TENANTS[2], TENANTS[0], TENANTS[1]]
    assert [row.requests_left for row in released.limits] == [0.0]
    assert {at for ref, at in released.looked_at.items() if ref not in released.go} == {NOW + releasing.AGAIN}
