"""A definition with parts replaced by anything: faults, never an exception."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from app.domain.definition.checking import check
from app.domain.definition.source import read_text
from tests.domain.definition_cases import CATALOGUE, EXAMPLES, KEYED

DOCUMENT = read_text((EXAMPLES / "approval-gate.yaml").read_text()).tree
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
        some.sampled_from(["type", "agent", "tool", "$ref", "id", "a/b~", "http", "any"]),
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
    document["tools"] = {"t": copy.deepcopy(KEYED)}
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
    for fault in result.faults:
        json.dumps([fault.code, fault.detail, fault.fix, fault.pointer])
        assert fault.detail
        assert fault.fix
