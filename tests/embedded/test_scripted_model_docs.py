"""The examples of docs/scripted_model.md: each of them causes the failure that it stands beside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain import answers, bodies, conversation, schemas
from app.domain.answers import ToolCalls
from app.domain.outcomes import Failure, Outcome
from app.domain.states import FailureKind
from tests.ports.model_provider import asks, send, serving

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "scripted_model.md"
TOOL = "calendar.free_busy"
ARGUMENTS = {"type": "object", "properties": {"email": {"type": "string"}}, "required": ["email"]} | {
    "additionalProperties": False
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]} | {
    "additionalProperties": False
}
TURN = {"text", "json", "tools", "fail", "stop"}


def examples() -> Iterator[tuple[FailureKind, str]]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = re.fullmatch(r"\| `(\w+)` \| (.*) \|", line)
        if row is None or row[1] not in {kind.value for kind in FailureKind}:
            continue
        for code in re.findall(r"`(\{[^`]*\})`", row[2]):
            yield FailureKind(row[1]), code


def test_page_has_an_example_of_every_kind_that_a_model_can_cause() -> None:
    kinds = {kind for kind, _ in examples()}

    assert len(kinds) >= 18
    assert FailureKind.OUTPUT_TRUNCATED in kinds


@pytest.mark.parametrize(("kind", "code"), [*examples()])
async def test_example_causes_the_failure_it_stands_beside(kind: FailureKind, code: str) -> None:
    turns = [one if TURN & set(one) else {"text": "ok", "fail": [one]} for one in json.loads(f"[{code}]")]
    shaped = kind is FailureKind.WRONG_SHAPE or '"json"' in code
    tools = [conversation.tool_param(name=TOOL, description="", input_schema=ARGUMENTS)]

    async with serving() as (_, model):
        await model.warm()
        request = asks(
            f"[[scripted: {json.dumps({'turns': turns})}]]",
            tools=tools,
            output_schema=SCHEMA if shaped else None,
            max_tokens=500,
        )
        outcome = await send(model, request, seconds=0.7 if kind is FailureKind.TIMEOUT else 20)

    assert _kind(outcome, shaped=shaped) is (None if kind is FailureKind.NO_PROGRESS else kind)


def _kind(outcome: Outcome, *, shaped: bool) -> FailureKind | None:
    """What the engine would make of it; None for tools that may be called."""
    if outcome.failure is not None:
        return outcome.failure.kind
    assert outcome.evidence is not None
    message = bodies.read_body(outcome.evidence.body, outcome.evidence.media_type, truncated=False)
    said = answers.judge(
        answers.read_answer(message), output_schema=SCHEMA if shaped else None, offered=frozenset({TOOL})
    )
    if isinstance(said, Failure):
        return said.kind
    assert isinstance(said, ToolCalls), said
    if said.refused:
        return said.refused[0].kind
    return FailureKind.TOOL_ARGUMENTS_INVALID if schemas.validate(ARGUMENTS, said.uses[0].input) else None
