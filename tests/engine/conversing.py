"""What a model may say besides an answer: half a text, half a tool call, a pause, a refusal, thinking; and agents to
hear it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app.domain import conversation
from app.domain.outcomes import Failure, Outcome, Usage
from app.domain.states import AttemptOutcome, FailureKind
from tests.engine.world import World, ok

_numbers = itertools.count(1)

Block = dict[str, Any]


def agent(*, tools: dict[str, Any] | None = None, schema: Any = None, **more: Any) -> dict[str, Any]:
    """One agent step `a`; `retry`, `timeout` and `budget` go to the step, everything else to the agent."""
    of_step = {key: more.pop(key) for key in ("retry", "timeout", "on_error", "budget") if key in more}
    step: dict[str, Any] = {
        "agent": {"model": "fast", "tools": list(tools or {}), **more},
        "prompt": "Do it for ${{ input.who }}.",
        **of_step,
    }
    if schema is not None:
        step["output_schema"] = schema
    return {"name": "agent", "tools": tools or {}, "steps": {"a": step}, "output": {"said": "${{ steps.a.output }}"}}


def message(*blocks: Block, stop_reason: str, cost: int = 100, **more: Any) -> Outcome:
    body = {"type": "message", "role": "assistant", "content": list(blocks), "stop_reason": stop_reason, **more}
    return ok(body, usage=Usage(input_tokens=10, output_tokens=5, model="claude-haiku-5-5", cost_microusd=cost))


def text(said: str) -> Block:
    return {"type": "text", "text": said}


def thinking(thought: str = "Hm.") -> Block:
    return {"type": "thinking", "thinking": thought, "signature": "c2ln"}


def use(name: str, given: dict[str, Any] | None = None) -> Block:
    return {"type": "tool_use", "id": f"toolu_{next(_numbers)}", "name": name, "input": given or {}}


def asks(*blocks: Block) -> Outcome:
    return message(*blocks, stop_reason="tool_use")


def cut(*blocks: Block) -> Outcome:
    return message(*blocks, stop_reason="max_tokens")


def paused(said: str) -> Outcome:
    server = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    return message(text(said), server, stop_reason="pause_turn")


def refuses(category: str = "cyber") -> Outcome:
    return message(text("No."), stop_reason="refusal", stop_details={"category": category})


def fails(
    kind: FailureKind, *, certainty: AttemptOutcome = AttemptOutcome.FAILED, status: int | None = None
) -> Outcome:
    return Outcome(
        certainty=certainty,
        failure=Failure(kind=kind, message=f"The provider said {kind}.", fix="Mend it.", status_code=status),
        status_code=status,
    )


def roles(world: World, n: int) -> list[str]:
    return [json.loads(body)["role"] for body in world.model.requests[n].messages]


def said_to(world: World, n: int, at: int = -1) -> Any:
    """The content of a message of the n-th request."""
    return json.loads(world.model.requests[n].messages[at])["content"]


def well_formed(requests: Sequence[Any]) -> None:
    """Every request may be sent, and within one conversation each begins with the bytes of the one before it."""
    for request in requests:
        assert conversation.check(request.messages) == []


def grows(requests: Sequence[Any]) -> None:
    for before, after in itertools.pairwise([list(request.messages) for request in requests]):
        assert after[: len(before)] == before


async def calls(world: World, workflow_id: UUID, *, step: str = "a", kind: str | None = None) -> list[dict[str, Any]]:
    rows = await world.rows("SELECT * FROM calls WHERE workflow_id = %s AND step = %s ORDER BY n", workflow_id, step)
    return [row for row in rows if kind is None or row["kind"] == kind]


async def retried(world: World, workflow_id: UUID) -> list[tuple[str, str | None]]:
    """(kind, change) of every recovery that was told."""
    rows = await world.rows(
        "SELECT data FROM events WHERE workflow_id = %s AND type = 'agent.step.retried' ORDER BY seq", workflow_id
    )
    return [(row["data"]["kind"], row["data"]["change"]) for row in rows]
