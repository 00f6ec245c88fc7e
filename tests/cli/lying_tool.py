"""A tool that can break each promise a declaration makes, on a real socket, and how it is declared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.embedded.wire import Reply, Request, json_reply

JSON = Any


@dataclass
class Liar:
    """A tool that does not do what is declared of it: every POST appends, a GET shows what is there."""

    there: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    respects_key: bool = False
    by_arguments: bool = False
    writes_on_get: bool = False
    shows: bool = True
    """False: what it shows is empty, whatever there is."""
    late: bool = False
    """What was sent with a lost answer shows up with the next request only."""
    repeats_with: int = 200
    hidden: list[str] = field(default_factory=list)

    def handle(self, request: Request) -> Reply:
        self.requests.append(request)
        if request.path == "/shown":
            return json_reply({"things": self.there if self.shows else []})
        key = request.headers.get("idempotency-key", "")
        known = request.body.decode() if self.by_arguments else key
        if (self.respects_key or self.by_arguments) and known in self.keys:
            return json_reply({"number": 1}, status=self.repeats_with)
        self.keys.add(known)
        if request.method == "POST" or self.writes_on_get:
            self.there += self.hidden
            self.hidden = []
            (self.hidden if self.late and len(self.requests) < 3 else self.there).append(key or "thing")
        return json_reply({"number": len(self.there)})


def declared(url: str, **tool: JSON) -> JSON:
    shown = {"http": {"method": "GET", "url": f"{url}/shown"}, "effect": "read_only"}
    return {"do": {"http": {"method": "POST", "url": f"{url}/do"}, "timeout": "10s", **tool}, "shown": shown}
