"""`surefoot tool check`: honest tools pass, each kind of lie is found, and nothing is sent that nobody agreed to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.cli.main import run
from app.embedded import wire
from app.embedded.tool_ledger import Ledger
from app.embedded.tools import Tools, declarations
from app.embedded.wire import Reply, Request
from tests.cli import lying_tool

JSON = Any
EVENT = '{"title": "Sync", "start": "2026-12-01T10:00:00Z", "attendees": ["ana@x.io"]}'
MAIL = '{"to": "ana@x.io", "subject": "Sync"}'


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> JSON:
        return json.loads(self.out)

    @property
    def laws(self) -> dict[str, bool | None]:
        return {law["says"]: law["holds"] for law in self.document["laws"]}


KEYED = {"effect": "keyed", "key_header": "Idempotency-Key", "key_ttl": "1h"}
CHECKABLE = {
    "effect": "checkable",
    "settle_time": "300ms",
    "probe": {"tool": "shown", "with": {"of": "${{ arguments.of }}"}, "found": "size(output.things) > 0"},
}


@pytest.fixture
def serving() -> Iterator[Callable[[wire.Handler], str]]:
    """Serves a handler in a thread of its own (the command has its own event loop); its URL."""
    with ExitStack() as stack:

        def start(handler: wire.Handler) -> str:
            loop, listens, ports = asyncio.new_event_loop(), threading.Event(), list[int]()
            stopping = asyncio.Event()

            async def serve() -> None:
                async with wire.listening(handler) as port:
                    ports.append(port)
                    listens.set()
                    await stopping.wait()

            def live() -> None:
                loop.run_until_complete(serve())
                loop.close()

            thread = threading.Thread(target=live)
            thread.start()
            stack.callback(thread.join)
            stack.callback(loop.call_soon_threadsafe, stopping.set)
            assert listens.wait(20)
            return f"http://127.0.0.1:{ports[0]}"

        yield start


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`surefoot tool check` on these tools, agreed to and as JSON unless `bare`."""

    def call(tools: JSON, name: str, *options: str, bare: bool = False) -> Ended:
        file = tmp_path / "tools.json"
        file.write_text(json.dumps(tools))
        agreed = () if bare else ("--yes", "--json")
        code = run(["tool", "check", str(file), name, *agreed, *options])
        captured = capsys.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    return call


Serving = Callable[[wire.Handler], str]
Check = Callable[..., Ended]


@pytest.fixture
def demo(serving: Serving) -> tuple[Tools, dict[str, JSON]]:
    tools = Tools(ledger=Ledger(None))
    return tools, {"tools": declarations(serving(tools.handle))}


def _executed(tools: Tools, name: str) -> int:
    reply = tools.handle(Request(method="GET", path="/ledger", query={"tool": name}, headers={}, body=b""))
    assert isinstance(reply, Reply)
    return sum(entry["executed"] for entry in json.loads(reply.body)["data"])


# --- honest tools ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "effects"),
    [
        ("calendar.create_event", EVENT, 2),
        ("email.send", MAIL, 1),
        ("payments.authorize", '{"reference": "p", "amount": 5, "currency": "EUR", "card": "tok_visa"}', 2),
        ("reports.render", '{"title": "Q3"}', 2),
    ],
)
def test_check_finds_the_declaration_true_when_the_tool_keeps_it(
    demo: tuple[Tools, JSON], check: Check, name: str, arguments: str, effects: int
) -> None:
    tools, declared = demo

    ended = check(declared, name, "--arguments", arguments)

    assert (ended.code, ended.document["verdict"]) == (0, "true")
    assert all(ended.laws.values())
    assert _executed(tools, name) == effects


def test_check_finds_a_deletion_idempotent_when_a_probe_is_named(demo: tuple[Tools, JSON], check: Check) -> None:
    _, declared = demo
    check(declared, "calendar.create_event", "--arguments", EVENT)

    looked = ("--arguments", '{"event_id": "evt_8841"}', "--probe", "calendar.events")
    deleted = check(declared, "calendar.delete_event", *looked)
    nothing_left = check(declared, "calendar.delete_event", *looked)

    assert (deleted.code, deleted.laws["twice is once"]) == (0, True)
    assert (nothing_left.code, nothing_left.laws["twice is once"]) == (1, None)


def test_check_finds_a_read_read_only_when_nothing_has_changed(demo: tuple[Tools, JSON], check: Check) -> None:
    _, declared = demo

    ended = check(declared, "calendar.free_busy", "--arguments", '{"email": "a@x.io"}', "--probe", "calendar.events")

    assert (ended.code, ended.laws) == (0, {"it changes nothing": True})


