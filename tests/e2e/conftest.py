"""One installation for all end-to-end tests of a test process, and for each test a scene on it that is checked after.

Starting everything takes longer than most tests, so they share it, as people share a production system: every test
leaves it whole (nothing frozen, held or away), and works with tags, keys and workflows of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.driver import Installation
from tests.e2e.scene import Scene


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    found = Installation(Path(tmp_path_factory.mktemp("up")))
    found.start()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def scene(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene; when the test is over everything is made whole, and the laws are checked for its workflows."""
    found = Scene(installation, name=request.node.name)
    try:
        yield found
    finally:
        found.make_whole()
    found.check()
