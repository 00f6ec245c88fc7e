"""`surefoot doctor` and `surefoot why`: what they print, advise and end with, against a server that says what it is
told to say."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.cli.conftest import ScriptedServer, Surefoot, problem, workflow

READY = {"status": "ready", "database": "ok", "redis": "ok", "detail": "Everything answers.", "attention": []}
NUMBERS = {"checked": 1.0, "orphans": 0.0, "workers": 2.0, "backlog": 0.0, "oldest_due_seconds": 0.0}
TEXT = {"Content-Type": "text/plain; version=1.0.0; charset=utf-8"}
DAY = 86_400.0


def healthy(
    server: ScriptedServer,
    *,
    ready: dict[str, Any] | None = None,
    numbers: dict[str, float] | None = None,
    workflows: tuple[dict[str, Any], ...] = (),
    switches: tuple[dict[str, Any], ...] = (),
    status: int = 200,
) -> None:
    """A server with which all is well, but for what is given."""
    told = {**NUMBERS, "database_time_seconds": time.time(), **(numbers or {})}
    text = "".join(f"# HELP surefoot_{name} x\n# TYPE surefoot_{name} gauge\nsurefoot_{name} {value}\n"
                   for name, value in told.items() if value is not None)  # fmt: skip
    text += 'surefoot_dues{kind="call"} 7.0\n'
    server.on("GET /version", {"name": "surefoot", "version": "1.0", "engine_version": 1, "migration": "m"})
    server.on("GET /readyz", READY | (ready or {}), status=status)
    server.on("GET /metrics", text, headers=TEXT)
    server.on("GET /v1/workflows", {"data": list(workflows), "next_cursor": None, "has_more": False})
    server.on("GET /v1/switches", {"data": list(switches), "next_cursor": None, "has_more": False})


def waits(kind: str, *, age: float = 0.0, effect: str | None = "call_1") -> dict[str, Any]:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age))
    return workflow("waiting", waiting_on=[{"kind": kind, "since": since, "effect": effect}])


def line(out: str, name: str) -> str:
    """The first line of a check and its fixes."""
    lines = out.splitlines()
    at = next(index for index, text in enumerate(lines) if text[2:].startswith(name))
    fixes = [text.strip() for text in lines[at + 1 :]]
    first = next((index for index, text in enumerate(fixes) if not text.startswith("fix")), len(fixes))
    return " | ".join([lines[at], *fixes[:first]])


def test_doctor_says_that_all_is_well_when_it_is(server: ScriptedServer, surefoot: Surefoot) -> None:
    healthy(server)

    ended = surefoot("doctor")

    assert ended.code == 0
    assert {text[0] for text in ended.out.splitlines()} == {"✓"}
    assert "fix" not in ended.out
    names = [text[2:].split()[0] for text in ended.out.splitlines()]
    assert names == [
        "api", "database", "redis", "workers", "clocks", "orphans", "doubts", "undos", "failures", "switches",
    ]  # fmt: skip


BROKEN: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "not migrated": (
        {"ready": {"status": "unavailable", "database": "not_migrated", "detail": "at 1, needs 2"}, "status": 503},
        "database",
        "✗ database  at 1, needs 2",
        "fix     surefoot migrate",
    ),
    "unreachable": (
        {"ready": {"status": "unavailable", "database": "unreachable", "detail": "No answer."}, "status": 503},
        "database",
        "✗ database  No answer.",
        "SUREFOOT_DATABASE_URL",
    ),
    "restored": (
        {"ready": {"status": "degraded", "database": "restored", "detail": "No effect is made."}},
        "database",
        "✗ database  No effect is made.",
        "surefoot recover --since",
    ),
    "no worker": (
        {"numbers": {"workers": 0.0, "backlog": 3.0, "oldest_due_seconds": 95.0}},
        "workers",
        "✗ workers   No worker is alive; 3 calls due, the oldest for 1 m 35 s",
        "fix     surefoot worker",
    ),
    "orphans": (
        {"numbers": {"orphans": 2.0}},
        "orphans",
        "✗ orphans   2 workflows would never go on",
        "surefoot why",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_doctor_ends_with_2_and_a_fix_when_something_is_broken(
    server: ScriptedServer, surefoot: Surefoot, what: str
) -> None:
    installation, name, says, fix = BROKEN[what]
    healthy(server, **installation)

    ended = surefoot("doctor")

    assert ended.code == 2
    assert line(ended.out, name).startswith(says)
    assert fix in line(ended.out, name)


def test_every_red_line_has_a_fix_whatever_is_broken(server: ScriptedServer, surefoot: Surefoot) -> None:
    healthy(
        server,
        ready={"redis": "away", "status": "degraded", "attention": ["Postgres runs with fsync=off: bad."]},
        numbers={"workers": 0.0, "orphans": 1.0, "database_time_seconds": 1000.0},
        workflows=(waits("doubt", age=2 * DAY), waits("compensation"), waits("saga", effect=None)),
        switches=({"scope": "tenant", "reason": None, "by": "kim", "created_at": "2026-11-22T10:00:00Z"},),
    )

    checks = json.loads(surefoot("doctor", "--json").out)["checks"]

    assert {check["state"] for check in checks} >= {"broken", "look", "good"}
    assert [check for check in checks if check["state"] != "good" and not check["fix"]] == []


PEOPLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "an old doubt": (
        waits("doubt", age=2 * DAY),
        "⏸ doubts    1 doubt older than a day",
        "surefoot resolve call_1 did-not-happen --note",
    ),
    "an undo that failed": (
        waits("compensation"),
        "⏸ undos     1 effect could not be undone",
        "surefoot undo call_1 done --note",
    ),
    "a failure that is held": (
        waits("saga", effect=None),
        "⏸ failures  1 failed workflow held",
        "surefoot compensate wf_1 keep --note",
    ),
}


@pytest.mark.parametrize("what", PEOPLE)
def test_doctor_ends_with_3_and_the_command_when_somebody_is_waited_for(
    server: ScriptedServer, surefoot: Surefoot, what: str
) -> None:
    waiting, says, fix = PEOPLE[what]
    healthy(server, workflows=(waiting,))

    ended = surefoot("doctor")

    assert ended.code == 3
    assert says in ended.out
    assert fix in ended.out


def test_doctor_tells_a_young_doubt_and_does_not_mind_it(server: ScriptedServer, surefoot: Surefoot) -> None:
    healthy(server, workflows=(waits("doubt", age=DAY / 2),))

    ended = surefoot("doctor")

    assert ended.code == 0
    assert line(ended.out, "doubts").startswith("? doubts    1 effect in doubt: nobody has said yet")
    assert "surefoot effects --state in_doubt" in ended.out


@pytest.mark.parametrize(("ahead", "says"), [(-3600.0, "1 h 00 m ahead of"), (3600.0, "1 h 00 m behind")])
def test_doctor_says_which_clock_is_wrong_when_they_differ(
    server: ScriptedServer, surefoot: Surefoot, ahead: float, says: str
) -> None:
    healthy(server, numbers={"database_time_seconds": time.time() + ahead + (1 if ahead > 0 else -1) * 10})

    ended = surefoot("doctor")

    assert ended.code == 0
    assert line(ended.out, "clocks").startswith(f"? clocks    This machine is {says} the database")


def test_doctor_only_advises_when_redis_is_away_or_a_tool_is_switched_off(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    switch = {"scope": "tool:email.send", "reason": "it sends twice", "by": "kim", "created_at": "2026-11-22T10:00:00Z"}
    healthy(server, ready={"status": "degraded", "redis": "away"}, switches=(switch,))

    ended = surefoot("doctor")

    assert ended.code == 0
    assert line(ended.out, "redis").startswith("? redis     Redis is away")
    assert "tool:email.send is switched off by kim" in line(ended.out, "switches")
    assert "fix     surefoot release tool email.send" in line(ended.out, "switches")


def test_doctor_says_so_when_orphans_could_not_be_counted(server: ScriptedServer, surefoot: Surefoot) -> None:
    healthy(server, numbers={"orphans": None})  # type: ignore[dict-item]

    assert line(surefoot("doctor").out, "orphans").startswith("? orphans   Whether anything is forgotten")


def test_doctor_ends_with_5_when_nobody_answers(surefoot: Surefoot) -> None:
    ended = surefoot("--url", "http://127.0.0.1:1", "--key", "sf_x", "doctor", bare=True)

    assert ended.code == 5
    assert "does not answer" in ended.err


# --- why ---

REASON: dict[str, Any] = {
    "kind": "approval", "headline": "review asks a person: Send \x1b]0;it?", "reason": None, "step": "review",
    "call": None, "effect": None, "approval": "apr_1", "since": "2026-11-22T10:00:05.123Z",
    "until": "2026-11-22T11:00:00Z", "not_before": None, "who": "anyone with the scope approve",
    "commands": [
        {"cli": "surefoot approve apr_1", "curl": "curl -X POST …/decision"},
        {"cli": "surefoot worker", "curl": None},
    ],
}  # fmt: skip


def explained(*reasons: dict[str, Any], more: int = 0) -> dict[str, Any]:
    return {
        "workflow": "wf_1", "status": "waiting", "headline": "Waiting for a person to decide.",
        "reasons": list(reasons), "more": more, "generated_at": "2026-11-22T10:10:00Z",
        "commands": [] if reasons else [{"cli": "surefoot retry wf_1", "curl": "curl …/retry"}],
    }  # fmt: skip


def test_why_prints_each_reason_with_its_times_and_commands_when_it_waits(
    server: ScriptedServer, surefoot: Surefoot
) -> None:
    server.on("GET /v1/workflows/wf_1/why", explained(REASON, more=3))

    ended = surefoot("why", "wf_1")

    assert ended.code == 0
    assert ended.out == (
        "Waiting for a person to decide.\n"
        "\n"
        "⏸ review asks a person: Send \\x1b]0;it?\n"
        "  since 2026-11-22 10:00:05 UTC · until 2026-11-22 11:00:00 UTC · anyone with the scope approve\n"
        "    surefoot approve apr_1\n"
        "    surefoot worker\n"
        "\n"
        "… and 3 more open calls\n"
    )


def test_why_prints_curls_where_there_are_any_when_asked(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1/why", explained(REASON))

    out = surefoot("why", "wf_1", "--curl").out

    assert "    curl -X POST …/decision\n    surefoot worker\n" in out


def test_why_says_that_it_waits_for_nothing_when_it_has_ended(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1/why", explained())

    ended = surefoot("why", "wf_1")

    assert ended.code == 0
    assert ended.err.splitlines() == ["It waits for nothing: it has ended.", "  surefoot retry wf_1"]


def test_why_prints_what_the_server_said_when_asked_for_json(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_1/why", explained(REASON))

    assert json.loads(surefoot("why", "wf_1", "--json").out) == explained(REASON)


def test_why_ends_with_1_when_there_is_no_such_workflow(server: ScriptedServer, surefoot: Surefoot) -> None:
    server.on("GET /v1/workflows/wf_9/why", problem("not_found", 404), status=404)

    assert surefoot("why", "wf_9").code == 1
