"""A worker process between Redis, Postgres and signals: what it survives and how it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
import redis

from app.domain.states import Lane
from app.embedded.valkey import EmbeddedValkey
from app.ports.bell import RedisBell
from tests.worker.child import AT_ONCE, BROKEN, CANCELLABLE, EFFECT, behaviour
from tests.worker.conftest import Child

Start = Callable[..., Child]


def test_worker_performs_a_call_when_it_is_rung(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url)
    call = behaviour(AT_ONCE)

    _ring(redis_url, [call])

    assert worker.expect("ended", id=str(call))[0]["may_claim"] is True


def test_worker_performs_both_when_a_message_comes_twice(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url)
    call = behaviour(AT_ONCE)

    _ring(redis_url, [call, call])

    assert len(worker.expect("ended", times=2, id=str(call))) == 2


def test_worker_goes_on_when_a_call_raises(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url, concurrency="1")
    broken, sound = behaviour(BROKEN), behaviour(AT_ONCE)

    _ring(redis_url, [broken, sound])

    worker.expect("began", id=str(broken))
    assert worker.expect("ended", id=str(sound))


def test_worker_takes_the_next_call_at_once_when_it_has_room_for_one(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url, concurrency="1")
    worker.expect("swept")

    _ring(redis_url, [behaviour(AT_ONCE) for _ in range(100)])

    # A credit that comes back a second late would take 100 seconds; `expect` waits for 30.
    assert len(worker.expect("ended", times=100)) == 100


def test_worker_throws_a_message_away_when_it_knows_no_such_task(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url)
    call = behaviour(AT_ONCE)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("calls", '{"body": "no", "headers": {}, "properties": {"delivery_tag": "1", "delivery_info": {}}}')

    _ring(redis_url, [call])

    worker.expect("ended", id=str(call))
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("calls") == 0


def test_worker_still_hears_the_bell_when_redis_was_emptied(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url)
    bell = RedisBell(redis_url)
    before, after = behaviour(AT_ONCE), behaviour(AT_ONCE)
    bell.ring(Lane.CALLS, [before])
    worker.expect("ended", id=str(before))

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    bell.ring(Lane.CALLS, [after])

    assert worker.expect("ended", id=str(after))
    bell.close()


def test_worker_performs_what_is_due_and_comes_back_when_redis_was_killed(
    start_worker: Start, own_valkey: EmbeddedValkey
) -> None:
    own_valkey.start()
    worker = start_worker(own_valkey.url, sweep="0.1")
    running = behaviour(EFFECT)
    _ring(own_valkey.url, [running])
    worker.expect("began", id=str(running))

    own_valkey.kill()
    due = behaviour(AT_ONCE)
    worker.tell(do="due", id=str(due))
    worker.tell(do="ring", id=str(behaviour(AT_ONCE)))
    worker.expect("ended", id=str(due))
    own_valkey.start()
    after = behaviour(AT_ONCE)
    _ring(own_valkey.url, [after])

    worker.expect("ended", id=str(after))
    worker.tell(do="release")
    worker.expect("ended", id=str(running))
    assert len(worker.seen("began", id=str(running))) == 1


def test_worker_runs_a_call_once_when_its_connection_was_cut(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url)
    running, after = behaviour(EFFECT), behaviour(AT_ONCE)
    _ring(redis_url, [running])
    worker.expect("began", id=str(running))

    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    _ring(redis_url, [after])
    worker.expect("ended", id=str(after))
    worker.tell(do="release")
    worker.expect("ended", id=str(running))

    assert len(worker.seen("began", id=str(running))) == 1
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("calls") == 0


def test_worker_starts_and_performs_what_is_due_when_redis_is_away(
    start_worker: Start, own_valkey: EmbeddedValkey
) -> None:
    worker = start_worker(own_valkey.url, sweep="0.1")
    due, rung = behaviour(AT_ONCE), behaviour(AT_ONCE)

    worker.tell(do="due", id=str(due))

    worker.expect("ended", id=str(due))
    own_valkey.start()
    _ring(own_valkey.url, [rung])
    worker.expect("ended", id=str(rung))


def test_worker_takes_calls_when_all_its_deliveries_are_slow(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url, concurrency="2", delivery_concurrency="2")
    slow = [behaviour(EFFECT) for _ in range(4)]
    _ring(redis_url, slow, lane=Lane.DELIVERIES)
    worker.expect("delivering", times=2)
    calls = [behaviour(AT_ONCE) for _ in range(10)]

    _ring(redis_url, calls)

    worker.expect("ended", times=10)
    assert len(worker.seen("delivering")) == 2
    worker.tell(do="release")
    worker.expect("delivered", times=4)


def test_worker_holds_no_more_messages_than_calls_when_it_is_full(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url, concurrency="2")
    _ring(redis_url, [behaviour(EFFECT) for _ in range(2)])
    worker.expect("began", times=2)

    _ring(redis_url, [behaviour(AT_ONCE) for _ in range(5)])

    with redis.Redis.from_url(redis_url) as client:
        waiting = client.llen("calls")
        worker.expect("swept", free_slots=0)
        assert (waiting, client.llen("calls")) == (5, 5)


def test_worker_runs_500_calls_at_once_in_one_process(start_worker: Start, redis_url: str) -> None:
    worker = start_worker(redis_url, concurrency="500")

    _ring(redis_url, [behaviour(EFFECT) for _ in range(500)])
    worker.expect("began", times=500)
    worker.tell(do="memory")

    memory = worker.expect("memory")[0]
    worker.tell(do="release")
    worker.expect("ended", times=500)
    assert memory["open"] == 500
    assert memory["megabytes"] < 150


def test_worker_lets_effects_end_and_exits_0_when_it_is_terminated(
    start_worker: Start, redis_url: str, database_url: str
) -> None:
    worker = start_worker(redis_url)
    model, effect, late = behaviour(CANCELLABLE), behaviour(EFFECT), behaviour(AT_ONCE)
    _ring(redis_url, [model, effect])
    worker.expect("began", times=2)

    worker.send(signal.SIGTERM)
    assert worker.expect("ended", id=str(model))[0]["may_claim"] is False
    _ring(redis_url, [late])
    worker.tell(do="release")

    assert worker.wait() == 0
    worker.expect("ended", id=str(effect))
    assert worker.seen("began", id=str(late)) == []
    assert _worker_row(database_url, worker)["stopped_at"] is not None


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGQUIT])
def test_worker_cancels_effects_and_exits_1_when_it_is_told_twice(
    start_worker: Start, redis_url: str, again: signal.Signals
) -> None:
    worker = start_worker(redis_url)
    model, effect = behaviour(CANCELLABLE), behaviour(EFFECT)
    _ring(redis_url, [model, effect])
    worker.expect("began", times=2)

    worker.send(signal.SIGTERM)
    worker.expect("ended", id=str(model))
    worker.send(again)

    assert worker.wait() == 1
    worker.expect("cancelled", id=str(effect))


def test_worker_ends_at_once_when_it_is_terminated_while_redis_is_away(
    start_worker: Start, own_valkey: EmbeddedValkey
) -> None:
    worker = start_worker(own_valkey.url, sweep="0.1")
    worker.expect("swept", broker_away=True)

    worker.send(signal.SIGTERM)

    assert worker.wait() == 0


def _ring(redis_url: str, ids: list[UUID], *, lane: Lane = Lane.CALLS) -> None:
    bell = RedisBell(redis_url)
    bell.ring(lane, ids)
    bell.close()
    assert bell.published == len(ids)


def _worker_row(database_url: str, worker: Child) -> dict[str, object]:
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as connection:
        row = connection.execute("SELECT * FROM workers WHERE pid = %s", [worker.pid]).fetchone()
    assert row is not None
    return row
