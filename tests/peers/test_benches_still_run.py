"""The benches that nothing else runs still do: small, judged by what they find out, never by how fast it was.

One that refers to a tool or a table as it was is found here, and not by who wants to repeat a number.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

MISSED, MET = 1, 0
"""Exit codes: a busy machine misses an aim, and that is no failure here."""


def told_by(module: str, *arguments: str) -> str:
    done = subprocess.run(
        (sys.executable, "-m", f"bench.{module}", *arguments), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode in (MET, MISSED), done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(220)
def test_bench_of_recovery_kills_and_restarts_and_finds_no_doubt() -> None:
    told = told_by("recovery", "--kills", "1", "--restarts", "1")

    again = re.search(r"(\d+) safe calls ran again after p50", told)
    assert again is not None, told
    assert int(again[1]) > 0
    assert "workflows 12, succeeded 12, doubts 0, workers_lost 0, mails_twice 0" in told


@pytest.mark.timeout(220)
@pytest.mark.parametrize(
    ("module", "arguments", "measured"),
    [
        ("agent_turns", ("--agents", "1", "--turns", "14"), "bytes of the request, by turn"),
        ("concurrent_calls", ("--calls", "20", "--seconds", "1", "--only", "tools"), "last call claimed after"),
    ],
)
def test_bench_comes_to_its_numbers(module: str, arguments: tuple[str, ...], measured: str) -> None:
    assert measured in told_by(module, *arguments)
