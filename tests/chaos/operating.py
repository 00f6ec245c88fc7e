"""The operator of a chaos run: decides approvals as planned, and settles doubts by what the tool's own ledger says.

Looks every half second through the API, like a person with a dashboard; what the API cannot answer now is asked
again. A repeat that a model asks for is always refused: what was booked once is not booked again.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from tests.chaos.client import Client
from tests.chaos.installation import Installation
from tests.chaos.oracle.ledgers import Resolution, ToolEntry, tool_entries
from tests.chaos.waiting import moment

LOOK: Final = 0.5
PAGE: Final = 200
ABANDONED: Final = 0.03
"""Part of the doubts that nobody cares to look into."""


class Operator:
    def __init__(self, client: Client, installation: Installation, *, seed: int) -> None:
        self._client, self._installation = client, installation
        self._draw = random.Random(f"{seed}/operator")
        self._verdicts: dict[str, str] = {}
        self._decided: dict[str, int] = defaultdict(int)
        self._ran: dict[str | None, ToolEntry] = {}
        """What the tools have done, by the call they did it for."""
        self._read = 0
        """Bytes of their ledger."""
        self.resolutions: list[Resolution] = []
        self.abandoned: set[str] = set()
        """Workflows with a doubt that was abandoned: they may fail."""
        self.decisions = 0
        self.undone_by_hand = 0
        self.quarantined = 0
        """Verdicts that were refused because a request might still have been on its way."""

    async def work(self, stopping: asyncio.Event) -> None:
        while not await moment(LOOK, unless=stopping):
            await self._approvals()
            await self._doubts()
            await self._undos()

    async def _listed(self, path: str, **query: Any) -> list[dict[str, Any]]:
        answer = await self._client.ask("GET", path, params={**query, "limit": PAGE})
        return list(answer.json()["data"]) if answer is not None and answer.status_code == 200 else []

    # --- approvals ---

    async def _approvals(self) -> None:
        for each in await self._listed("/v1/approvals", status="open"):
            planned = self._client.workflows.get(each["workflow_id"])
            if planned is None:
                continue  # its 202 is on its way
            number = self._decided[each["workflow_id"]]
            says_yes = each["kind"] != "repeat" and planned.approve[number % len(planned.approve)]
            body = {"decision": "approve" if says_yes else "reject", "revision": each["revision"], "comment": "chaos"}
            answer = await self._client.ask("POST", f"/v1/approvals/{each['id']}/decision", body)
            if answer is not None and answer.status_code == 200:
                self._decided[each["workflow_id"]] += 1
                self.decisions += 1

    # --- doubts ---

    async def _doubts(self) -> None:
        found = await self._listed("/v1/effects", state="in_doubt")
        if found:
            await asyncio.to_thread(self._look_into_the_ledger)
        for effect in found:
            await self._settle(effect)

    def _look_into_the_ledger(self) -> None:
        """What was written since the last look: a whole run's ledger is long."""
        with self._installation.tool_ledger.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for entry in tool_entries(json.loads(line) for line in whole.splitlines()):
            if entry.executed:
                self._ran[entry.call] = entry

    async def _settle(self, effect: Mapping[str, Any]) -> None:
        name = effect["id"]
        if name not in self._verdicts and self._draw.random() < ABANDONED:
            self._verdicts[name] = "abandon"
        outcome = self._verdicts.get(name) or ("happened" if name in self._ran else "did_not_happen")
        body: dict[str, Any] = {"outcome": outcome, "note": "looked into the tool's ledger"}
        if outcome == "happened":
            body["result"] = self._ran[name].result
        answer = await self._client.ask("POST", f"/v1/effects/{name}/resolve", body)
        if answer is None:
            return
        if answer.status_code == 409:
            self.quarantined += answer.json().get("code") == "quarantine_active"
            return
        self.resolutions.append(Resolution(effect=name, outcome=outcome, status=answer.status_code))
        if outcome == "abandon" and answer.status_code == 200:
            self.abandoned.add(effect["workflow_id"])

    # --- undos that failed ---

    async def _undos(self) -> None:
        for effect in await self._listed("/v1/effects", undo="failed"):
            body = {"action": "retry", "note": "chaos"}
            answer = await self._client.ask("POST", f"/v1/effects/{effect['id']}/compensation", body)
            self.undone_by_hand += answer is not None and answer.status_code == 200
