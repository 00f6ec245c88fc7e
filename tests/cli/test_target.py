"""Which server the command line talks to, and with which key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.exits import UNREACHABLE, USAGE, Stop
from app.cli.target import Target, find


@pytest.fixture
def ready_file(tmp_path: Path) -> Path:
    path = tmp_path / "ready.json"
    path.write_text(json.dumps({"url": "http://ready:1", "key": "sf_ready", "pids": {}}))
    return path


def test_find_takes_the_options_first_then_the_environment_then_the_ready_file(ready_file: Path) -> None:
    environment = {"SUREFOOT_URL": "http://env:1/", "SUREFOOT_KEY": "sf_env"}

    by_option = find(url="http://option:1", key="sf_option", environment=environment, ready_file=ready_file)
    by_environment = find(url=None, key=None, environment=environment, ready_file=ready_file)
    by_file = find(url=None, key=None, environment={}, ready_file=ready_file)

    assert by_option == Target(url="http://option:1", key="sf_option")
    assert by_environment == Target(url="http://env:1", key="sf_env")
    assert by_file == Target(url="http://ready:1", key="sf_ready")


def test_find_never_sends_the_ready_files_key_to_another_server(ready_file: Path) -> None:
    with pytest.raises(Stop) as stopped:
        find(url="http://elsewhere:1", key=None, environment={}, ready_file=ready_file)

    assert stopped.value.code == USAGE


def test_find_says_how_to_start_one_when_no_server_is_known(tmp_path: Path) -> None:
    with pytest.raises(Stop) as stopped:
        find(url=None, key=None, environment={}, ready_file=tmp_path / "missing.json")

    assert stopped.value.code == UNREACHABLE
    assert "surefoot up" in (stopped.value.fix or "")


@pytest.mark.parametrize("url", ["nonsense", "localhost:8080", "ftp://x", "http://", "http://[::1"])
def test_find_refuses_a_url_that_names_no_server(url: str, tmp_path: Path) -> None:
    with pytest.raises(Stop, match="is not the URL of a server") as stopped:
        find(url=url, key="sf_a", environment={}, ready_file=tmp_path / "none.json")

    assert stopped.value.code == USAGE


def test_find_refuses_a_key_that_no_header_can_carry(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="holds characters that no key has"):
        find(url="http://a", key="sf_ключ", environment={}, ready_file=tmp_path / "none.json")
