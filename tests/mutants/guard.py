"""A pytest plugin that ends the run unless the product under test is the copy in which pytest was started.

Without it a mutant whose tests import the tree beside it would survive, or be caught, by accident.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import app
import worker

WRONG_TREE = pytest.ExitCode.USAGE_ERROR


def pytest_sessionstart(session: pytest.Session) -> None:
    root = session.config.rootpath.resolve()
    for module in (app, worker):
        found = Path(module.__file__ or "").resolve()
        if not found.is_relative_to(root):
            pytest.exit(f"{module.__name__} is imported from {found}, not from {root}", returncode=WRONG_TREE)
