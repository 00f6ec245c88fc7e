"""A worker's own pool, as the engine sees it: who was offered, who was handed over, and what runs when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from tests.engine.world import Worker


@dataclass(kw_only=True)
class Pool:
    places: bool = True
    """Whether a call may take the place of the one before it."""
    room: bool = True
    offered: list[UUID] = field(default_factory=list)
    taken: list[UUID] = field(default_factory=list)
    after: list[Sequence[UUID]] = field(default_factory=list)
    """Whose places those that were taken have."""

    def offer(self, call_id: UUID, after: Sequence[UUID]) -> bool:
        self.offered.append(call_id)
        return self.room

    def follows(self, after: Sequence[UUID]) -> bool:
        return self.places

    def take(self, call_id: UUID, after: Sequence[UUID]) -> None:
        self.taken.append(call_id)
        self.after.append(after)

    async def run(self, worker: Worker) -> None:
        """What was handed over, and what that hands over."""
        while self.taken:
            await self.run_one(worker)

    async def run_one(self, worker: Worker) -> None:
        await worker.run(self.taken.pop(0))


def pool_of(worker: Worker, *, places: bool = True, room: bool = True) -> Pool:
    found = Pool(places=places, room=room)
    worker.services.feed = found
    return found
