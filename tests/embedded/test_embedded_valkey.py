"""The embedded Valkey speaks Redis's protocol, keeps nothing, and is adopted when it survived its owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.embedded.valkey import EmbeddedValkey


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedValkey]:
    made = EmbeddedValkey(home / "redis")
    made.start()
    yield made
    made.stop()
    made.remove()


def test_server_answers_under_its_url_when_it_was_started(server: EmbeddedValkey) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "1")

        assert client.get("a") == b"1"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_server_is_empty_when_it_was_killed_and_started(server: EmbeddedValkey) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "1")

    server.kill()
    gone = (server.pid, server.ready)
    server.start()

    assert gone == (None, False)
    with redis.Redis.from_url(server.url) as client:
        assert client.get("a") is None


def test_second_owner_adopts_the_server_when_the_first_has_left_it_running(server: EmbeddedValkey, home: Path) -> None:
    second = EmbeddedValkey(home / "redis")

    second.start()

    assert second.pid == server.pid
    second.stop()
    assert (server.pid, server.ready) == (None, False)


def test_server_starts_when_its_directory_is_too_deep_for_a_socket(home: Path) -> None:
    server = EmbeddedValkey(home / ("d" * 80) / ("e" * 80))
    try:
        server.start()

        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    finally:
        server.stop()
        server.remove()
