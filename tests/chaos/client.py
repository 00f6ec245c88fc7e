"""The client of a chaos run: submits, loses replies and asks again, cancels and pauses; its ledger is what it saw.

Every request has a connection of its own, as the other end may have been killed since the last one. A reply that did
not come is written down as such, and the same bytes are sent again with the same key until the answer is a 202: that
is what a client has to do, and all that it has to.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from tests.chaos import workload
from tests.chaos.oracle.ledgers import Reply, Sighting, Submission
from tests.chaos.waiting import moment
from tests.chaos.workload import Planned

PATIENCE: Final = 20.0
"""Seconds for one reply: a database may be away for a while, and the API waits for it."""
AGAIN_AFTER: Final = 0.3
AT_ONCE: Final = 24
"""Requests in the air at most: a client, not a flood."""


class Client:
    def __init__(self, *, url: str, key: str, tools_url: str, hooks: str, ledger: Path, seed: int) -> None:
        self.tools_url, self._hooks = tools_url, hooks
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {key}"}
        self._api = httpx.AsyncClient(base_url=url, headers=headers, limits=limits, trust_env=False, timeout=PATIENCE)
        self._tools = httpx.AsyncClient(base_url=tools_url, trust_env=False, timeout=PATIENCE)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._ledger = ledger.open("a", encoding="utf-8")
        self._draw = random.Random(f"{seed}/client")
        self._bodies: dict[tuple[str, int], dict[str, Any]] = {}
        self.submissions: dict[str, Submission] = {}
        self.sightings: list[Sighting] = []
        self.workflows: dict[str, Planned] = {}
        """What was accepted, by the workflow's id."""
        self.problems: list[str] = []
        """Answers that no client should get."""
        self.replayed = 0

    async def close(self) -> None:
        await self._api.aclose()
        await self._tools.aclose()
        self._ledger.close()

    # --- requests ---

    async def ask(self, method: str, path: str, body: Any = None, **how: Any) -> httpx.Response | None:
        """One request; None: nobody knows what became of it. A 5xx other than 503 is a problem of ours."""
        async with self._slots:
            try:
                answer = await self._api.request(method, path, json=body, **how)
            except httpx.HTTPError:
                return None
        if answer.status_code in (500, 502, 504) or answer.status_code == 422:
            self.problems.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    async def behave(self, rule: Mapping[str, Any]) -> None:
        """Tell the tools; they may have just been killed."""
        for _ in range(20):
            try:
                answer = await self._tools.post("/behave", json=rule)
            except httpx.HTTPError:
                await moment(AGAIN_AFTER)
                continue
            assert answer.status_code == 200, answer.text
            return
        self.problems.append("the tools cannot be told how to misbehave")

    # --- submitting ---

    async def submit(self, planned: Planned) -> str:
        """Send it until there is a 202; the workflow's id."""
        await asyncio.gather(*(self.behave(rule) for rule in planned.rules))
        submission = Submission(key=planned.key, tag=planned.tag)
        self.submissions[planned.key] = submission
        body = self._body(planned)
        if planned.lose_reply is not None:
            await self._once(submission, body, give_up=planned.lose_reply)
        while (workflow := await self._once(submission, body)) is None:
            await moment(AGAIN_AFTER * (0.5 + self._draw.random()))
        self.workflows[workflow] = planned
        if planned.twice:
            await self._once(submission, body)
        return workflow

    def _body(self, planned: Planned) -> dict[str, Any]:
        name = (planned.kind, planned.variant)
        if name not in self._bodies:
            self._bodies[name] = workload.document(self.tools_url, planned)
        body: dict[str, Any] = {"definition": self._bodies[name], "input": planned.input}
        if planned.hooked:
            body["webhook"] = {"url": self._hooks, "events": list(planned.hooked)}
        return body

    async def _once(
        self, submission: Submission, body: Mapping[str, Any], *, give_up: float | None = None
    ) -> str | None:
        """One try; written down before and after. `give_up`: hang up so many seconds after it was begun."""
        headers = {"Idempotency-Key": submission.key}
        try:
            async with asyncio.timeout(give_up):
                answer = await self.ask("POST", "/v1/workflows", body, headers=headers)
        except TimeoutError:
            answer = None
        workflow = None
        if answer is not None and answer.status_code in (200, 202):
            workflow = str(answer.json()["id"])
            self.replayed += answer.headers.get("idempotent-replayed") == "true"
        reply = Reply(status=None if answer is None else answer.status_code, workflow=workflow)
        submission.replies.append(reply)
        line = {"key": submission.key, "tag": submission.tag, "status": reply.status, "workflow": workflow}
        self._ledger.write(json.dumps(line) + "\n")
        self._ledger.flush()
        return workflow

    # --- what it does to what it has submitted ---

    async def look(self, workflow: str) -> str | None:
        """Read its status, and remember having read it."""
        answer = await self.ask("GET", f"/v1/workflows/{workflow}")
        if answer is None or answer.status_code != 200:
            return None
        found = answer.json()
        revision = answer.headers.get("etag", "").strip('W/"')
        self.sightings.append(
            Sighting(workflow=workflow, status=found["status"], revision=int(revision) if revision.isdigit() else None)
        )
        return str(found["status"])

    async def meddle(self, workflow: str, planned: Planned) -> None:
        """Cancel it, or pause and resume it, as planned; said again until it was heard."""
        if planned.cancel_after is not None:
            await moment(planned.cancel_after)
            await self._say(workflow, "cancel")
        if planned.pause_for is not None:
            await moment(planned.pause_for)
            await self._say(workflow, "pause")
            await moment(planned.pause_for)
            await self._say(workflow, "resume")

    async def _say(self, workflow: str, verb: str) -> None:
        while True:
            answer = await self.ask("POST", f"/v1/workflows/{workflow}/{verb}", {"reason": "chaos"})
            # 409: it has ended meanwhile.
            if answer is not None and answer.status_code in (200, 202, 409):
                return
            await moment(AGAIN_AFTER)
