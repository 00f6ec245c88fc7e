"""Expressions: what they read, what they answer, and that nothing they do takes long or goes wrong in silence."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.domain import expressions
from app.domain.expressions import ExpressionError, compile_expression, step_binding

NAMES = frozenset({"input", "workflow", "steps", "item", "item_index"})
STEPS = {
    "plan": step_binding({"items": [{"n": 1}, {"n": 2}], "title": "x", "none": None}, "succeeded", None, None),
    "skipped": step_binding(None, "skipped", None, None),
    "tolerated": step_binding(None, "failed", {"kind": "tool_error"}, None),
    "empty": step_binding(None, "succeeded", None, None),
}


def value_of(source: str, **bindings: Any) -> Any:
    return compile_expression(source, names=NAMES).evaluate(bindings)


def error_of(source: str, **bindings: Any) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        value_of(source, **bindings)
    return caught.value


def quietly(source: str, bindings: dict[str, Any]) -> ExpressionError | None:
    """The error, if there is one; anything else that is raised fails the test."""
    try:
        compile_expression(source, names=NAMES).evaluate(bindings)
    except ExpressionError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("steps.plan.output.items[1].n", 2),
        ('steps["plan"]["output"]["title"]', "x"),
        ("steps.plan.output.items.filter(i, i.n > 1).map(i, i.n * 10)", [20]),
        ("steps.plan.state == 'succeeded' && size(steps.plan.output.items) == 2", True),
        ("steps.tolerated.error.kind", "tool_error"),
        ("input.a in [1, 2] ? 'yes' : 'no'", "yes"),
        ("has(input.a) && !has(input.b)", True),
        ("coalesce(input.missing, input.a)", 1),
        ("coalesce(input.nothing, 'x')", "x"),
        ("'busy: ' + to_json(input.list)", 'busy: [1,{"b":"é"}]'),
        ("to_json([input.a, {'b': null}])", '[1,{"b":null}]'),
        ("timestamp('2026-11-22T10:00:00+02:00')", "2026-11-22T08:00:00Z"),
        ("duration('90m')", "5400s"),
        ("b'hi'", "aGk="),
        ("{'b': 1, 'a': [2u]}", {"a": [2], "b": 1}),
        ('"steps.nope.output" // and steps.nope in a comment', "steps.nope.output"),
    ],
)
def test_expression_gives_plain_json(source: str, expected: Any) -> None:
    value = value_of(source, steps=STEPS, input={"a": 1, "nothing": None, "list": [1, {"b": "é"}]})

    assert value == expected
    assert type(value) is type(expected)


def test_expression_passes_a_whole_value_on_exactly_when_it_is_one_reference() -> None:
    value = {"z": 1, "a": [10**40, 1.0, "a\x00b"], "m": None}

    assert value_of("input.v", input={"v": value}) is value
    assert list(value_of("input.v", input={"v": value})) == ["z", "a", "m"]


@pytest.mark.parametrize("step", ["skipped", "tolerated"])
@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("output", None),
        ("output.any", None),
        ("output.any[0].deep", None),
        ("output == null && steps.{step}.output.x == null", True),
        ("output.x == 1 || steps.{step}.output.y.z == null", True),
    ],
)
def test_expression_reads_null_from_any_field_of_a_step_without_output(step: str, field: str, expected: Any) -> None:
    assert value_of(f"steps.{step}.{field}".replace("{step}", step), steps=STEPS) == expected


def test_expression_finds_nothing_in_a_skipped_output_when_it_asks_with_has() -> None:
    assert value_of("has(steps.skipped.output.x)", steps=STEPS) is False
    assert value_of("coalesce(steps.skipped.output.x, 5)", steps=STEPS) == 5
    assert value_of("steps.skipped", steps=STEPS)["output"] is None


def test_expression_fails_on_a_field_of_null_when_the_step_succeeded() -> None:
    error = error_of("steps.empty.output.x", steps=STEPS)

    assert error.message == "`steps.empty.output` is null."


def test_expression_names_the_fields_that_are_there_when_one_is_missing() -> None:
    error = error_of("steps.plan.output.titel + '!'", steps=STEPS)

    assert error.message == "`steps.plan.output` has no field `titel`; it has `items`, `title`, `none`."
    assert "coalesce(" in error.fix


def test_expression_does_not_mind_a_missing_field_that_it_never_comes_to() -> None:
    assert value_of("has(input.x) && input.x > 1", input={}) is False
    assert error_of("input.x > 1", input={}).message.startswith("`input` has no field `x`")


@pytest.mark.parametrize(
    ("source", "column", "words"),
    [
        ("input.a +", 10, "does not compile"),
        ("foo + 1", 1, "`foo` is not known here"),
        ("1 + secrets.key", 5, "own url and headers"),
        ("arguments.x", 1, "`arguments` is not known here"),
        ("steps[input.x]", 1, "not a value by itself"),
        ("[steps]", 2, "not a value by itself"),
        ("input.list.map(item, 1)", 16, "already means something"),
        ("1 == ${{ input.x }}", 6, "CEL already"),
        ("", 1, "empty"),
        ("input.a && 'unterminated", 12, "does not compile"),
    ],
)
def test_compile_refuses_with_the_column_when_the_source_is_wrong(source: str, column: int, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, names=NAMES)

    assert words in caught.value.message
    assert caught.value.column == column
    assert caught.value.fix


def test_compile_knows_secrets_where_they_are_allowed() -> None:
    expression = compile_expression("'Bearer ' + secrets.calendar", names=frozenset({"secrets"}))

    assert expression.evaluate({"secrets": {"calendar": "s3"}}) == "Bearer s3"


def test_compile_finds_every_step_that_is_mentioned() -> None:
    source = (
        "steps.a.output.x == steps['b'].state || [1].exists(s, has(steps.c.output.y)) || to_json(steps.d.output) == ''"
    )

    expression = compile_expression(source, names=NAMES)

    assert expression.steps == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1.5 + input.n", "cannot take (double, int)"),
        ("1 / input.zero", "divide by zero"),
        ("1.0 / 0.0", "not a number"),
        ("0.0 / 0.0", "not a number"),
        ("9223372036854775807 + input.n", "overflow"),
        ("input.big > 1", "64 bits"),
        ("input.nul + 'x'", "NUL"),
        ("input.half + 'x'", "half a character"),
        ("type(1)", "not JSON"),
        ("input.n.x", "is a number"),
        ("input.list[5]", "has 2 items"),
        ("input.list[input.five]", "has no value"),
    ],
)
def test_expression_fails_in_words_when_it_has_no_value(source: str, words: str) -> None:
    values = {"n": 1, "zero": 0, "big": 10**30, "nul": "a\x00b", "half": "\ud800", "list": [1, 2], "five": 5}

    assert words in error_of(source, input=values).message


@pytest.mark.parametrize(
    "source",
    [
        "['a']" + ".map(x, x + x + x + x)" * 14,
        "input.l" + ".map(x, x + x)" * 25,
        "[[1]]" + ".map(x, [x, x])" * 24,
        "input.l.map(a, input.l.map(b, input.l))",
        "input.l.map(a, to_json(input.l) + to_json(input.l))",
        "input.long.map(x, x)",
        "input.long.filter(x, x > 0)",
        "input.long.all(x, input.long.all(y, true))",
        "input.l.map(x, input.s + input.s)",
        "(" * 2000 + "1" + ")" * 2000,
        " + ".join(["1"] * 1000),
        "input.s.matches('(a|aa)+$')" + " && input.s.matches('(a*)*b')" * 20,
    ],
)
def test_expression_holds_nobody_up_when_it_is_meant_to_explode(source: str) -> None:
    bindings = {"l": list(range(200)), "long": list(range(9000)), "s": "a" * 400_000}
    began = time.process_time()

    quietly(source, {"input": bindings})

    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("input.words" + ".map(x, x + x)" * 23, "larger than 32 MiB"),
        ("['0123456789abcdef']" + ".map(x, x + x)" * 23, "larger than 32 MiB"),
        ("input.long.map(x, x + to_json(input.long))", "larger than 32 MiB"),
        ("input.numbers.map(x, input.numbers)", "more than 200000 elements"),
    ],
)
def test_expression_is_refused_when_its_result_could_grow_beyond_the_bound(source: str, words: str) -> None:
    assert (
        words
        in error_of(
            source, input={"words": ["a" * 16], "long": [str(n) for n in range(1500)], "numbers": list(range(600))}
        ).message
    )


def test_expression_source_is_bounded() -> None:
    with pytest.raises(ExpressionError, match="4096"):
        compile_expression("input.a" + " " * 5000, names=NAMES)


def test_expression_reads_only_what_it_mentions_when_the_bindings_are_large() -> None:
    large = {"rows": [{"k": "v" * 10}] * 100_000, "n": 3}
    expression = compile_expression("input.n > 2 && steps.plan.state != 'failed'", names=NAMES)
    bindings = {"input": large, "steps": STEPS}
    expression.evaluate(bindings)
    began = time.process_time()

    for _ in range(200):
        expression.evaluate(bindings)

    # Measured 8 µs each; handing `input` over whole takes 40 ms each.
    assert (time.process_time() - began) / 200 < 0.002


def test_expression_is_shared_by_threads_without_mixing_values() -> None:
    expression = compile_expression("[input.a, input.a].map(x, x * 2)", names=NAMES)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(500):
            value = expression.evaluate({"input": {"a": number}})
            wrong.extend([] if value == [number * 2, number * 2] else [number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


@given(some.text(alphabet=some.sampled_from("input.steps[]()'\"{}:,&|!+- 01abx\\/?\n"), max_size=60))
def test_compile_raises_nothing_but_expression_errors_when_the_source_is_noise(source: str) -> None:
    error = quietly(source, {"input": {"a": 1}, "steps": STEPS, "item": 1, "item_index": 0, "workflow": {}})

    assert error is None or (error.message and error.fix)


def test_skipped_marker_never_leaves_an_expression() -> None:
    for source in ("steps.skipped.output", "[steps.skipped.output]", "steps.skipped", "to_json(steps.skipped.output)"):
        value = value_of(source, steps=STEPS)
        assert expressions.SKIPPED not in (value, *(value.values() if isinstance(value, dict) else value or []))
