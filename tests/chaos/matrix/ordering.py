"""From a line of the table to what its victim is ordered to do: where it stands still, and where the calls gather."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.chaos.matrix.boundaries import Boundary
from tests.chaos.matrix.standstill import TOOLS_AND_MODELS, Order

GATHERS: Final[Mapping[str, str | None]] = {
    "claim": "perform",
    "record": "record.before",
    "submit": "submit.asked",
    "sweep": None,
}
"""Transactions over many calls or submissions, and where these gather before them."""


def order_for(boundary: Boundary, *, count: int, kinds: tuple[str, ...] = TOOLS_AND_MODELS) -> Order:
    room = boundary.point.partition(".")[0]
    if room in GATHERS and boundary.point != "record.before":
        return Order(point=boundary.point, count=count, gather=GATHERS[room], kinds=kinds, batch=True)
    if boundary.point == "deliver.applied":
        return Order(point=boundary.point, count=count, gather="deliver.after", batch=True)
    return Order(point=boundary.point, count=count, kinds=kinds)
