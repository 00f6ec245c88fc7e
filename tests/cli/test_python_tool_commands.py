"""`surefoot tool installed`, and `surefoot tool check` of Python tools: honest functions pass, lies are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.main import run
from tests import packages
from tests.cli.conftest import Ended

JSON = Any
SOURCE = """
from surefoot import NotExecuted, ToolFailed

notes, booked = {}, ["old"]
known = {}

async def put(name, text="", times=1): notes[name] = text; return {"name": name}
def append(name): booked.append(name); return {"name": name}
def shown(): return {"notes": sorted(notes.items()), "booked": booked}
def remove(name):
    if name not in booked: raise ToolFailed("it is not there")
    booked.remove(name)
def charge(amount, context):
    if context.key not in known:
        booked.append(amount)
        known[context.key] = len(booked)
    return {"charge": known[context.key]}
def careless(amount, context): booked.append(amount); return {"charge": len(booked)}
def busy(): raise NotExecuted("closed today")
def broken(): raise ValueError("x")
"""
NAMES = ("put", "append", "shown", "remove", "charge", "careless", "busy", "broken", "gone")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[None]:
    with packages.on_path(packages.write(tmp_path / "site", SOURCE, NAMES)):
        yield


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`surefoot tool check` of a function declared so, with `shown` as its witness unless told else."""

    def call(function: str, effect: str, *options: str, witness: bool = True, bare: bool = False) -> Ended:
        tool = {"python": f"acme-tools:{function}", "effect": effect, "timeout": "10s"}
        if effect == "keyed":
            tool["key_ttl"] = "1h"
        declared = {"do": tool, "shown": {"python": "acme-tools:shown", "effect": "read_only"}}
        file = tmp_path / "tools.json"
        file.write_text(json.dumps(declared))
        looked = ("--probe", "shown", "--count", "size(output.booked) + size(output.notes)") if witness else ()
        agreed = () if bare else ("--yes", "--json")
        code = run(["tool", "check", str(file), "do", *looked, *agreed, *options])
        captured = capsys.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    return call


def laws(ended: Ended) -> dict[str, bool | None]:
    return {law["says"]: law["holds"] for law in json.loads(ended.out)["laws"]}


def test_check_finds_a_function_idempotent_when_it_is(check: Callable[..., Ended]) -> None:
    ended = check("put", "idempotent", "--arguments", '{"name": "a"}')

    assert (ended.code, json.loads(ended.out)["verdict"]) == (0, "true")
    assert all(laws(ended).values())


def test_check_finds_out_when_a_function_does_it_again(check: Callable[..., Ended]) -> None:
    ended = check("append", "idempotent", "--arguments", '{"name": "a"}')

    assert (ended.code, laws(ended)["twice is once"]) == (2, False)


def test_check_gives_functions_their_key_and_finds_out_who_ignores_it(check: Callable[..., Ended]) -> None:
    honest = check("charge", "keyed", "--arguments", '{"amount": 5}')
    careless = check("careless", "keyed", "--arguments", '{"amount": 5}')

    assert (honest.code, laws(honest)["one key, one effect"], laws(honest)["another key, another effect"]) == (
        0, True, True,
    )  # fmt: skip
    assert (careless.code, laws(careless)["one key, one effect"]) == (2, False)


def test_check_says_what_a_function_should_return_when_its_repeat_is_refused(check: Callable[..., Ended]) -> None:
    ended = check("remove", "idempotent", "--arguments", '{"name": "old"}')

    [law] = [law for law in json.loads(ended.out)["laws"] if law["says"] == "a repeat is answered as a success"]
    assert (ended.code, law["holds"]) == (2, False)
    assert "it is not there" in law["seen"]
    assert law["seen"].endswith("let it return what it finds done already")


def test_check_learns_nothing_from_a_function_that_says_no_at_once(check: Callable[..., Ended]) -> None:
    ended = check("remove", "idempotent", "--arguments", '{"name": "never"}')

    assert ended.code == 1
    assert "it is not there" in ended.err


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        ("busy", 1, "closed today"),
        ("broken", 1, "raised ValueError"),
        ("gone", 5, "has no attribute 'gone'"),
        ("nothing", 5, "declares no `nothing`"),
    ],
)
def test_check_stops_when_the_function_gives_no_answer(
    check: Callable[..., Ended], function: str, code: int, said: str
) -> None:
    ended = check(function, "idempotent", witness=False)

    assert ended.code == code
    assert said in ended.err


def test_check_says_that_the_function_runs_here_before_it_is_agreed_to(check: Callable[..., Ended]) -> None:
    ended = check("put", "idempotent", "--arguments", '{"name": "a"}', bare=True)

    assert ended.code == 1
    assert "python acme-tools:put, called in this process" in ended.err


def test_installed_lists_every_tool_and_says_which_cannot_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["tool", "installed"])

    lines = {line.split()[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert code == 2
    assert lines["acme-tools:put"].endswith("name, text (optional), times (optional) · async")
    assert lines["acme-tools:charge"].endswith("amount, context · in a thread")
    assert lines["acme-tools:shown"].endswith("nothing · in a thread")
    assert "✗ importing" in lines["acme-tools:gone"]
    assert "acme-tools:main" not in lines


def test_installed_is_content_when_everything_can_be_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = packages.write(tmp_path / "site", "def one(): return 1\ndef two(**rest): return 2", ["one", "two"])
    with packages.on_path(folder):
        code = run(["tool", "installed", "--json"])

    found = {one["python"]: one for one in json.loads(capsys.readouterr().out)["data"]}
    assert code == 0
    assert found["acme-tools:two"]["takes"] == "any others · in a thread"
    assert found["acme-tools:one"]["version"] == "1.2"
