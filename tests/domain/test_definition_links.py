"""Tools that name other tools: probes and compensations are judged with what they name, and the plan carries it all."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.definition.catalogue import Catalogue, Checked
from app.domain.definition.checking import check, check_declaration
from tests.domain.definition_cases import CATALOGUE, CHECKABLE, KEYED, PROBE, READ, SEARCH, TOOL, checked, found

BOOK: dict[str, Any] = {**KEYED, "input_schema": {"title": {"type": "string"}}}
UNDO: dict[str, Any] = {"tool": "delete", "with": {"id": "${{ output.id }}"}}
DELETE: dict[str, Any] = {**TOOL, "input_schema": {"id": {"type": "string"}}}
SET: dict[str, Any] = {"a": {"set": {}}}


def probing(**probe: Any) -> dict[str, Any]:
    return {**CHECKABLE, "probe": {**PROBE, **probe}}


def registered(declared: dict[str, Any], steps: Any, **top: Any) -> Checked:
    return check({"name": "x", "steps": steps, **top}, catalogue=Catalogue(tools=declared, models={"fast": "m-1"}))


def carried(result: Checked) -> list[str]:
    assert result.faults == ()
    assert result.plan_body is not None
    return list(result.plan_body["tools"])


@pytest.mark.parametrize(
    ("tool", "faults"),
    [
        ({**CHECKABLE, "probe": None}, [("missing_key", "")]),
        ({**CHECKABLE, "probe": {}}, [("missing_key", "/probe"), ("missing_key", "/probe")]),
        ({**CHECKABLE, "probe": "search"}, [("wrong_type", "/probe")]),
        ({**CHECKABLE, "effect": "at_most_once"}, [("misplaced_key", "/probe")]),
        ({**CHECKABLE, "effect": "idempotent"}, [("misplaced_key", "/probe")]),
        ({**CHECKABLE, "effect": "read_only"}, [("misplaced_key", "/probe")]),
        ({**CHECKABLE, "effect": "checkabel"}, [("unknown_value", "/effect")]),
        (probing(found=None), [("missing_key", "/probe")]),
        (probing(found=True), [("wrong_type", "/probe/found")]),
        (probing(found="true"), [("constant_probe", "/probe/found")]),
        (probing(found="arguments.to == 'x'"), [("constant_probe", "/probe/found")]),
        (probing(found="${{ output.x }}"), [("bad_expression", "/probe/found")]),
        (probing(found="size(output.m"), [("bad_expression", "/probe/found")]),
        (probing(found="output.x == steps.a.output"), [("bad_expression", "/probe/found")]),
        (probing(found="output.x == arguments.nope"), [("unknown_field", "/probe/found")]),
        (probing(found="output.key == key"), [("key_not_used", "/probe/found")]),
        (probing(**{"with": {"to": "${{ output.x }}"}}), [("bad_expression", "/probe/with/to")]),
        (probing(**{"with": {"to": "${{ secrets.x }}"}}), [("secret_not_allowed", "/probe/with/to")]),
        (probing(**{"with": {"to": "${{ arguments.nope }}"}}), [("unknown_field", "/probe/with/to")]),
        (probing(**{"with": ["x"]}), [("wrong_type", "/probe/with")]),
        (probing(result={"id": "${{ steps.a.output }}"}), [("bad_expression", "/probe/result/id")]),
        (probing(deadline="soon"), [("bad_duration", "/probe/deadline")]),
        (probing(exists="output.x"), [("unknown_key", "/probe/exists")]),
        (probing(tool=5), [("wrong_type", "/probe/tool")]),
        (
            {**KEYED, "key_argument": "id", "probe": {**PROBE, "found": "output.id == arguments.id"}},
            [("unknown_field", "/probe/found")],
        ),
        (
            {**KEYED, "probe": {**PROBE, "found": "output.rows.exists(key, key.id == 'x')"}},
            [("unknown_output_field", "/probe/found")],
        ),
        ({**TOOL, "compensate": "delete"}, [("wrong_type", "/compensate")]),
        ({**TOOL, "compensate": {}}, [("missing_key", "/compensate")]),
        ({**TOOL, "compensate": {**UNDO, "with": 5}}, [("wrong_type", "/compensate/with")]),
        ({**TOOL, "compensate": {**UNDO, "args": {}}}, [("unknown_key", "/compensate/args")]),
        ({**READ, "compensate": UNDO}, [("misplaced_key", "/compensate")]),
        (
            {**TOOL, "compensate": {**UNDO, "with": {"id": "${{ steps.a.output }}"}}},
            [("bad_expression", "/compensate/with/id")],
        ),
        (
            {**BOOK, "compensate": {**UNDO, "with": {"id": "${{ arguments.titel }}"}}},
            [("unknown_field", "/compensate/with/id")],
        ),
        (
            {**KEYED, "key_argument": "id", "compensate": {**UNDO, "with": {"id": "${{ arguments.id }}"}}},
            [("unknown_field", "/compensate/with/id")],
        ),
    ],
)
def test_check_points_at_what_is_wrong_with_a_probe_or_an_undo_by_itself(tool: Any, faults: list[Any]) -> None:
    # The tools they name are there: what is wrong is wrong in a registration as well.
    result = checked(SET, tools={"x.y": tool, "search": SEARCH, "delete": DELETE})

    assert found(result) == [(code, f"/tools/x.y{pointer}") for code, pointer in faults]
    assert all(fault.fix for fault in result.faults)
    alone = check_declaration("x.y", tool, catalogue=CATALOGUE)
    assert [(fault.code, fault.pointer) for fault in alone] == faults


@pytest.mark.parametrize(
    ("tools", "faults"),
    [
        ({"t": probing(tool="serch")}, [("unknown_tool", "/tools/t/probe/tool")]),
        ({"t": probing(tool="t")}, [("probe_not_read_only", "/tools/t/probe/tool")]),
        ({"t": probing(tool="delete")}, [("probe_not_read_only", "/tools/t/probe/tool")]),
        (
            {"t": CHECKABLE, "search": {**SEARCH, "approve": "when_tainted"}},
            [("probe_needs_approval", "/tools/t/probe/tool")],
        ),
        ({"t": probing(**{"with": {"too": "x"}})}, [("invalid_argument", "/tools/t/probe/with")] * 2),
        ({"t": probing(**{"with": {"to": 5}})}, [("invalid_argument", "/tools/t/probe/with/to")]),
        ({"t": probing(**{"with": None})}, [("invalid_argument", "/tools/t/probe")]),
        ({"t": probing(**{"with": {"to": "${{ input.nope }}"}})}, [("unknown_field", "/tools/t/probe/with/to")]),
        ({"t": probing(result="${{ input.nope }}")}, [("unknown_field", "/tools/t/probe/result")]),
        ({"t": {**TOOL, "compensate": {**UNDO, "tool": "delet"}}}, [("unknown_tool", "/tools/t/compensate/tool")]),
        ({"t": {**TOOL, "compensate": {"tool": "search"}}}, [("read_only_tool", "/tools/t/compensate/tool")]),
        ({"t": {**TOOL, "compensate": {"tool": "delete"}}}, [("invalid_argument", "/tools/t/compensate")]),
        (
            {"t": {**TOOL, "compensate": {**UNDO, "with": {"id": 5}}}},
            [("invalid_argument", "/tools/t/compensate/with/id")],
        ),
        (
            {"t": {**TOOL, "compensate": {**UNDO, "with": {"id": "${{ input.nope }}"}}}},
            [("unknown_field", "/tools/t/compensate/with/id")],
        ),
        (
            {
                "t": {**TOOL, "compensate": {"tool": "k", "with": {"dedup": "x"}}},
                "k": {**KEYED, "key_header": None, "key_argument": "dedup"},
            },
            [("misplaced_key", "/tools/t/compensate/with/dedup")],
        ),
        # What was accused already is not accused again by those who name it.
        ({"t": CHECKABLE, "search": {**SEARCH, "effect": "readonly"}}, [("unknown_value", "/tools/search/effect")]),
        ({"t": probing(tool="serch", found="size(")}, [("bad_expression", "/found"), ("unknown_tool", "/tool")]),
    ],
)
def test_check_judges_a_declaration_with_the_tools_it_names(tools: dict[str, Any], faults: list[Any]) -> None:
    result = checked(SET, tools={"search": SEARCH, "delete": DELETE, **tools}, input={"who": {"type": "string"}})

    assert [code for code, _ in found(result)] == [code for code, _ in faults]
    assert all(pointer.endswith(place) for (_, pointer), (_, place) in zip(found(result), faults, strict=True))


def test_check_finds_nothing_wrong_with_a_probe_and_an_undo_that_use_all_they_may_see() -> None:
    probe = {
        "tool": "search",
        "with": {"to": "${{ input.who }} ${{ key }} ${{ arguments.title }}"},
        "found": "output.rows.exists(row, row.key == key && row.who == input.who && arguments.title != '')",
        "result": {"id": "${{ output.rows[0].id }}", "key": "${{ key }}", "title": "${{ arguments.title }}"},
        "deadline": "90s",
    }
    undo = {"tool": "delete", "with": {"id": "${{ output.id }}${{ arguments.title }}${{ input.who }}"}}
    tools = {"book": {**BOOK, "probe": probe, "compensate": undo}, "search": SEARCH, "delete": DELETE}

    result = checked(SET, tools=tools, input={"who": {"type": "string"}})

    assert result.faults == ()
    assert result.warnings == ()


def test_check_warns_of_a_probe_that_asks_the_same_for_every_call() -> None:
    blind = probing(**{"with": {"to": "all"}, "found": "size(output.messages) > 0"})

    result = checked(SET, tools={"send": blind, "search": SEARCH})

    assert result.faults == ()
    assert [(warning.code, warning.pointer) for warning in result.warnings] == [("same_probe", "/tools/send/probe")]


def test_check_warns_of_an_undo_that_may_end_in_doubt() -> None:
    once = {**DELETE, "effect": "at_most_once"}
    book = {**BOOK, "compensate": UNDO}

    by_tool = checked(SET, tools={"book": book, "delete": once})
    by_step = checked(
        {"a": {"tool": "book", "with": {"title": "x"}, "compensate": UNDO}}, tools={"book": BOOK, "delete": once}
    )

    for result, pointer in ((by_tool, "/tools/book"), (by_step, "/steps/a")):
        assert result.faults == ()
        (warning,) = result.warnings
        assert (warning.code, warning.pointer) == ("undo_at_most_once", f"{pointer}/compensate/tool")
        assert "a person must settle it" in warning.detail


def test_check_does_not_warn_of_an_undo_whose_class_is_misspelled() -> None:
    tools = {"book": {**BOOK, "compensate": UNDO}, "delete": {**DELETE, "effect": "idempotnt"}}

    result = checked(SET, tools=tools)

    assert found(result) == [("unknown_value", "/tools/delete/effect")]
    assert result.warnings == ()


def test_check_does_not_advise_a_steps_key_for_an_undo() -> None:
    keyed = {**KEYED, "key_header": None, "key_argument": "dedup"}
    book = {**BOOK, "compensate": {"tool": "unbook", "with": {"dedup": "x"}}}

    (fault,) = checked(SET, tools={"book": book, "unbook": keyed}).faults

    assert (fault.code, fault.pointer) == ("misplaced_key", "/tools/book/compensate/with/dedup")
    assert "idempotency_key" not in fault.fix


def test_check_accuses_a_registered_tool_where_it_is_used_and_only_then() -> None:
    tools = {"send": CHECKABLE, "book": {**BOOK, "compensate": UNDO}}
    agent = {"agent": {"model": "fast", "tools": ["book"]}, "prompt": "x"}
    send = {"tool": "send", "with": {"to": "a", "subject": "b"}}

    unused = registered(tools, SET)
    used = registered(tools, {"a": send, "b": agent, "c": send})
    completed = registered(tools, {"a": send, "b": agent}, tools={"search": SEARCH, "delete": DELETE})

    assert unused.faults == ()
    assert found(used) == [("unknown_tool", "/steps/a/tool"), ("unknown_tool", "/steps/b/agent")]
    assert used.faults[0].detail == "Registered tool `send`, probe.tool: There is no tool `search`."
    assert completed.faults == ()


def test_check_accuses_a_registered_tool_that_reads_input_this_definition_has_not() -> None:
    tools = {"send": probing(**{"with": {"to": "${{ input.who }}"}}), "search": SEARCH}
    steps = {"a": {"tool": "send", "with": {"to": "a", "subject": "b"}}}

    assert found(registered(tools, steps, input={"whom": {"type": "string"}})) == [("unknown_field", "/steps/a/tool")]
    assert found(registered(tools, steps, input={"who": {"type": "string"}})) == []


def test_plan_carries_every_tool_that_may_be_called_and_no_other() -> None:
    tools = {
        "book": {**BOOK, "compensate": UNDO},
        "delete": {**DELETE, **{key: KEYED[key] for key in ("effect", "key_header", "key_ttl")}},
        "search": SEARCH,
        "send": CHECKABLE,
        "restore": TOOL,
        "other": TOOL,
    }
    tools["delete"]["probe"] = {**PROBE, "with": {"to": "${{ arguments.id }}"}, "found": "size(output) > 0"}
    tools["delete"]["compensate"] = {"tool": "restore"}
    agent = {"agent": {"model": "fast", "tools": ["book"]}, "prompt": "x"}

    by_step = registered(tools, {"a": {"tool": "book", "with": {"title": "x"}}})
    by_agent = registered(tools, {"a": agent})
    itself = registered(tools, {"a": agent, "b": {"tool": "delete", "with": {"id": "x"}}})
    by_own_undo = registered(tools, {"a": {"tool": "other", "compensate": {"tool": "book", "with": {"title": "x"}}}})
    by_probe = registered(tools, {"a": {"tool": "send", "with": {"to": "a", "subject": "b"}}})

    assert carried(by_step) == carried(by_agent) == ["book", "delete", "search"]
    assert carried(itself) == ["book", "delete", "restore", "search"]
    assert carried(by_own_undo) == ["book", "other"]
    assert carried(by_probe) == ["search", "send"]


def test_plan_drops_the_undo_of_a_tool_that_only_undoes() -> None:
    tools = {"book": {**BOOK, "compensate": UNDO}, "delete": {**DELETE, "compensate": {"tool": "restore"}}}
    tools["restore"] = TOOL
    book, delete = {"tool": "book", "with": {"title": "x"}}, {"tool": "delete", "with": {"id": "x"}}

    only, both = registered(tools, {"a": book}), registered(tools, {"a": book, "b": delete})

    assert only.plan_body is not None
    assert both.plan_body is not None
    assert only.plan_body["tools"]["delete"]["compensate"] is None
    assert both.plan_body["tools"]["delete"]["compensate"] == {"tool": "restore", "with": {}}


def test_two_tools_may_undo_each_other() -> None:
    tools = {
        "on": {**TOOL, "compensate": {"tool": "off"}},
        "off": {**TOOL, "compensate": {"tool": "on"}},
        "put": {**TOOL, "compensate": {"tool": "put", "with": {"v": "${{ output.before }}"}}},
    }

    assert carried(checked(SET, tools=tools)) == ["off", "on", "put"]
