"""What a random walk walks through: random definitions, a world that answers as the dice say, and the laws.

Nothing here acts: that is `test_random_walks.py`. What reached a tool is written down by the tool (`Chance.ledger`), so
that the laws can judge what really happened and not only what the rows say of it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from app.domain import ids
from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, FailureKind
from app.ports.world import MaySend, ModelRequest
from tests.engine import conversing
from tests.engine.ledger_laws import LAWS as LEDGER_LAWS
from tests.engine.sagas import SAGA_LAWS
from tests.engine.world import World, not_sent, ok, rate_limited, refused, says, tool, unknown, uses

CLASSES: Final = ("read_only", "idempotent", "keyed", "checkable", "at_most_once")
UNDOING: Final = CLASSES[1:]
ONCE: Final = ("checkable", "at_most_once")
"""Classes that are never sent twice, unless somebody said of the first that it did not happen."""

LAWS: Final[Mapping[str, str]] = {
    **LEDGER_LAWS,
    **SAGA_LAWS,
    "waits are counted": """
        SELECT w.id, w.status, w.waits, a.n FROM workflows w, LATERAL (SELECT count(*) AS n FROM approvals
          WHERE workflow_id = w.id AND status = 'open' AND call_id IS NULL) a
        WHERE w.waits <> a.n + (w.saga IS NOT DISTINCT FROM 'held')::int""",
    "items are counted": """
        SELECT p.path, p.items_open, i.n FROM steps p, LATERAL (SELECT count(*) AS n FROM steps
          WHERE workflow_id = p.workflow_id AND parent = p.path AND state IN ('running', 'waiting')) i
        WHERE p.items_total IS NOT NULL AND p.state = 'running' AND p.items_open <> i.n""",
    "an approval that is open is of a call that is held": """
        SELECT a.id, a.status, c.state, c.held_reason FROM approvals a
        JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
        WHERE (a.status = 'open') <> (c.state = 'held' AND c.held_reason IN ('repeat', 'approval'))
          AND (a.status = 'open' OR c.state = 'held' AND c.held_reason IN ('repeat', 'approval'))""",
    "a step that ended has nothing open behind it": """
        SELECT s.path, s.state, c.kind, c.state AS call FROM steps s JOIN calls c ON c.workflow_id = s.workflow_id
          AND (c.step = s.path OR c.step LIKE s.path || '.%') AND c.kind NOT IN ('compensation', 'probe')
        WHERE s.ended_at IS NOT NULL AND c.ended_at IS NULL""",
    "what succeeded is not made again": """
        SELECT workflow_id, step, turn, ordinal, count(*) FROM calls
        WHERE kind = 'tool' AND effect <> 'read_only' AND state = 'succeeded'
        GROUP BY workflow_id, step, turn, ordinal HAVING count(*) > 1""",
    "a workflow that is paused sends nothing that was never sent": """
        SELECT c.id FROM calls c JOIN workflows w ON w.id = c.workflow_id
        WHERE w.status = 'paused' AND c.state = 'due' AND c.attempts = 0 AND c.kind NOT IN ('probe', 'compensation')""",
}

_BROKEN: Final = " UNION ALL ".join(
    f"SELECT {n} AS law WHERE EXISTS ({breaches})" for n, breaches in enumerate(LAWS.values())
)


class NearWorld(World):
    """A world that is asked very often: over one connection."""

    def __init__(self, database_url: str, **knobs: Any) -> None:
        super().__init__(database_url, **knobs)
        self._wire: psycopg.AsyncConnection[dict[str, Any]] | None = None

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        if self._wire is None:
            self._wire = await psycopg.AsyncConnection.connect(self.url, autocommit=True, row_factory=dict_row)
        cursor = await self._wire.execute(sql, values or None)
        return await cursor.fetchall() if cursor.description else []

    async def close(self) -> None:
        if self._wire is not None:
            await self._wire.close()
        await super().close()


async def keeps_its_laws(world: World) -> None:
    for broken in await world.rows(_BROKEN):
        law, breaches = list(LAWS.items())[broken["law"]]
        raise AssertionError(f"{law}: {await world.rows(breaches)}")


# --- the world -----------------------------------------------------------------------------------------------------


@dataclass
class Sent:
    """What reached a tool: known to the tool, not to us."""

    key: str | None
    happened: bool


@dataclass
class Chance:
    """Tools and a model that answer as the dice say; `calm` once the walk is to come to its end."""

    dice: random.Random
    world: World
    calm: bool = False
    ledger: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))

    async def send(self, request: Any, *, seconds: float, may_send: MaySend) -> Outcome:
        if not may_send():
            return not_sent()
        if isinstance(request, ModelRequest):
            return self.answer()
        return await self.perform(request.tool.name, request.headers["Surefoot-Call"], request.key)

    async def perform(self, name: str, call: str, key: str | None) -> Outcome:
        if name == "look":
            return await self._look(call)
        options = [ok({"n": 1})] * 5 + [unknown()] * 4 + [not_sent(), refused(404), refused(500), rate_limited(0.1)]
        outcome = ok({"n": 1}) if self.calm else self.dice.choice(options)
        unclear = outcome.certainty is AttemptOutcome.UNKNOWN
        done = self.dice.random() < 0.5 if unclear else outcome.certainty is AttemptOutcome.SUCCEEDED
        if outcome.certainty is not AttemptOutcome.NOT_SENT:
            self.ledger[call].append(Sent(key=key, happened=done))
        return outcome

    async def _look(self, probe: str) -> Outcome:
        """A probe tells the truth, if it tells anything."""
        [row] = await self.world.rows("SELECT target FROM calls WHERE id = %s", ids.decode("call", probe))
        there = any(sent.happened for sent in self.ledger[ids.encode("call", row["target"])])
        options = [ok({"there": there})] * 5 + [ok({"there": "?"}), ok({}), unknown(), refused(404), not_sent()]
        return options[0] if self.calm else self.dice.choice(options)

    def answer(self) -> Outcome:
        asks = [(f"do_{name}", {"n": self.dice.randrange(2)}) for name in self.dice.sample(CLASSES, k=2)]
        options = [says("done")] * 3 + [uses(*asks)] * 5 + [unknown(), rate_limited(0.1), not_sent()]
        options += [
            conversing.cut(conversing.text("half a ")),
            conversing.cut(conversing.use(*asks[0])),
            conversing.paused("wait "),
            conversing.refuses(),
            conversing.asks(conversing.thinking(), conversing.use("nothing_like_it")),
            conversing.fails(FailureKind.OVERLOADED),
            uses(("do_read_only", {"n": 0})),
        ]
        return says("done") if self.calm else self.dice.choice(options)

    def judge(self, calls: list[dict[str, Any]], *, denied: Mapping[str, int]) -> None:
        """By what the tools know: nothing happened twice that must not, no key was given up that may have been used."""
        for call in calls:
            name = ids.encode("call", call["id"])
            sent = self.ledger[name]
            if call["effect"] in ONCE:
                happened = sum(one.happened for one in sent)
                assert happened <= 1 + denied[name], f"{call['kind']} happened {happened} times"
            if call["effect"] == "keyed" and not denied[name] and sent:
                lost = [one for one in sent if one.key != sent[-1].key and one.happened]
                assert lost == [], "a key was given up under which the effect had happened"
            if call["believed"]:
                assert any(one.happened for one in sent), "a success was guessed"


# --- definitions ---------------------------------------------------------------------------------------------------


def definition(dice: random.Random) -> dict[str, Any]:
    """A random graph: each step may need any before it."""
    tools = {f"do_{name}": _tool(dice, name) for name in CLASSES}
    tools |= {f"undo_{name}": _tool(dice, name, undoes=True) for name in UNDOING}
    tools["look"] = tool("read_only")
    steps: dict[str, Any] = {}
    for n in range(dice.randint(2, 6)):
        step = _step(dice, tools)
        before = list(steps)
        if before and dice.random() < 0.7:
            step["needs"] = dice.sample(before, k=dice.randint(1, min(2, len(before))))
        if dice.random() < 0.4:
            step["on_error"] = "continue"
        if dice.random() < 0.3 and "set" not in step:
            step["timeout"] = "10m"
        if dice.random() < 0.1:
            step["if"] = dice.choice(["input.n == 1", "input.n == 2"])
        if dice.random() < 0.15:
            step["pivot"] = True
        steps[f"s{n}"] = step
    if dice.random() < 0.4:
        steps["last"] = {"set": {"x": "${{ input.list[9] }}"}, "needs": list(steps)[-2:]}  # fails
    top = {
        "compensate_on": dice.choice([["failure", "cancel"]] * 4 + [["failure"], ["cancel"], []]),
        "on_failure": dice.choice(["compensate"] * 4 + ["hold"]),
    }
    return {"name": "walk", "tools": tools, "steps": steps, **top}


def _tool(dice: random.Random, effect: str, *, undoes: bool = False) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if effect == "checkable" or (effect == "keyed" and dice.random() < 0.5):
        more["probe"] = {"tool": "look", "with": {}, "found": "output.there"}
    if not undoes and effect != "read_only" and dice.random() < 0.8:
        more["compensate"] = _undo(dice)
    if dice.random() < 0.15:
        more["approve"] = dice.choice(["always", "when_tainted"])
    return tool(effect, on_repeat=dice.choice(["ask", "allow", "return_recorded"]), **more)


def _undo(dice: random.Random) -> dict[str, Any]:
    """Now and then one whose arguments cannot be made."""
    given = "${{ output.n }}" if dice.random() < 0.9 else "${{ output.missing.field }}"
    return {"tool": f"undo_{dice.choice(UNDOING)}", "with": {"n": given}}


def _step(dice: random.Random, tools: Mapping[str, Any]) -> dict[str, Any]:
    kind = dice.choice(["tool", "tool", "tool", "each", "agent", "agent", "approval", "set"])
    if kind == "set":
        return {"set": {"x": dice.choice(["${{ input.n }}", "${{ input.n }}", "${{ input.list[9] }}"])}}
    if kind == "approval":
        asked = {"title": "Go?", "expires": "1h", "on_reject": dice.choice(["continue", "fail"])}
        return {"approval": asked | ({} if dice.random() < 0.7 else {"on_expire": "fail"})}
    if kind == "agent":
        offered = [f"do_{name}" for name in CLASSES]
        return {
            "agent": {
                "model": dice.choice(["fast", "smart"]),
                "tools": offered,
                "max_turns": 3,
                "finish": dice.choice(["fail", "gracefully"]),
            },
            "prompt": "Go.",
            "retry": {"any": {"max_retries": 1, "switch_model": dice.choice(["fast", "smart"]), "after": 2}},
        } | _each(dice, 0.2)
    effect = dice.choice(CLASSES)
    step: dict[str, Any] = {"tool": f"do_{effect}", "with": {"n": 1}} | _each(dice, 1.0 if kind == "each" else 0.0)
    if effect == "keyed" and dice.random() < 0.5:
        step["idempotency_key"] = f"key:{dice.randrange(2)}"
    if effect == "keyed":
        step["retry"] = {"tool_error": {"max_retries": 1}}
    if effect != "read_only" and dice.random() < 0.25:
        wishes = ["ask", "abandon"] + ["probe"] * ("probe" in tools[f"do_{effect}"])
        step["on_unknown_outcome"] = dice.choice(wishes)
    if effect != "read_only" and dice.random() < 0.3:
        step["compensate"] = _undo(dice)
    return step


def _each(dice: random.Random, chance: float) -> dict[str, Any]:
    return {"for_each": "${{ input.list }}", "max_parallel": dice.randint(1, 3)} if dice.random() < chance else {}


def out_of_order(definition: Mapping[str, Any], undos: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(step, dependent): the step is being undone although what depends on it is not. `undos`: step → what its
    effects' undos are."""
    after: dict[str, set[str]] = {name: set() for name in definition["steps"]}
    for name, step in reversed(definition["steps"].items()):
        for need in step.get("needs", []):
            after[need] |= {name, *after[name]}
    return [
        (name, later)
        for name, found in undos.items()
        if "running" in found
        for later in after[name]
        if undos.get(later, set()) & {"recorded", "running", "failed"}
    ]