def test_check_takes_a_refusal_of_another_key_for_what_it_is_when_something_happens_only_once(
    demo: tuple[Tools, JSON], check: Check
) -> None:
    tools, declared = demo
    check(declared, "payments.authorize", "--arguments", '{"reference":"p","amount":5,"currency":"EUR","card":"x"}')

    ended = check(declared, "payments.settle", "--arguments", '{"authorization_id": "auth_1"}')

    assert (ended.code, ended.laws["another key, another effect"]) == (0, True)
    assert _executed(tools, "payments.settle") == 1


def test_check_sends_one_key_three_times_and_loses_an_answer_of_each_key(serving: Serving, check: Check) -> None:
    liar = lying_tool.Liar(respects_key=True)

    ended = check(lying_tool.declared(serving(liar.handle), **KEYED), "do", "--probe", "shown")

    keys = [request.headers["idempotency-key"] for request in liar.requests if request.path == "/do"]
    assert [keys.count(key) for key in dict.fromkeys(keys)] == [3, 2]
    assert [tried["answer"] for tried in ended.document["tries"]] == [200, None, 200, None, 200]
    assert ended.code == 0


def test_check_sends_nothing_to_a_tool_that_promises_nothing(serving: Serving, check: Check) -> None:
    liar = lying_tool.Liar()
    declared = lying_tool.declared(serving(liar.handle), effect="at_most_once", input_schema={"of": {"type": "string"}})

    ended = check(declared, "do")

    assert (ended.code, ended.document["verdict"], liar.requests) == (0, "unchecked", [])
    assert "nothing was sent" in ended.document["headline"]


# --- lies ------------------------------------------------------------------------------------------------------------


def test_check_finds_out_when_a_keyed_tool_ignores_its_key(serving: Serving, check: Check) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar().handle), **KEYED)

    counted = check(declared, "do", "--probe", "shown")
    compared = check(declared, "do")

    assert (counted.code, counted.laws["one key, one effect"]) == (2, False)
    assert (compared.code, compared.laws["one key, one effect"]) == (2, False)


def test_check_finds_out_when_a_keyed_tool_looks_at_the_arguments_instead_of_the_key(
    serving: Serving, check: Check
) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar(by_arguments=True).handle), **KEYED)

    ended = check(declared, "do", "--probe", "shown")

    assert ended.code == 2
    assert ended.laws["one key, one effect"] is True
    assert ended.laws["another key, another effect"] is False


def test_check_finds_out_when_the_declaration_never_sends_its_key(serving: Serving, check: Check) -> None:
    liar = lying_tool.Liar()
    url = serving(liar.handle)
    http = {"method": "POST", "url": f"{url}/do", "body": {"only": "${{ arguments.of }}"}}
    declared = lying_tool.declared(url, effect="keyed", key_argument="key", key_ttl="1h") | {}
    declared["do"]["http"] = http

    ended = check(declared, "do", "--arguments", '{"of": "a"}')

    assert (ended.code, ended.laws, liar.requests) == (2, {"the key reaches the tool": False}, [])


def test_check_finds_out_when_a_tool_that_is_read_only_writes(serving: Serving, check: Check) -> None:
    url = serving(lying_tool.Liar(writes_on_get=True).handle)
    declared = lying_tool.declared(url, effect="read_only")
    declared["do"]["http"] = {"method": "GET", "url": f"{url}/do"}

    ended = check(declared, "do", "--probe", "shown")

    assert (ended.code, ended.laws) == (2, {"it changes nothing": False})


def test_check_finds_out_when_a_tool_that_is_idempotent_appends(serving: Serving, check: Check) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar().handle), effect="idempotent")

    counted = check(declared, "do", "--probe", "shown")
    compared = check(declared, "do")

    assert (counted.code, counted.laws["twice is once"]) == (2, False)
    assert (compared.code, compared.laws["twice is once"]) == (1, None)


def test_check_finds_out_when_a_repeat_looks_like_a_failure_and_no_declaration_says_otherwise(
    serving: Serving, check: Check
) -> None:
    def idempotent(**told: JSON) -> JSON:
        liar = lying_tool.Liar(by_arguments=True, repeats_with=404)
        return lying_tool.declared(serving(liar.handle), effect="idempotent", **told)

    plain = check(idempotent(), "do", "--probe", "shown")
    told = check(idempotent(on_repeat_status={"404": "succeeded"}), "do", "--probe", "shown")

    assert (plain.code, plain.laws["a repeat is answered as a success"]) == (2, False)
    assert (told.code, told.document["verdict"]) == (0, "true")


def test_check_finds_out_when_the_probe_never_finds(serving: Serving, check: Check) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar(shows=False).handle), **CHECKABLE)

    ended = check(declared, "do", "--arguments", '{"of": "${{ run }}"}')

    assert ended.code == 2
    assert ended.laws == {"absent before it is sent": True, "the probe finds it": False}


