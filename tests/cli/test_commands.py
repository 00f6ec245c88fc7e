"""What the commands send, print and end with, against a scripted server on a real socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.main import hoisted
from app.domain.trace import build_trace
from tests.cli.conftest import KEY, ScriptedServer, Surefoot, problem, workflow
from tests.domain.fabricated_rows import sample

YAML = "name: hello\nsteps:\n  greet:\n    set: { text: Hello }\n"


@pytest.fixture
def definition(tmp_path: Path) -> str:
    path = tmp_path / "hello.yaml"
    path.write_text(YAML)
    return str(path)


def test_submit_prints_the_id_alone_and_sends_the_yaml_as_it_is(
    server: ScriptedServer, surefoot: Surefoot, definition: str
) -> None:
    server.on("POST /v1/workflows", workflow(), status=202)

    ended = surefoot("submit", definition, "--key", "booking-1", "--input", '{"a": 1}', "--label", "team=a")

    assert (ended.code, ended.out) == (0, "wf_1\n")
    asked = server.asked[0]
    assert asked.headers["idempotency-key"] == "booking-1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "definition_text": YAML, "source_name": "hello.yaml", "input": {"a": 1}, "labels": {"team": "a"},
    }  # fmt: skip


def test_submit_says_which_key_it_made_up_when_none_was_given(
    server: ScriptedServer, surefoot: Surefoot, definition: str
) -> None:
    server.on("POST /v1/workflows", workflow(), status=202)

    ended = surefoot("submit", definition)

    sent = server.asked[0].headers["idempotency-key"]
    assert sent.startswith("cli-")
    assert sent in ended.err
    assert ended.out == "wf_1\n"


def test_submit_refuses_an_api_key_as_idempotency_key(
    server: ScriptedServer, surefoot: Surefoot, definition: str
) -> None:
    ended = surefoot("submit", definition, "--key", "sf_live_secret")

    assert ended.code == 1
    assert "before the command" in ended.err
    assert server.asked == []


def test_submit_reads_the_input_from_a_file_when_it_begins_with_an_at(
    server: ScriptedServer, surefoot: Surefoot, definition: str, tmp_path: Path
) -> None:
    server.on("POST /v1/workflows", workflow(), status=202)
    (tmp_path / "input.json").write_text('{"from": "file"}')

    surefoot("submit", definition, "--key", "k", "--input", f"@{tmp_path / 'input.json'}")

    assert server.asked[0].body["input"] == {"from": "file"}


def test_submit_sends_a_json_file_as_a_definition(server: ScriptedServer, surefoot: Surefoot, tmp_path: Path) -> None:
    server.on("POST /v1/workflows", workflow(), status=202)
    (tmp_path / "hello.json").write_text('{"name": "hello", "steps": {}}')

    surefoot("submit", str(tmp_path / "hello.json"), "--key", "k")

    assert server.asked[0].body == {"definition": {"name": "hello", "steps": {}}, "labels": {}}


DOUBT = {"kind": "doubt", "reason": None, "effect": "call_1", "approval": None}
APPROVAL = {"kind": "approval", "reason": None, "effect": None, "approval": "apr_1"}


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (workflow("succeeded"), 0, "It is succeeded."),
        (workflow("failed", failure={"kind": "tool_error", "message": "No.", "fix": None}), 2, "It is failed."),
        (workflow("cancelled"), 2, "It is cancelled."),
        (workflow("waiting", waiting_on=[APPROVAL]), 3, "surefoot approve apr_1"),
        (workflow("waiting", waiting_on=[DOUBT]), 3, "surefoot resolve call_1 did-not-happen --note '…'"),
        (workflow("running"), 4, "surefoot trace wf_1"),
    ],
)
def test_submit_with_wait_ends_with_the_code_of_what_it_came_to(
    server: ScriptedServer, surefoot: Surefoot, definition: str, found: object, code: int, said: str
) -> None:
    server.on("POST /v1/workflows", workflow(), status=202)
    server.on("GET /v1/workflows/wf_1", found)

    ended = surefoot("submit", definition, "--key", "k", "--wait", "--timeout", "0.1")

    assert ended.code == code
    assert said in ended.err
    assert ended.out == "wf_1\n"
    assert server.asked[1].headers["prefer"].startswith("wait=")


def test_a_workflow_that_waits_for_a_timer_is_waited_for(
    server: ScriptedServer, surefoot: Surefoot, definition: str
) -> None:
    timer = {"kind": "timer", "reason": None, "effect": None, "approval": None}
    server.on("POST /v1/workflows", workflow(), status=202)
    server.on("GET /v1/workflows/wf_1", workflow("waiting", waiting_on=[timer]))
    server.on("GET /v1/workflows/wf_1", workflow("succeeded"))

    assert surefoot("submit", definition, "--key", "k", "--wait").code == 0


def test_a_problem_is_printed_with_every_place_and_its_fix(
    server: ScriptedServer, surefoot: Surefoot, definition: str
) -> None:
    fault = {"code": "unknown_step", "pointer": "/definition/steps/a", "line": 7, "detail": "no b", "fix": "write c"}
    other = {"code": "cycle", "pointer": "/definition/steps/d", "line": None, "detail": "d → d\x1b[2J", "fix": "cut"}
    server.on("POST /v1/workflows", problem("definition_invalid", 422, errors=[fault, other]), status=422)

    ended = surefoot("submit", definition, "--key", "k")

    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.splitlines() == [
        "error  Title of definition_invalid",
        "       Detail of definition_invalid",
        "  ✗ line 7, /definition/steps/a",
        "      no b",
        "      fix: write c",
        "  ✗ /definition/steps/d",
        "      d → d\\x1b[2J",
        "      fix: cut",
        "fix    Fix of definition_invalid",
        "       code definition_invalid · request_id req_1",
    ]


@pytest.mark.parametrize(("status", "code"), [(401, 1), (404, 1), (409, 1), (500, 5), (503, 5)])
def test_a_refusal_ends_with_5_when_the_server_and_not_the_request_is_the_trouble(
    server: ScriptedServer, surefoot: Surefoot, status: int, code: int
) -> None:
    server.on("GET /v1/workflows", problem("x", status), status=status)

    assert surefoot("list").code == code


def test_a_page_that_is_no_problem_document_is_still_said(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows", "<h1>Bad gateway</h1>", status=502, headers={"Content-Type": "text/html"})

    ended = surefoot("list")

    assert ended.code == 5
    assert "HTTP 502" in ended.err
    assert "Bad gateway" in ended.err


def test_the_command_ends_with_5_when_nobody_listens(surefoot: Surefoot) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        ended = surefoot("--url", url, "--key", "k", "list", bare=True)

    assert ended.code == 5
    assert "does not answer" in ended.err
    assert "surefoot up" in ended.err


@pytest.mark.parametrize(
    "arguments", [["lst"], ["submit"], ["resolve", "call_1", "maybe", "--note", "x"], ["trace", "wf_1", "--width", "x"]]
)
def test_a_usage_error_ends_with_1(surefoot: Surefoot, arguments: list[str]) -> None:
    ended = surefoot(*arguments)

    assert ended.code == 1
    assert ended.err.startswith("error  ")


def test_trace_draws_the_servers_tree_at_the_width_asked_for(server: ScriptedServer, surefoot: Surefoot) -> None:
    tree = build_trace(*sample(), source_name="meeting-scheduler.yaml").to_json()
    server.on("GET /v1/workflows/wf_1/trace", tree)

    ended = surefoot("trace", "wf_1", "--width", "80")

    picture = Path(__file__).parents[1] / "domain" / "pictures" / "succeeded_80.txt"
    assert ended.out == picture.read_text(encoding="utf-8")
    assert server.asked[0].query == {"format": ["tree"]}


def test_trace_with_follow_writes_a_line_per_event_and_then_the_trace_when_it_is_no_terminal(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    events = [
        {
            "seq": number, "type": name, "timestamp": f"2026-11-24T14:02:1{number}.030Z", "step": step,
            "data": {"reason": "\x1b[31mx", "failure": {"kind": "k", "message": "m"}},
        }
        for number, name, step in ((1, "workflow.accepted", None), (2, "agent.step.failed", "greet"))
    ]  # fmt: skip
    server.on("GET /v1/workflows/wf_1", workflow("running", last_seq=1))
    server.on("GET /v1/workflows/wf_1", workflow("failed", last_seq=2))
    server.on("GET /v1/workflows/wf_1/events", {"data": events[:1], "has_more": False, "next_cursor": None})
    server.on("GET /v1/workflows/wf_1/events", {"data": events[1:], "has_more": False, "next_cursor": None})
    server.on("GET /v1/workflows/wf_1/trace", build_trace(*sample()).to_json())

    ended = surefoot("trace", "wf_1", "--follow")

    lines = ended.out.splitlines()
    assert lines[0] == "14:02:11.030  #1   ·                   workflow.accepted  reason=\\x1b[31mx  failure=m"
    assert lines[1].startswith("14:02:12.030  #2   greet")
    assert "✓ meeting-scheduler@3" in lines[3]
    assert ended.code == 2
    assert [asked.query["after"] for asked in server.asked if asked.path.endswith("/events")] == [["0"], ["1"]]


def test_events_reads_every_page(server: ScriptedServer, surefoot: Surefoot) -> None:
    event = {"seq": 1, "type": "workflow.accepted", "timestamp": "2026-11-24T14:02:11Z", "step": None, "data": {}}
    server.on("GET /v1/workflows/wf_1/events", {"data": [event], "has_more": True, "next_cursor": "1"})
    server.on("GET /v1/workflows/wf_1/events", {"data": [event | {"seq": 2}], "has_more": False, "next_cursor": "2"})

    ended = surefoot("events", "wf_1", "--json")

    assert [json.loads(line)["seq"] for line in ended.out.splitlines()] == [1, 2]


def test_approve_decides_the_revision_it_has_read(server: ScriptedServer, surefoot: Surefoot) -> None:
    approval = {"id": "apr_1", "title": "Refund $480?", "revision": 4, "workflow_id": "wf_1"}
    server.on("GET /v1/approvals/apr_1", approval)
    server.on("POST /v1/approvals/apr_1/decision", approval | {"decision": "approve"})

    ended = surefoot("approve", "apr_1", "--comment", "fine")

    assert (ended.code, ended.out) == (0, "Approved: Refund $480?\n")
    assert server.asked[1].body == {"decision": "approve", "revision": 4, "comment": "fine"}


def test_reject_says_no(server: ScriptedServer, surefoot: Surefoot) -> None:
    approval = {"id": "apr_1", "title": "Refund $480?", "revision": 1, "workflow_id": "wf_1"}
    server.on("GET /v1/approvals/apr_1", approval)
    server.on("POST /v1/approvals/apr_1/decision", approval)

    ended = surefoot("reject", "apr_1")

    assert ended.out == "Rejected: Refund $480?\n"
    assert server.asked[1].body == {"decision": "reject", "revision": 1}


@pytest.mark.parametrize(
    ("said", "sent"), [("happened", "happened"), ("did-not-happen", "did_not_happen"), ("abandon", "abandon")]
)
def test_resolve_sends_the_verdict_with_its_note(
    server: ScriptedServer, surefoot: Surefoot, said: str, sent: str
) -> None:
    effect = {"id": "call_1", "step": "pay", "tool": "bank.transfer", "state": "succeeded", "workflow_id": "wf_1"}
    server.on("POST /v1/effects/call_1/resolve", effect)

    ended = surefoot("resolve", "call_1", said, "--note", "looked at the bank", "--result", '{"id": 7}')

    assert ended.code == 0
    assert server.asked[0].body == {"outcome": sent, "note": "looked at the bank", "result": {"id": 7}}


def test_resolve_says_until_when_it_must_wait_when_the_quarantine_is_not_over(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    refusal = problem("quarantine_active", 409, not_before="2026-11-24T14:03:31Z")
    server.on("POST /v1/effects/call_1/resolve", refusal, status=409)

    ended = surefoot("resolve", "call_1", "did-not-happen", "--note", "n")

    assert ended.code == 1
    assert "not before  2026-11-24T14:03:31Z" in ended.err.splitlines()


def test_cancel_gives_the_reason(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("POST /v1/workflows/wf_1/cancel", workflow("cancelling"), status=202)

    ended = surefoot("cancel", "wf_1", "--reason", "wrong customer")

    assert ended.out == "◌ It is cancelling.\n"
    assert server.asked[0].body == {"reason": "wrong customer"}


def test_list_shows_a_line_each_with_nothing_cut_off(server: ScriptedServer, surefoot: Surefoot) -> None:
    long = workflow("failed", headline="x" * 300 + "\x1b[2J")
    server.on("GET /v1/workflows", {"data": [workflow(), long], "has_more": False, "next_cursor": None})

    ended = surefoot("list", "--status", "failed", "--label", "team=a")

    lines = ended.out.splitlines()
    assert lines[1] == "◌  wf_1      hello       2026-11-24T14:02:11  It is running."
    assert lines[2].endswith("x" * 300 + "\\x1b[2J")
    assert server.asked[0].query == {"status": ["failed"], "limit": ["50"], "label.team": ["a"]}


def test_show_offers_the_next_command_when_a_workflow_waits(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1", workflow("waiting", waiting_on=[APPROVAL], output={"a": "\x1b[2J"}))

    ended = surefoot("show", "wf_1")

    assert ended.out.splitlines()[0] == "⏸ It is waiting."
    assert [line.strip() for line in ended.out.splitlines()[-4:]] == [
        "next         surefoot show apr_1", "surefoot approve apr_1", "surefoot reject apr_1", "surefoot trace wf_1",
    ]  # fmt: skip
    assert "\x1b" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["wf_1", "a.0", "--call", "2"], "/v1/workflows/wf_1/steps/a.0/calls/2"),
        (["wf_1", "a/b?c", "--call", "2"], "/v1/workflows/wf_1/steps/a%2Fb%3Fc/calls/2"),
        (["call_1"], "/v1/effects/call_1"),
        (["apr_1"], "/v1/approvals/apr_1"),
    ],
)
def test_show_finds_what_the_id_names(
    server: ScriptedServer, surefoot: Surefoot, arguments: list[str], path: str
) -> None:
    server.on(f"GET {path}", {"id": "x", "request": {"to": "bo@x.io\x1b[2J"}})

    ended = surefoot("show", *arguments)

    assert ended.code == 0
    assert "bo@x.io\\u001b[2J" in ended.out


@pytest.mark.parametrize(
    ("arguments", "moved"),
    [
        (["list", "--url", "u", "--key", "k"], ["--url", "u", "--key", "k", "list"]),
        (["submit", "f", "--key", "k", "--url=u"], ["--url=u", "submit", "f", "--key", "k"]),
        (["--key", "a", "submit", "f", "--key", "k"], ["--key", "a", "submit", "f", "--key", "k"]),
        (["show", "--", "--key"], ["show", "--", "--key"]),
    ],
)
def test_url_and_key_may_stand_after_the_command(arguments: list[str], moved: list[str]) -> None:
    assert hoisted(arguments) == moved


def test_help_does_not_pay_for_heavy_imports() -> None:
    program = (
        "import sys\nfrom app.cli.main import run\ncode = run(['--help'])\n"
        "heavy = {'httpx', 'celery', 'anthropic', 'sqlalchemy', 'fastapi', 'psycopg', 'rich'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    )

    assert done.stdout.splitlines()[-1] == "0 []"
