"""`surefoot migrate`, `api` and `worker` as a deployment runs them: apart, with a Postgres and a Redis of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.e2e.driver import until

SUREFOOT = (sys.executable, "-m", "app.cli.main")


def environment(database_url: str, redis_url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "ANTHROPIC_"))}
    return kept | {
        "SUREFOOT_DATABASE_URL": database_url,
        "SUREFOOT_REDIS_URL": redis_url,
        "SUREFOOT_OUTBOUND_ALLOW": "127.0.0.0/8",
    }


@contextmanager
def running(*argv: str, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=env, stdout=out, stderr=out)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_port(path: Path) -> int | None:
    return int(json.loads(path.read_text())["port"]) if path.exists() else None


def submit(url: str, key: str, definition: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "one", "Prefer": "wait=20"}
    answer = httpx.post(f"{url}/v1/workflows", json={"definition": definition}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_parts_work_apart_from_the_first_migration_to_a_clean_end(
    empty_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    env = environment(empty_database_url, redis_url)
    first = subprocess.run([*SUREFOOT, "migrate"], env=env, capture_output=True, text=True, timeout=60, check=True)
    again = subprocess.run([*SUREFOOT, "migrate"], env=env, capture_output=True, text=True, timeout=60, check=True)
    key = re.search(r"sf_live_\w+", first.stdout)
    ports, ledger = (tmp_path / "api", tmp_path / "tools"), tmp_path / "ledger"
    tools = (sys.executable, "-m", "app.embedded.tools", "--port-file", str(ports[1]), "--ledger", str(ledger))
    api = (*SUREFOOT, "api", "--port", "0", "--port-file", str(ports[0]))
    worker = (*SUREFOOT, "worker", "--processes", "1")

    with (
        running(*tools, env=env, log=tmp_path / "tools.log"),
        running(*api, env=env, log=tmp_path / "api.log") as serving,
        running(*worker, env=env, log=tmp_path / "worker.log") as working,
    ):
        numbers = [until("a port", lambda path=path: read_port(path), seconds=40) for path in ports]
        definition = {
            "name": "apart",
            "tools": {
                "mail": {
                    "description": "Send a mail.",
                    "http": {"method": "POST", "url": f"http://127.0.0.1:{numbers[1]}/email/send"},
                    "effect": "at_most_once",
                }
            },
            "steps": {"send": {"tool": "mail", "with": {"to": "ana@x.io", "subject": "Hello"}}},
        }
        assert key is not None, first.stdout
        workflow = submit(f"http://127.0.0.1:{numbers[0]}", key.group(), definition)

    assert "sf_live_" not in again.stdout
    assert (workflow["status"], workflow["effects"]["done"]) == ("succeeded", 1)
    assert len(ledger.read_text().splitlines()) >= 1
    assert (serving.returncode, working.returncode) == (0, 0)
    with psycopg.connect(empty_database_url) as connection:
        rows = connection.execute("SELECT stopped_at IS NOT NULL, lost_at IS NULL FROM workers").fetchall()
    assert rows == [(True, True)]
