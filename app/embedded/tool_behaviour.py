"""How the demo tools misbehave on demand: rules that a test posts to `/behave`, each for so many requests.

    do            what happens                                          when (default first)
    delay         waits `ms`                                            before | after it is executed
    hold          waits until `POST /release`                           before | after
    hang          never answers                                         after | before
    status        answers `status` (with `headers`, `body`)             before: not executed | after: executed
    drop_request  closes the connection, not executed
    drop_reply    executes, then closes the connection (`reset` with RST)
    half          executes, then answers half of the body and closes
    garbage       executes, then answers something that is no JSON

A rule is for one tool (`tool`, or every tool without it), for requests whose arguments hold `where`, and for `times`
requests (default 1, null for ever). The first rule that fits is used. Rules live in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BEFORE_OR_AFTER: Final = {
    "delay": ("before", "after"),
    "hold": ("before", "after"),
    "hang": ("after", "before"),
    "status": ("before", "after"),
    "drop_request": ("before",),
    "drop_reply": ("after",),
    "half": ("after",),
    "garbage": ("after",),
}
"""What a rule may do, and when: the first is the default."""


@dataclass(kw_only=True, slots=True)
class Rule:
    do: str
    when: str
    tool: str | None = None
    times: int | None = 1
    where: Mapping[str, Any] = field(default_factory=dict)
    ms: int = 0
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    reset: bool = False

    def fits(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        return self.tool in (None, tool) and all(arguments.get(name) == value for name, value in self.where.items())


@dataclass(kw_only=True, slots=True)
class Held:
    """A request that waits to be released."""

    tool: str
    key: str | None
    arguments: Mapping[str, Any]
    when: str
    released: asyncio.Future[bool]
    """True lets it go on, False drops it."""

    def to_json(self) -> dict[str, Any]:
        return {"tool": self.tool, "key": self.key, "arguments": dict(self.arguments), "when": self.when}


def read_rule(posted: Mapping[str, Any]) -> Rule:
    """The rule in a body of `/behave`. Raises ValueError with what is wrong."""
    allowed = BEFORE_OR_AFTER.get(str(posted.get("do")))
    if allowed is None:
        raise ValueError(f"`do` is one of {', '.join(BEFORE_OR_AFTER)}")
    unknown = set(posted) - {"do", "when", "tool", "times", "where", "ms", "status", "headers", "body", "reset"}
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    if posted.get("when", allowed[0]) not in allowed:
        raise ValueError(f"`when` is one of {', '.join(allowed)} for {posted['do']}")
    return Rule(
        do=posted["do"],
        when=posted.get("when", allowed[0]),
        tool=posted.get("tool"),
        times=posted.get("times", 1),
        where=posted.get("where", {}),
        ms=int(posted.get("ms", 0)),
        status=int(posted.get("status", 500)),
        headers=posted.get("headers", {}),
        body=posted.get("body"),
        reset=bool(posted.get("reset", False)),
    )


class Behaviour:
    """The rules in force and the requests that are held."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.held: list[Held] = []

    def take(self, tool: str, arguments: Mapping[str, Any], *, named: bool = False) -> Rule | None:
        """The rule for this request, counted as used; `named`: only one that names this tool."""
        for rule in self.rules:
            if rule.fits(tool, arguments) and (rule.tool is not None or not named):
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self.rules.remove(rule)
                return rule
        return None

    async def hold(self, *, tool: str, key: str | None, arguments: Mapping[str, Any], when: str) -> bool:
        """Waits until somebody releases this request; False if it is to be dropped."""
        released = asyncio.get_running_loop().create_future()
        held = Held(tool=tool, key=key, arguments=arguments, when=when, released=released)
        self.held.append(held)
        return await held.released

    def release(self, tool: str | None, *, drop: bool) -> int:
        """Lets go whatever is held, of one tool or of all; how many there were."""
        freed = [held for held in self.held if tool in (None, held.tool)]
        self.held = [held for held in self.held if held not in freed]
        for held in freed:
            held.released.set_result(not drop)
        return len(freed)

    def to_json(self) -> Iterator[dict[str, Any]]:
        for rule in self.rules:
            yield {"tool": rule.tool, "do": rule.do, "when": rule.when, "times": rule.times, "where": dict(rule.where)}
