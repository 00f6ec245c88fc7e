"""What a rate of durable steps needs, and what gives first: arithmetic over measured costs, no measurement itself.

    python -m bench.scale_model [--worker 0.6 --postgres 0.35 --api 2.2 --wal 4900 …]

The costs are what `make bench` prints for the reference machine; give your own. Each resource has a capacity of one
unit (a core, a disk, a Redis) and a number beyond which more units do not help without changing the plan, with the
reason. The rows of the table say how many units a rate needs; the first that is over its number saturates first.
`docs/scale.md` explains the plan behind it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Final

from rich.console import Console
from rich.table import Table

RATES: Final = (1_000, 10_000, 100_000)
STEPS: Final = 10
"""Of one workflow: what a submission is divided by."""

FULL: Final = 0.7
"""Part of a unit that may be used on the average: queues grow without end as it comes to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Measured, per step unless said otherwise."""

    worker: float = 0.58
    """ms of CPU."""
    postgres: float = 0.36
    """ms of CPU."""
    api: float = 2.3
    """ms of CPU per submission."""
    wal: float = 4_300
    """Bytes."""
    commits: float = 0.08
    """Under load; alone 1.1."""
    messages: float = 1.0
    """Doorbells through Redis, at most: the next call of a workflow mostly stays with its worker."""
    stored: float = 1_300
    """Bytes on disk, tables and indexes, until they are pruned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    name: str
    unit: str
    needs: float
    """Units for one step a second."""
    most: float
    """Units one installation can have as it is."""
    because: str


def resources(costs: Costs) -> list[Resource]:
    """Each with what bounds it. A number without a source in `docs/scale.md` would be a guess."""
    return [
        Resource(
            name="worker processes", unit="cores", needs=costs.worker / 1000, most=160,
            because="each holds about 6 connections; 1,000 connections are what one Postgres takes",
        ),
        Resource(
            name="API processes", unit="cores", needs=costs.api / 1000 / STEPS, most=160,
            because="the same connections",
        ),
        Resource(
            name="Postgres, CPU", unit="cores", needs=costs.postgres / 1000, most=32,
            because="beyond that snapshots and lock tables cost more than they give",
        ),
        Resource(
            name="Postgres, commits", unit="logs", needs=costs.commits / 8_500, most=1,
            because="one log, flushed in groups: 8,500 commits a second measured with 8 sessions",
        ),
        Resource(
            name="Postgres, log", unit="× 200 MB/s", needs=costs.wal / 200e6, most=1,
            because="one stream: to the disk, to each replica, to the archive",
        ),
        Resource(
            name="Redis", unit="servers", needs=costs.messages * 2 / 100_000, most=1,
            because="one thread: 100,000 LPUSH and BRPOP a second",
        ),
    ]  # fmt: skip


def first_to_give(found: list[Resource], rate: float) -> Resource | None:
    """The one furthest over what it can have."""
    over = [one for one in found if one.needs * rate / FULL > one.most]
    return max(over, key=lambda one: one.needs * rate / one.most, default=None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale_model", description="What a rate of steps needs.")
    for one in fields(Costs):
        parser.add_argument(f"--{one.name}", type=float, default=one.default)
    costs = Costs(**{name: float(value) for name, value in vars(parser.parse_args()).items()})
    found = resources(costs)
    table = Table(title="What a rate of durable steps needs", title_justify="left")
    table.add_column("resource")
    for rate in RATES:
        table.add_column(f"{rate:,}/s", justify="right")
    table.add_column("one installation has")
    for one in found:
        wanted = [one.needs * rate / FULL for rate in RATES]
        cells = [f"[red]{n:,.1f}[/]" if n > one.most else f"{n:,.1f}" for n in wanted]
        table.add_row(f"{one.name}, {one.unit}", *cells, f"{one.most:g}: {one.because}")
    table.add_section()
    day = [rate * costs.stored * 86_400 / 1e9 for rate in RATES]
    table.add_row("history kept for a day, GB", *(f"{n:,.0f}" for n in day), "pruned and partitioned by time")
    gives = [first_to_give(found, rate) for rate in RATES]
    table.add_row("gives first", *("nothing" if one is None else one.name for one in gives), "")
    Console(width=130).print(table)
    last = max(found, key=lambda one: one.needs / one.most)
    print(f"As it is, one installation ends at about {last.most * FULL / last.needs:,.0f} steps/s: {last.name}.")


if __name__ == "__main__":
    main()
