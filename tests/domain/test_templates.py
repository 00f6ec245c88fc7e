"""Templates: whole values keep their type, embedded ones become text, mistakes are found before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.expressions import ExpressionError
from app.domain.templates import TemplateError, compile_template, template_errors

NAMES = frozenset({"input", "steps"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${{ input.list }}", [1, None]),
        ("${{input.n}}", 7),
        ("n=${{ input.n }}!", "n=7!"),
        ("${{ input.n }}${{ input.n }}", "77"),
        ("${{ input.text }} and ${{ input.list }} and ${{ input.none }}", "it's and [1,null] and null"),
        ("don't ${{ input.text }}", "don't it's"),
        ('${{ {"a": {"b": input.n}} }}', {"a": {"b": 7}}),
        ("${{ '}}' + input.text }}", "}}it's"),
        ("$${{ input.n }}", "${{ input.n }}"),
        ("${{ '{{' }} x }}", "{{ x }}"),
        ({"a": ["${{ input.n }}", 1], "b": {"c": "x"}}, {"a": [7, 1], "b": {"c": "x"}}),
        ({"${{ input.n }}": 1}, {"${{ input.n }}": 1}),
        (5, 5),
        (None, None),
    ],
)
def test_template_renders_each_value_in_its_place(value: Any, expected: Any) -> None:
    template = compile_template(value, names=NAMES)

    assert template.render({"input": {"n": 7, "list": [1, None], "text": "it's", "none": None}}) == expected


def test_template_is_literal_when_nothing_is_evaluated() -> None:
    value = {"a": ["x", {"b": 1}], "c": "{ } $ {"}

    template = compile_template(value, names=NAMES)

    assert template.literal
    assert template.render({}) is value


def test_template_names_the_steps_it_reads() -> None:
    template = compile_template({"a": "${{ steps.one.output }}", "b": ["x ${{ steps['two'].state }}"]}, names=NAMES)

    assert template.steps == {"one", "two"}


def test_template_does_not_evaluate_what_an_expression_returned() -> None:
    template = compile_template("${{ input.evil }} ${{ input.evil }}", names=NAMES)

    assert template.render({"input": {"evil": "${{ 1 + 1 }}"}}) == "${{ 1 + 1 }} ${{ 1 + 1 }}"


@pytest.mark.parametrize(
    ("value", "pointer", "column", "words"),
    [
        ({"a": {"b/c": ["${{ nope }}"]}}, "/a/b~1c/0", 5, "`nope` is not known"),
        ("text ${{ input. }}", "", 17, "does not compile"),
        ("Hello {{ input.name }}", "", None, "would be sent as it stands"),
        ("Hello {{name}}", "", None, "would be sent as it stands"),
        ("${{ input.x", "", 1, "no matching"),
        ("${{ secrets.key }}", "", 5, "own url and headers"),
    ],
)
def test_template_refuses_with_its_place_when_an_expression_is_wrong(
    value: Any, pointer: str, column: int | None, words: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template(value, names=NAMES)

    assert (caught.value.pointer, caught.value.column) == (pointer, column)
    assert words in caught.value.message
    assert caught.value.fix


def test_template_errors_finds_all_of_them_at_once() -> None:
    value = {"a": "${{ one }} ${{ input.x }} {{ input.y }}", "b": ["${{ two }}"]}

    places, errors = template_errors(value, names=NAMES)

    assert [place.expression.source.strip() for place in places] == ["input.x"]
    assert [error.pointer for error in errors] == ["/a", "/a", "/b/0"]


@pytest.mark.parametrize(
    ("part", "key"), [("x-1", "meeting:x-1"), (7, "meeting:7"), (True, "meeting:true"), (1.5, "meeting:1.5")]
)
def test_render_key_writes_texts_and_numbers(part: Any, key: str) -> None:
    template = compile_template("meeting:${{ input.id }}", names=NAMES)

    assert template.render_key({"input": {"id": part}}) == key


@pytest.mark.parametrize("part", [None, "", [1], {"a": 1}, "x" * 600, "two\nlines"])
def test_render_key_refuses_what_cannot_name_one_thing(part: Any) -> None:
    template = compile_template("meeting:${{ input.id }}", names=NAMES)

    with pytest.raises(ExpressionError):
        template.render_key({"input": {"id": part}})
