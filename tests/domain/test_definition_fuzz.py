"""A definition with parts replaced by anything: faults or a plan, never an exception."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.definition.source import read_text
from tests.domain.definition_cases import CATALOGUE, CHECKABLE, EXAMPLES, KEYED, SEARCH

DOCUMENT = read_text((EXAMPLES / "approval-gate.yaml").read_text()).tree
TOOLS: dict[str, Any] = {
    "t": {**KEYED, "compensate": {"tool": "t", "with": {"id": "${{ output.id }}"}}, "approve": "always"},
    "send": {**CHECKABLE, "on_repeat_status": {"404": "succeeded"}, "on_202": "wait", "result_within": "1m"},
    "search": SEARCH,
}
BOOK: dict[str, Any] = {
    "tool": "send",
    "with": {"to": "a", "subject": "b"},
    "compensate": {"tool": "t", "with": {"id": "${{ arguments.to }}"}},
    "on_unknown_outcome": "probe",
    "pivot": True,
}
JUNK = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(),
    some.floats(),
    some.sampled_from(
        ["", "${{", "${{ x }}", "${{ steps.draft.output.x }}", "steps.a", "{{ x }}", "\x00", "\ud800", "5s", "a.b", "~"]
    ),
    some.lists(some.integers() | some.text(max_size=3), max_size=2),
    some.dictionaries(
        some.sampled_from(["type", "agent", "tool", "$ref", "id", "a/b~", "http", "any", "with", "found", "404"]),
        some.text(max_size=5),
        max_size=3,
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@settings(max_examples=300, deadline=None)
@given(some.data())
def test_check_never_raises_when_parts_of_a_definition_are_replaced(data: some.DataObject) -> None:
    document: Any = copy.deepcopy(DOCUMENT)
    document["tools"] = copy.deepcopy(TOOLS)
    document["compensate_on"] = ["failure"]
    document["steps"]["book"] = copy.deepcopy(BOOK)
    document["steps"]["send"]["retry"] = {"any": {"max_retries": 1, "backoff": {"first": "1s"}}}
    for _ in range(data.draw(some.integers(1, 3))):
        place = data.draw(some.sampled_from(places(document)))
        junk = data.draw(JUNK)
        if not place:
            document = junk
            break
        owner = document
        for key in place[:-1]:
            owner = owner[key]
        owner[place[-1]] = junk

    result = check(document, catalogue=CATALOGUE)

    assert (result.plan_body is None) == bool(result.faults)
    if result.plan_body is not None:
        plan = compile_plan(result.plan_body)
        undos = [one.compensate for one in plan.tools.values()] + [one.compensate for one in plan.steps.values()]
        assert {undo.tool for undo in undos if undo is not None} <= set(plan.tools)
        assert {tool.probe.tool for tool in plan.tools.values() if tool.probe is not None} <= set(plan.tools)
    for fault in result.faults:
        json.dumps([fault.code, fault.detail, fault.fix, fault.pointer])
        assert fault.detail
        assert fault.fix
