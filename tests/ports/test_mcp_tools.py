"""MCP tools: what is certain after whatever happens to a call, over both transports, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.domain.drifting import DRIFT
from app.domain.outcomes import Outcome
from app.domain.servers import McpServer, sha256_of
from app.domain.states import AttemptOutcome, EffectClass, FailureKind
from tests.ports import mcp_calls
from tests.ports.function_calls import until
from tests.ports.mcp_calls import AMPLE, SECRET, Server, call, output, port, sent
from tests.ports.mcp_server import ODD


@pytest.fixture(params=["stdio", "json", "sse"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "stdio":
        yield mcp_calls.at_command(tmp_path)
        return
    with mcp_calls.at_url(tmp_path) as found:
        found.behave(sse=request.param == "sse")
        yield found


@pytest.fixture
def program(tmp_path: Path) -> Server:
    return mcp_calls.at_command(tmp_path)


def failure_of(outcome: Outcome) -> tuple[AttemptOutcome, FailureKind, str]:
    assert outcome.failure is not None, outcome
    return outcome.certainty, outcome.failure.kind, outcome.failure.message


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(alive(pid) for pid in pids))


# --- what is called, and how ----------------------------------------------------------------------------------------


async def test_tool_is_called_once_with_its_arguments_and_says_which_call_it_is(server: Server) -> None:
    outcome = await sent(await server.frozen("add"), {"a": 1, "b": 2})

    assert output(outcome) == "3"
    [noted] = server.book
    assert noted["arguments"] == {"a": 1, "b": 2}
    assert noted["meta"]["surefoot/workflow"] == "wf_1"
    assert outcome.sent_after is not None
    assert outcome.received_after is not None
    assert outcome.sent_after <= outcome.received_after


async def test_keyed_tool_gets_its_key_as_the_argument_that_is_declared(program: Server) -> None:
    keyed = await program.frozen("note", effect=EffectClass.KEYED)

    await port().send(call(keyed, {"x": 1}, key="k-1"), seconds=AMPLE, may_send=lambda: True)

    assert program.book[0]["arguments"] == {"x": 1, "key": "k-1"}


async def test_keyed_tool_is_not_called_without_its_key(program: Server) -> None:
    keyed = await program.frozen("note", effect=EffectClass.KEYED)

    outcome = await port().send(call(keyed, {}), seconds=AMPLE, may_send=lambda: True)

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.INVALID_REQUEST)
    assert program.book == []


async def test_tool_is_not_called_when_the_lease_is_no_longer_sure(server: Server) -> None:
    asked: list[int] = []
    tool = await server.frozen("act")

    outcome = await port().send(call(tool), seconds=AMPLE, may_send=lambda: bool(asked.append(1)))

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.WORKER_LOST)
    assert asked == [1]  # at the last moment, and only then
    assert server.book == []


async def test_server_lists_every_page_of_its_tools(server: Server) -> None:
    outcome = await port().discover(server.place, seconds=AMPLE, may_send=lambda: True)

    assert outcome.evidence is not None
    listed = {each["name"]: each for each in json.loads(outcome.evidence.body)["tools"]}
    assert {"add", "act", "slash/name", "environment"} <= listed.keys()
    assert listed["add"]["annotations"] == {"read_only_hint": True}
    assert listed["add"]["input_schema"]["required"] == ["a", "b"]


async def test_list_without_an_end_is_given_up(program: Server) -> None:
    program.behave(endless=True)

    outcome = await port().discover(program.place, seconds=AMPLE, may_send=lambda: True)

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.INVALID_REQUEST)


# --- what it answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nul", "a NUL character"),
        ("surrogate", "a lone surrogate"),
        ("nan", "not finite"),
        ("deep", "nested deeper"),
        ("digits", "digits"),
    ],
)
async def test_answer_that_cannot_be_stored_is_a_success_all_the_same(server: Server, how: str, reason: str) -> None:
    found = output(await sent(await server.frozen("odd"), {"how": how}))

    assert found["opaque"] is True
    assert reason in found["reason"]


async def test_answer_of_ten_megabytes_is_a_success_that_is_kept_up_to_the_limit(server: Server) -> None:
    outcome = await sent(await server.frozen("odd"), {"how": "big", "size": 10_000_000})

    assert output(outcome)["reason"] == "the answer was cut before its end"
    assert outcome.evidence is not None
    assert len(outcome.evidence.body) == mcp_calls.LIMIT


@pytest.mark.parametrize(
    ("how", "value"),
    [("empty", None), ("structured", {"sum": 3}), ("misfit", "no structure although it promised one")],
)
async def test_answer_becomes_its_structure_or_its_text(server: Server, how: str, value: Any) -> None:
    assert output(await sent(await server.frozen("odd"), {"how": how})) == value


async def test_pictures_and_links_are_told_by_descriptors(program: Server) -> None:
    found = output(await sent(await program.frozen("odd"), {"how": "image"}))

    assert found == [
        "see",
        {"type": "image", "media_type": "image/png", "base64_characters": 4},
        {"type": "resource_link", "uri": "file:///x", "name": "x"},
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "certainty", "said"),
    [
        ("fail", {"why": "it is full"}, AttemptOutcome.FAILED, "it is full"),
        ("odd", {"how": "deep_error"}, AttemptOutcome.FAILED, "cannot be read"),
        ("odd", {"how": "asks"}, AttemptOutcome.FAILED, "asks its caller"),
        ("odd", {"how": "error", "code": -32602}, AttemptOutcome.FAILED, "-32602: it broke"),
        ("odd", {"how": "error", "code": -32603}, AttemptOutcome.UNKNOWN, "-32603: it broke"),
        ("odd", {"how": "error", "code": 7}, AttemptOutcome.UNKNOWN, "7: it broke"),
        ("die", {}, AttemptOutcome.UNKNOWN, "no readable answer"),
    ],
)
async def test_outcome_is_as_certain_as_what_was_seen(
    server: Server, name: str, arguments: dict[str, Any], certainty: AttemptOutcome, said: str
) -> None:
    outcome = await sent(await server.frozen(name), arguments)

    assert failure_of(outcome)[0] is certainty
    assert said in failure_of(outcome)[2]
    assert len(server.book) == 1  # never twice


async def test_garbage_on_stdout_is_skipped(program: Server) -> None:
    assert output(await sent(await program.frozen("odd"), {"how": "garbage"})) == "after garbage"


@pytest.mark.parametrize(
    ("status", "certainty"), [(404, "failed"), (401, "failed"), (500, "unknown"), (307, "unknown")]
)
async def test_status_of_the_call_itself_decides_when_there_is_no_reply(
    tmp_path: Path, status: int, certainty: str
) -> None:
    with mcp_calls.at_url(tmp_path) as server:
        tool = await server.frozen("act")
        server.behave(statuses={"tools/call": status})

        outcome = await sent(tool)

    assert outcome.certainty == certainty
    assert server.book == [{"posted": "tools/call"}]  # a redirect is not followed: it may have been acted upon


# --- what is left behind --------------------------------------------------------------------------------------------


async def test_hanging_server_is_killed_with_its_children_when_the_time_is_over(program: Server) -> None:
    outcome = await sent(await program.frozen("hang"), seconds=4.0)

    assert failure_of(outcome)[:2] == (AttemptOutcome.UNKNOWN, FailureKind.TIMEOUT)
    await asyncio.wait_for(gone(program.book[-1]["pids"]), AMPLE)


async def test_hanging_server_is_killed_with_its_children_when_the_call_is_cancelled(program: Server) -> None:
    sending = asyncio.create_task(sent(await program.frozen("hang")))
    await until(lambda: any("pids" in line for line in program.book))

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    await asyncio.wait_for(gone(program.book[-1]["pids"]), AMPLE)


async def test_server_that_is_too_slow_to_get_ready_was_not_called(tmp_path: Path) -> None:
    sleeps = McpServer(name="test", timeout=mcp_calls.timedelta(seconds=1), command=("sleep", "60"), environment={})
    tool = mcp_calls.tool(sleeps, {"name": "act"})

    outcome = await sent(tool, seconds=1.0)

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.TIMEOUT)


async def test_program_sees_nothing_of_the_workers_environment_but_what_programs_need(tmp_path: Path) -> None:
    os.environ["SUREFOOT_SECRETS_OF_A_TEST"] = "hidden"
    server = mcp_calls.at_command(tmp_path, TOKEN="t-${{ secrets.token }}")
    try:
        outcome = await sent(await server.frozen("environment"))
    finally:
        del os.environ["SUREFOOT_SECRETS_OF_A_TEST"]

    seen = json.loads(output(outcome))
    assert seen["TOKEN"] == "t-***"  # it had the secret; what comes back is masked
    assert "PATH" in seen
    assert not [name for name in seen if name.startswith("SUREFOOT")]


async def test_what_a_server_says_on_stderr_is_logged_without_secrets(program: Server) -> None:
    tool = await program.frozen("add")

    with structlog.testing.capture_logs() as logs:
        await sent(tool, {"a": 1, "b": 1})

    said = [line["text"] for line in logs if line["event"] == "child.said"]
    assert said == ["starting up, with a secret ***"]


# --- where it may be ------------------------------------------------------------------------------------------------


async def test_program_that_the_operator_did_not_allow_is_never_started(program: Server) -> None:
    tool = await program.frozen("act")

    outcome = await sent(tool, through=port(commands=frozenset({"mcp-server-git"})))

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.OUTBOUND_FORBIDDEN)
    assert "worker.7 does not run" in failure_of(outcome)[2]


async def test_program_that_is_not_here_waits_for_a_worker_that_has_it() -> None:
    missing = McpServer(name="x", timeout=mcp_calls.timedelta(seconds=5), command=("no-such-server",), environment={})

    outcome = await sent(mcp_calls.tool(missing, {"name": "act"}))

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.WORKER_LOST)
    assert outcome.failure is not None
    assert outcome.failure.retry_after is not None


async def test_server_in_a_private_network_is_not_connected(tmp_path: Path) -> None:
    with mcp_calls.at_url(tmp_path) as server:
        tool = await server.frozen("act")

        outcome = await sent(tool, through=port(allow=""))

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.OUTBOUND_FORBIDDEN)
    assert server.book == []


async def test_server_that_is_away_was_not_called(tmp_path: Path) -> None:
    with mcp_calls.at_url(tmp_path) as server:
        tool = await server.frozen("act")

    outcome = await sent(tool)

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.NETWORK)


async def test_headers_carry_their_secrets_and_messages_do_not(tmp_path: Path) -> None:
    with mcp_calls.at_url(tmp_path, Authorization="Bearer ${{ secrets.token }}") as server:
        server.behave(wants=f"Bearer {SECRET}")

        assert output(await sent(await server.frozen("add"), {"a": 1, "b": 1})) == "2"


async def test_secret_that_is_not_set_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    server = mcp_calls.at_command(tmp_path, TOKEN="${{ secrets.absent }}")

    outcome = await sent(mcp_calls.tool(server.place, {"name": "act"}))

    assert failure_of(outcome)[:2] == (AttemptOutcome.NOT_SENT, FailureKind.INVALID_REQUEST)
    assert "`absent` is not set" in failure_of(outcome)[2]


# --- is it still what it was? ---------------------------------------------------------------------------------------


async def test_tool_that_changed_is_not_called_and_the_difference_is_told(server: Server) -> None:
    tool = await server.frozen("act")
    server.behave(lists={"act": {"description": "Do something else."}}, sse=False)

    outcome = await sent(tool)

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.detail[DRIFT]["diff"] == [
        '- /description: "Do something."', '+ /description: "Do something else."',
    ]  # fmt: skip
    assert server.book == []


async def test_tool_that_changed_is_called_when_somebody_agreed_to_what_it_is_now(program: Server) -> None:
    before = await program.frozen("act")
    program.behave(lists={"act": {"description": "Do something else."}})
    now = await program.frozen("act")
    assert now.mcp is not None

    agreed = call(before, {"x": 1}, definition=sha256_of(now.mcp.definition))
    outcome = await port().send(agreed, seconds=AMPLE, may_send=lambda: True)

    assert output(outcome) == "done"


async def test_tool_that_is_listed_no_more_is_not_called(program: Server) -> None:
    tool = await program.frozen("act")
    program.behave(gone=["act"])

    outcome = await sent(tool)

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert outcome.failure is not None
    assert outcome.failure.detail[DRIFT]["sha256"] is None


async def test_sessions_of_one_worker_run_beside_each_other(server: Server) -> None:
    tool = await server.frozen("add")
    began = time.monotonic()

    outcomes = await asyncio.gather(*(sent(tool, {"a": n, "b": 0}) for n in range(6)))

    assert [output(outcome) for outcome in outcomes] == [str(n) for n in range(6)]
    assert time.monotonic() - began < AMPLE


def test_every_oddity_of_the_server_is_tried() -> None:
    tried = {
        "nul",
        "surrogate",
        "nan",
        "deep",
        "digits",
        "empty",
        "structured",
        "misfit",
        "image",
        "asks",
        "deep_error",
    }

    assert tried == ODD.keys()