def test_check_finds_out_when_the_probe_finds_what_was_never_sent(serving: Serving, check: Check) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar(there=["old"]).handle), **CHECKABLE)

    unused = check(declared, "do", "--arguments", '{"of": "${{ run }}"}')
    perhaps_used = check(declared, "do", "--arguments", '{"of": "a"}')

    assert (unused.code, unused.laws) == (2, {"absent before it is sent": False})
    assert (perhaps_used.code, perhaps_used.laws) == (1, {"absent before it is sent": None})


def test_check_finds_out_when_an_effect_shows_up_only_after_it_was_believed_absent(
    serving: Serving, check: Check
) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar(late=True).handle), **CHECKABLE)

    ended = check(declared, "do", "--arguments", '{"of": "${{ run }}"}')

    assert ended.code == 2
    assert ended.laws["what is absent after settle_time never happened"] is False


# --- asking, and what is no answer -----------------------------------------------------------------------------------


def test_check_says_what_it_would_send_and_sends_nothing_when_nobody_agreed(serving: Serving, check: Check) -> None:
    liar = lying_tool.Liar()

    ended = check(lying_tool.declared(serving(liar.handle), **KEYED), "do", "--arguments", '{"of": "a"}', bare=True)

    assert (ended.code, ended.out, liar.requests) == (1, "", [])
    assert "5 requests with 2 keys" in ended.err
    assert '"of": "a"' in ended.err
    assert ended.err.splitlines()[-1].endswith("repeat with --yes.")


def test_check_prints_the_tries_the_laws_and_the_verdict_for_people(serving: Serving, check: Check) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar().handle), **KEYED)

    ended = check(declared, "do", "--yes", "--probe", "shown", bare=True)

    lines = ended.out.splitlines()
    assert lines[0].split("  ")[0] == "TRY"
    assert "✗ one key, one effect: 3 requests, 3 effects" in lines
    assert lines[-1] == "Not true: do is not keyed as it is declared."


def test_check_counts_as_it_is_told_when_the_answer_holds_more_than_one_list(serving: Serving, check: Check) -> None:
    declared = lying_tool.declared(serving(lying_tool.Liar().handle), effect="idempotent")

    blind = check(declared, "do", "--probe", "shown", "--count", "0")
    wrong = check(declared, "do", "--probe", "shown", "--count", "'many'")

    assert (blind.code, blind.laws["twice is once"]) == (1, None)
    assert (wrong.code, "--count is not a whole number" in wrong.err) == (1, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nothing",), "declares no tool nothing; it declares: do, shown"),
        (("do", "--probe", "do"), "looking must change nothing"),
        (("do", "--count", "1"), "Nobody is asked what the tool did"),
        (("do", "--arguments", "{"), "--arguments is not JSON"),
        (("do", "--arguments", "[]"), "--arguments is not a JSON object"),
        (("do", "--arguments", '{"a": "${{ steps.x }}"}'), "--arguments: "),
        (("do", "--arguments", "@missing.json"), "cannot be read"),
    ],
)
def test_check_says_what_is_wrong_with_what_it_was_given(
    serving: Serving, check: Check, options: tuple[str, ...], said: str
) -> None:
    liar = lying_tool.Liar()

    ended = check(lying_tool.declared(serving(liar.handle), **KEYED), *options)

    assert (ended.code, liar.requests) == (1, [])
    assert said in ended.err


def test_check_shows_the_fault_of_a_declaration_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tools.yaml"
    file.write_text("do:\n  http: { method: POST, url: https://example.com }\n  effect: sometimes\n")

    code = run(["tool", "check", str(file), "do", "--yes"])

    assert code == 1
    assert "line 3, /tools/do/effect" in capsys.readouterr().err


def test_check_tells_nothing_when_the_tool_refuses_the_request(demo: tuple[Tools, JSON], check: Check) -> None:
    _, declared = demo

    refused = check(declared, "payments.void", "--arguments", '{"authorization_id": "auth_9"}')
    invalid = check(declared, "email.send", "--arguments", '{"to": "ana@x.io"}')

    assert (refused.code, "answered 404" in refused.err) == (1, True)
    assert (invalid.code, "does not take these arguments" in invalid.err) == (1, True)


def test_check_reaches_no_private_address_that_the_operator_did_not_allow(
    tmp_path: Path, serving: Serving, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = lying_tool.Liar()
    monkeypatch.setenv("SUREFOOT_OUTBOUND_ALLOW", "tools.example.com")

    ended = check(lying_tool.declared(serving(liar.handle), **KEYED), "do")

    assert (ended.code, liar.requests) == (5, [])
    assert "inside a private network" in ended.err
