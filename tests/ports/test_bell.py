"""The bell against a real Redis that answers, is emptied, is away, hangs or comes back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote
from uuid import UUID, uuid4

import pytest
import redis

from app.domain.states import Lane
from app.embedded.valkey import EmbeddedValkey
from app.ports.bell import RedisBell, broker_settings, broker_url

PATIENCE = 20.0
"""Seconds a condition may take on a busy machine before it is called false."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def bell(valkey: EmbeddedValkey) -> Iterator[RedisBell]:
    bell = RedisBell(valkey.url)
    yield bell
    bell.close()


def test_bell_puts_the_id_into_the_lanes_queue_when_it_rings(valkey: EmbeddedValkey, bell: RedisBell) -> None:
    call, stream = uuid4(), uuid4()

    bell.ring(Lane.CALLS, [call])
    bell.ring(Lane.DELIVERIES, [stream])

    assert _heard(valkey, Lane.CALLS) == ("surefoot.call", call)
    assert _heard(valkey, Lane.DELIVERIES) == ("surefoot.deliver", stream)


def test_bell_rings_again_when_redis_was_emptied(valkey: EmbeddedValkey, bell: RedisBell) -> None:
    before, after = uuid4(), uuid4()
    bell.ring(Lane.CALLS, [before])
    _heard(valkey, Lane.CALLS)

    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    bell.ring(Lane.CALLS, [after])

    assert _heard(valkey, Lane.CALLS) == ("surefoot.call", after)


def test_bell_loses_nothing_when_redis_restarts_between_two_rings(valkey: EmbeddedValkey, bell: RedisBell) -> None:
    before, after = uuid4(), uuid4()
    bell.ring(Lane.CALLS, [before])
    _heard(valkey, Lane.CALLS)

    valkey.kill()
    valkey.start()
    bell.ring(Lane.CALLS, [after])

    assert _heard(valkey, Lane.CALLS) == ("surefoot.call", after)
    assert not bell.broker_away


def test_bell_says_so_and_comes_back_when_redis_was_away(valkey: EmbeddedValkey, bell: RedisBell) -> None:
    bell.ring(Lane.CALLS, [uuid4()])
    _heard(valkey, Lane.CALLS)
    valkey.kill()

    bell.ring(Lane.CALLS, [uuid4()])
    _until(lambda: bell.broker_away)
    valkey.start()

    _until(lambda: not bell.broker_away)
    assert bell.dropped == 1


def test_bell_knows_that_redis_is_away_when_nobody_rings(tmp_path: Path) -> None:
    bell = RedisBell(EmbeddedValkey(tmp_path / "nothing").url)

    _until(lambda: bell.broker_away)

    bell.close()


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
def test_bell_returns_at_once_when_redis_is_in_trouble(valkey: EmbeddedValkey, bell: RedisBell, trouble: str) -> None:
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP if trouble == "frozen" else signal.SIGKILL)

    slowest = max(_seconds(lambda: bell.ring(Lane.CALLS, [uuid4()])) for _ in range(1000))

    if trouble == "frozen":
        os.kill(pid, signal.SIGCONT)
    assert slowest < broker_settings(valkey.url)["broker_transport_options"]["socket_timeout"] / 2, (
        "a ring that waits for Redis takes its socket's whole timeout"
    )


def test_bell_drops_rings_when_its_queue_is_full(valkey: EmbeddedValkey) -> None:
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    bell = RedisBell(valkey.url, queue_limit=10)

    bell.ring(Lane.CALLS, [uuid4() for _ in range(25)])

    assert bell.dropped == 15
    os.kill(pid, signal.SIGCONT)
    bell.close()


def test_bell_publishes_what_is_queued_when_it_is_closed(valkey: EmbeddedValkey) -> None:
    bell = RedisBell(valkey.url)

    bell.ring(Lane.CALLS, [uuid4() for _ in range(1200)])
    bell.close()

    with redis.Redis.from_url(valkey.url) as client:
        assert client.llen("calls") == 1200


def test_bell_leaves_no_thread_when_it_is_closed_twice(valkey: EmbeddedValkey) -> None:
    before = threading.active_count()
    bell = RedisBell(valkey.url)

    bell.close()
    bell.close()

    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("redis://h:6379/0", "doorbell://h:6379/0"),
        ("redis://u:p@h:1/3", "doorbell://u:p@h:1/3"),
        ("redis://h", "doorbell://h/0"),
        ("redis://h?db=2", "doorbell://h/2"),
        ("rediss://h/1", "doorbell://h/1"),
        ("unix:///a/b.sock?db=4", "doorbell+socket:///a/b.sock?virtual_host=4"),
        ("unix:///a/b.sock", "doorbell+socket:///a/b.sock?virtual_host=0"),
    ],
)
def test_broker_url_is_kombus_form_when_given_redis_pys(given: str, expected: str) -> None:
    assert broker_url(given) == expected


def test_broker_url_refuses_when_the_scheme_is_not_redis() -> None:
    with pytest.raises(ValueError, match="redis://, rediss:// or unix://"):
        broker_url("amqp://h")


def _heard(valkey: EmbeddedValkey, lane: Lane) -> tuple[str, UUID]:
    """Task name and id of the next message of that queue."""
    with redis.Redis.from_url(valkey.url, socket_timeout=PATIENCE + 5) as client:
        answer = client.brpop([lane.value], timeout=PATIENCE)
    assert answer is not None, f"nothing came to {lane}"
    message = json.loads(answer[1])
    args, _, _ = json.loads(message["body"])
    return unquote(message["headers"]["task"]), UUID(args[0])


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what the bell's own thread does: it looks about once a second."""
    until = time.monotonic() + PATIENCE
    turn = threading.Event()
    while not condition():
        assert time.monotonic() < until, "the condition did not come true"
        turn.wait(0.01)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
