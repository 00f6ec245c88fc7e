"""What a process that cannot start says, as a real process with a real environment: two lines and no stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def surefoot(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "ANTHROPIC_"))}
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=cwd,
        env={**clean, "PYTHONPATH": os.getcwd(), **environment},
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SUREFOOT_MODELS", "{bad", "SUREFOOT_MODELS is not JSON"),
        ("SUREFOOT_SECRETS", "hunter2", "SUREFOOT_SECRETS is not JSON"),
        ("SUREFOOT_SWEEP", "-1", "SUREFOOT_SWEEP: Input should be greater than 0"),
        ("SUREFOOT_DATABASE_URL", "mysql://hunter2", "SUREFOOT_DATABASE_URL is not the address of a Postgres"),
        ("SUREFOOT_REDIS_URL", "hunter2", "SUREFOOT_REDIS_URL is not the address of a Redis"),
    ],
)
def test_up_names_the_setting_without_its_value_when_it_does_not_fit(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    ended = surefoot("up", cwd=tmp_path, **{name: value})

    assert ended.returncode == 1
    assert said in ended.stderr
    assert "hunter2" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 2
    assert not (tmp_path / ".surefoot").exists()


def test_up_says_what_it_cannot_make_when_its_data_would_be_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    ended = surefoot("up", "--data", str(tmp_path / "file" / "data"), cwd=tmp_path)

    assert ended.returncode == 1
    assert "cannot be made" in ended.stderr
    assert ended.stderr.splitlines()[-1] == "Choose another one with --data DIR."


def test_up_refuses_a_port_that_does_not_exist(tmp_path: Path) -> None:
    ended = surefoot("up", "--port", "99999", cwd=tmp_path)

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "fix    surefoot up --help"
