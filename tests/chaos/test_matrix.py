"""A part of the crash-point matrix in every test run: the lines where the most is at stake, with real processes.

The whole of it is `make chaos-matrix` (`python -m tests.chaos.matrix`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.matrix.boundaries import BY_NAME, FREEZE, KILL, POSTGRES, RAISE
from tests.chaos.matrix.lane import Lane
from tests.chaos.matrix.running import Done, Planned, play
from tests.chaos.matrix.stack import running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with running() as stack:
        found = Lane(stack, 0)
        yield found
        found.stop()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("claim.committed", KILL),
        ("tool.executed", KILL),
        ("record.applied", KILL),
        ("reply.received", FREEZE),
        ("record.locked", RAISE),
        ("follow.committed", KILL),
        ("follow.committed", RAISE),
        ("record.applied", POSTGRES),
        ("sweep.decided", KILL),
        ("submit.committed", KILL),
    ],
)
def test_every_kind_of_effect_ends_as_its_class_says_when_its_process_is_hit_there(
    lane: Lane, line: str, fault: str
) -> None:
    boundary = BY_NAME[line]

    done = play(lane, Planned(boundary=boundary, fault=fault, effects=boundary.cases))

    assert not done.failed, told(done)


def told(done: Done) -> str:
    return "\n".join(done.story)
