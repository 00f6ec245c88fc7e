"""Python tools: what a function is given, when it may be called, and what is kept of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from pydantic import SecretStr

from app.domain.plan import PythonTool
from app.domain.states import AttemptOutcome, EffectClass, FailureKind
from tests import packages
from tests.ports import function_calls
from tests.ports.function_calls import AMPLE, HEADERS, LIMIT, call, failed, returned, tools, until


@pytest.fixture
def module(tmp_path: Path) -> Iterator[ModuleType]:
    with function_calls.imported(tmp_path) as found:
        yield found


# --- what it is given ------------------------------------------------------------------------------------------------


async def test_function_gets_its_arguments_by_name_and_its_defaults(module: ModuleType) -> None:
    port = tools()

    outcome = await port.send(call("book", {"title": "Sync"}), seconds=AMPLE, may_send=lambda: True)

    assert module.calls == [("Sync", "now")]
    assert outcome.evidence is not None
    assert outcome.evidence.body == b'{"a":["now"],"title":"Sync","z":1}'
    assert outcome.evidence.media_type == "application/json"
    assert outcome.status_code is None


async def test_function_is_not_called_when_an_argument_is_none_of_its_own(module: ModuleType) -> None:
    outcome = await failed(tools(), "book", {"title": "Sync", "where": "here"})

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.INVALID_REQUEST
    assert "no parameter `where`" in outcome.failure.message
    assert module.calls == []


async def test_function_that_takes_anything_gets_every_argument(module: ModuleType) -> None:
    given = {"title": "Sync", "self": 1, "not a name": None}

    assert await returned(tools(), "anything", given) == given


async def test_function_learns_which_call_it_is_when_it_has_a_parameter_for_it(module: ModuleType) -> None:
    told = await returned(tools(), "tell", effect=EffectClass.KEYED, key="k-1")

    left = told.pop("left")
    assert told == {
        "workflow": "wf_1", "call": "call_1", "attempt": 3, "key": "k-1", "traceparent": HEADERS["traceparent"],
    }  # fmt: skip
    assert 0 < left <= AMPLE


async def test_function_gets_the_key_as_the_argument_that_is_declared(module: ModuleType) -> None:
    asked = {"effect": EffectClass.KEYED, "key": "k-1", "key_argument": "idempotency"}

    assert await returned(tools(), "charge", {"amount": 5}, **asked) == [5, "k-1"]


@pytest.mark.parametrize("key", ["k-1", None])
async def test_keyed_call_is_not_made_when_its_key_would_not_reach_the_function(
    module: ModuleType, key: str | None
) -> None:
    name = "book" if key else "tell"

    outcome = await failed(tools(), name, {"title": "x"} if key else {}, effect=EffectClass.KEYED, key=key)

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert outcome.failure is not None
    assert "would not be safe to repeat" in outcome.failure.message
    assert "context" in (outcome.failure.fix or "")
    assert module.calls == []


async def test_argument_named_context_is_refused_when_the_function_means_its_own(module: ModuleType) -> None:
    outcome = await failed(tools(), "both", {"title": "x", "context": "mine"})

    assert outcome.certainty is AttemptOutcome.NOT_SENT


async def test_what_a_function_does_to_its_arguments_changes_nothing_that_is_sent_again(module: ModuleType) -> None:
    port, request = tools(), call("spoil", {"people": [{"name": "ana"}]})

    for _ in range(2):
        await port.send(request, seconds=AMPLE, may_send=lambda: True)

    assert request.arguments == {"people": [{"name": "ana"}]}


@pytest.mark.parametrize("name", ["bound", "bound_async"])
async def test_function_logs_with_the_fields_of_its_call(module: ModuleType, name: str) -> None:
    with structlog.contextvars.bound_contextvars(call="call_1", step="s"):
        assert await returned(tools(), name) == {"call": "call_1", "step": "s"}


async def test_wrapped_and_callable_functions_are_called_like_others(module: ModuleType) -> None:
    port = tools()

    assert await returned(port, "around") == {"inner": True}
    assert await returned(port, "instance", {"title": "x"}) == "x"


# --- may it be sent? -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["book", "book_blocking"])
async def test_function_is_not_called_when_the_lease_is_in_doubt(module: ModuleType, name: str) -> None:
    port = tools(threads=1)

    outcomes = [await port.send(call(name, {"title": "x"}), seconds=AMPLE, may_send=lambda: False) for _ in range(3)]

    assert [one.certainty for one in outcomes] == [AttemptOutcome.NOT_SENT] * 3
    assert [one.failure.kind for one in outcomes if one.failure] == [FailureKind.WORKER_LOST] * 3
    assert module.calls == []
    assert await returned(port, "book_blocking", {"title": "x"})  # the place of the thread was given back


async def test_permission_is_asked_last_when_function_and_thread_are_there(module: ModuleType) -> None:
    port = tools(threads=1)
    asked: list[str] = []
    first = asyncio.create_task(returned(port, "blocks"))
    await until(module.entered.is_set)

    def may_send() -> bool:
        asked.append("second")
        return True

    second = asyncio.create_task(port.send(call("book_blocking", {"title": "x"}), seconds=AMPLE, may_send=may_send))
    await until(lambda: port._functions.known(PythonTool(distribution="acme-tools", name="book_blocking")) is not None)
    for _ in range(10):
        await asyncio.sleep(0)
    before = list(asked)
    module.gate.set()

    assert await first == "late"
    assert (await second).certainty is AttemptOutcome.SUCCEEDED
    assert (before, asked) == ([], ["second"])


# --- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("b'x'", "not JSON: Object of type bytes is not JSON serializable"),
        ("{'a': {1}}", "not JSON: Object of type set is not JSON serializable"),
        ("{1: 2, 'a': 3}", "not JSON: '<' not supported between instances of 'str' and 'int'"),
        ("float('inf')", "a number that is not finite or too large at the top"),
        ("{'a': ['\\ud800']}", "a lone surrogate at /a/0"),
        ("'\\x00'", "a NUL character at the top"),
        ("10 ** 1000", "an integer of more than 1000 digits at the top"),
        ("'x' * 3000", "the answer was cut before its end"),
    ],
)
async def test_result_that_is_no_json_is_a_success_with_an_opaque_output(
    tmp_path: Path, value: str, reason: str
) -> None:
    with packages.on_path(packages.write(tmp_path, f"async def give(): return {value}", ["give"])):
        output = await returned(tools(), "give")

    assert (output["opaque"], output["reason"]) == (True, reason)


async def test_evidence_is_cut_at_the_cap_of_http_answers(module: ModuleType) -> None:
    port = tools()

    whole = await port.send(call("big", {"n": LIMIT - 2}), seconds=AMPLE, may_send=lambda: True)
    cut = await port.send(call("big", {"n": LIMIT - 1}), seconds=AMPLE, may_send=lambda: True)

    assert whole.evidence is not None
    assert cut.evidence is not None
    assert (len(whole.evidence.body), whole.evidence.truncated) == (LIMIT, False)
    assert (len(cut.evidence.body), cut.evidence.truncated) == (LIMIT, True)


async def test_traceback_is_the_evidence_when_the_function_raises(module: ModuleType) -> None:
    outcome = await failed(tools(), "leaks")

    assert outcome.evidence is not None
    text = outcome.evidence.body.decode()
    assert text.startswith("Traceback")
    assert "in leaks" in text
    assert "python_tools.py" not in text
    assert outcome.failure is not None
    assert "RuntimeError" in outcome.failure.message
    assert "token" not in outcome.failure.message  # the message is for lists and models; what it raised is evidence


async def test_secrets_of_the_process_are_masked_in_whatever_a_function_says(module: ModuleType) -> None:
    port = tools(token=SecretStr("s3cret-s3cret"))

    seen = [
        await port.send(call(name), seconds=AMPLE, may_send=lambda: True)
        for name in ("leaks", "answers_secret", "says_secret")
    ]

    assert "s3cret" not in repr(seen)
    assert all("***" in repr(one) for one in seen)
