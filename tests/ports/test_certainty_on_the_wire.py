"""Certainty, from the wire up: a server that misbehaves at each point of an exchange, and what the attempt comes to.

`POINTS` is effects.md, Certainty, written out by hand: nothing in it is computed from the product's own table. Each
point is tried with every effect class, and with the declarations of the tool that could matter: none; all that speak
of this point; all that do not, which must change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, EffectClass
from app.ports.http_tools import HttpTools
from app.ports.outbound import OutboundPolicy
from tests.ports.misbehaving_server import (
    Behaviour,
    Server,
    answers,
    free_port,
    resets_at_once,
    resets_within_the_request,
    response,
    sends_then_closes,
    sends_then_resets,
    sends_then_stalls,
    sends_too_late,
    serving,
)
from tests.ports.tool_calls import call, http

LOOPBACK = OutboundPolicy.parse("127.0.0.0/8")
LIMIT = 100_000
AMPLE = 60.0
"""Seconds no exchange with a server that acts at once can take."""
SHORT = 3.0
"""Seconds for the exchanges that end by their deadline: enough for a busy machine to reach the point first. They are
all made at once, so that this is waited for once."""

EFFECTS = ("read_only", "idempotent", "keyed", "checkable", "at_most_once")
DECLARED = {"on_5xx": "not_executed", "on_3xx": "not_executed", "on_408": "not_executed", "on_202": "wait"}

NOT_SENT = "not_sent network"
BROKEN = "unknown network"
LATE = "unknown timeout"
DONE = "succeeded"
PENDING = "unknown timeout, pending"
UNCLEAR = "unknown server_error"
REFUSED = "failed tool_error"
BUSY = "failed rate_limited, not executed"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a server does, and what that says to whom."""

    server: Behaviour | None
    """None: nobody listens."""
    says: str
    """Certainty and failure kind, and what else the failure says; for a tool that declares nothing."""
    except_for: Mapping[str, str] = field(default_factory=dict)
    """By effect class, where it says something else."""
    declared: Mapping[str, str] = field(default_factory=dict)
    """By declaration, where one changes it: for every effect class."""
    seconds: float = AMPLE


def status(code: int, says: str, *, headers: str = "", **more: str) -> Point:
    """`on_5xx=…` and the like in `more`: what it says to a tool that declares this."""
    return Point(server=answers(response(code, b"{}", headers=headers)), says=says, declared=more)


def bare(data: bytes, says: str) -> Point:
    return Point(server=sends_then_closes(data), says=says)


def stalls(data: bytes, says: str, **exceptions: str) -> Point:
    return Point(server=sends_then_stalls(data), says=says, except_for=exceptions, seconds=SHORT)


START = b"HTTP/1.1 200 OK\r\n"
HEADERS = START + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{"
WAIT = "Retry-After: 7\r\n"

# A success is known by its status. Where repeating does no harm the whole answer is asked for again; where it does,
# a known success with an opaque output is better than a doubt.
KNOWN = {"checkable": DONE, "at_most_once": DONE}

POINTS = {
    # --- before the first byte: never sent, for every class -----------------------------------------------------------
    "nobody listens": Point(server=None, says=NOT_SENT),
    # --- after it, without an answer: unknown -------------------------------------------------------------------------
    "resets before the request": Point(server=resets_at_once, says=BROKEN),
    "resets within the request": Point(server=resets_within_the_request, says=BROKEN),
    "resets before the answer": Point(server=sends_then_resets(b""), says=BROKEN),
    "closes before the answer": bare(b"", BROKEN),
    "resets in the status line": Point(server=sends_then_resets(b"HTTP/1.1 20"), says=BROKEN),
    "closes in the status line": bare(b"HTTP/1.1 20", BROKEN),
    "resets after the status line": Point(server=sends_then_resets(START), says=BROKEN),
    "closes within the headers": bare(START + b"Content-Le", BROKEN),
    "sends headers without end": bare(START + b"A: b\r\n" * 40_000, BROKEN),
    "stalls before the answer": stalls(b"", LATE),
    "stalls in the status line": stalls(b"HTTP/1.1 20", LATE),
    "stalls within the headers": stalls(START, LATE),
    "answers too late": Point(server=sends_too_late(response(200, b"{}")), says=LATE, seconds=SHORT),
    "speaks another protocol": bare(b"SSH-2.0-OpenSSH\r\n\r\n", BROKEN),
    "sends noise": bare(b"\x00\x01\x02\r\n\r\n", BROKEN),
    "status of two digits": bare(b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n", BROKEN),
    "status of four digits": bare(b"HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n", BROKEN),
    "status that is no number": bare(b"HTTP/1.1 2OO OK\r\nContent-Length: 0\r\n\r\n", BROKEN),
    "status 000": bare(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n", BROKEN),
    "100, then closes": bare(b"HTTP/1.1 100 Continue\r\n\r\n", BROKEN),
    "100, then stalls": stalls(b"HTTP/1.1 100 Continue\r\n\r\n", LATE),
    "101, which nobody proposed": bare(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", BROKEN),
    # --- after the whole headers --------------------------------------------------------------------------------------
    "200, closes before the body": Point(server=sends_then_closes(HEADERS), says=BROKEN, except_for=KNOWN),
    "200, resets before the body": Point(server=sends_then_resets(HEADERS), says=BROKEN, except_for=KNOWN),
    "200, closes in the body": Point(server=sends_then_closes(HEADERS + b"{"), says=BROKEN, except_for=KNOWN),
    "200, resets in the body": Point(server=sends_then_resets(HEADERS + b"{"), says=BROKEN, except_for=KNOWN),
    "200, closes in a chunk": Point(server=sends_then_closes(CHUNKED), says=BROKEN, except_for=KNOWN),
    "200, stalls before the body": stalls(HEADERS, BROKEN, **KNOWN),
    "200, stalls in the body": stalls(HEADERS + b"{", BROKEN, **KNOWN),
    "202, closes in the body": Point(
        server=sends_then_closes(ACCEPTED), says=BROKEN, except_for=KNOWN, declared={"on_202": PENDING}
    ),
    "404, closes in the body": bare(b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\n{", REFUSED),
    "503, closes in the body": Point(
        server=sends_then_closes(b"HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\n{"),
        says=UNCLEAR,
        declared={"on_5xx": "failed server_error, not executed"},
    ),
    # --- a whole answer: its status -----------------------------------------------------------------------------------
    "103, then 200": bare(b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(200, b"{}"), DONE),
    "200": status(200, DONE),
    "200 with a body that is not JSON": bare(response(200, b"\xff\x00{{"), DONE),
    "201": status(201, DONE),
    "202": status(202, DONE, on_202=PENDING),
    "204": Point(server=answers(b"HTTP/1.1 204 No Content\r\n\r\n"), says=DONE),
    "299": status(299, DONE),
    "300": status(300, "unknown tool_error", on_3xx="failed tool_error, not executed"),
    "301": status(301, "unknown tool_error", on_3xx="failed tool_error, not executed"),
    "302": status(302, "unknown tool_error", headers="Location: /x\r\n", on_3xx="failed tool_error, not executed"),
    "303": status(303, DONE, headers="Location: /x\r\n"),
    "304": Point(server=answers(b"HTTP/1.1 304 Not Modified\r\n\r\n"), says=UNCLEAR),
    "307": status(307, "unknown tool_error", headers="Location: /x\r\n", on_3xx="failed tool_error, not executed"),
    "308": status(308, "unknown tool_error", on_3xx="failed tool_error, not executed"),
    "400": status(400, REFUSED),
    "401": status(401, "failed auth"),
    "403": status(403, "failed auth"),
    "404": status(404, REFUSED),
    "407": status(407, "failed auth"),
    "408": status(408, LATE, on_408="failed timeout, not executed"),
    "409": Point(server=answers(response(409)), says=REFUSED, except_for={"keyed": UNCLEAR}),
    "409 with Retry-After": Point(
        server=answers(response(409, headers=WAIT)),
        says=f"{REFUSED}, after 7 s",
        except_for={"keyed": f"{UNCLEAR}, after 7 s"},
    ),
    "410": status(410, REFUSED),
    "422": status(422, REFUSED),
    "425": status(425, BUSY),
    "429": status(429, BUSY),
    "429 with Retry-After": status(429, f"{BUSY}, after 7 s", headers=WAIT),
    "499": status(499, REFUSED),
    "500": status(500, UNCLEAR, on_5xx="failed server_error, not executed"),
    "501": status(501, UNCLEAR, on_5xx="failed server_error, not executed"),
    "502": status(502, UNCLEAR, on_5xx="failed server_error, not executed"),
    "503": status(503, UNCLEAR, on_5xx="failed server_error, not executed"),
    "503 with Retry-After": status(
        503, f"{UNCLEAR}, after 7 s", headers=WAIT, on_5xx="failed server_error, not executed, after 7 s"
    ),
    "504": status(504, UNCLEAR, on_5xx="failed server_error, not executed"),
    "520": status(520, UNCLEAR, on_5xx="failed server_error, not executed"),
    "599": status(599, UNCLEAR, on_5xx="failed server_error, not executed"),
    "600": status(600, UNCLEAR),
    "999": status(999, UNCLEAR),
}


def expected(point: Point) -> dict[tuple[str, str], str]:
    return {
        (effect, declares): (
            point.declared[declares] if declares in point.declared else point.except_for.get(effect, point.says)
        )
        for effect in EFFECTS
        for declares in ("nothing", "the others", *point.declared)
    }


def in_words(outcome: Outcome) -> str:
    failure = outcome.failure
    if failure is None:
        return outcome.certainty.value
    words = f"{outcome.certainty.value} {failure.kind.value}"
    if failure.detail.get("not_executed"):
        words += ", not executed"
    if outcome.pending:
        words += ", pending"
    if failure.retry_after is not None:
        words += f", after {failure.retry_after.total_seconds():g} s"
    return words


async def attempt(port: HttpTools, url: str, *, point: Point, effect: str, declares: str) -> Outcome:
    if declares == "nothing":
        said = {}
    elif declares == "the others":
        said = {name: value for name, value in DECLARED.items() if name not in point.declared}
    else:
        said = {declares: DECLARED[declares]}
    request = call(
        http(url),
        effect=EffectClass(effect),
        on_5xx=said.get("on_5xx", "unknown"),
        on_3xx=said.get("on_3xx", "unknown"),
        on_408=said.get("on_408", "unknown"),
        on_202=said.get("on_202", "succeeded"),
    )
    return await port.send(request, seconds=point.seconds, may_send=lambda: True)


async def attempts(point: Point, url: str) -> dict[tuple[str, str], Outcome]:
    """All at once, so that a point which ends by its deadline is waited for once."""
    port = HttpTools(LOOPBACK, secrets={}, response_limit=LIMIT)
    asked = list(expected(point))
    try:
        outcomes = await asyncio.gather(
            *(attempt(port, url, point=point, effect=effect, declares=declares) for effect, declares in asked)
        )
    finally:
        await port.aclose()
    return dict(zip(asked, outcomes, strict=True))


async def exchanged(point: Point) -> tuple[dict[tuple[str, str], Outcome], Server]:
    if point.server is None:
        return await attempts(point, f"http://127.0.0.1:{free_port()}"), Server()
    async with serving(point.server) as server:
        return await attempts(point, server.url), server


TIMED = [name for name, point in POINTS.items() if point.seconds == SHORT]
TOGETHER = [*([name] for name in POINTS if name not in TIMED), TIMED]


@pytest.mark.parametrize("names", TOGETHER, ids=lambda names: names[0] if len(names) == 1 else "ends by the deadline")
async def test_attempt_is_as_certain_as_what_the_server_did(names: list[str]) -> None:
    seen = dict(zip(names, await asyncio.gather(*(exchanged(POINTS[name]) for name in names)), strict=True))

    for name, (outcomes, server) in seen.items():
        told = {asked: in_words(outcome) for asked, outcome in outcomes.items()}
        assert told == expected(POINTS[name]), name
        for outcome in outcomes.values():
            assert (outcome.sent_after is None) == (outcome.certainty is AttemptOutcome.NOT_SENT), name
            assert outcome.failure is None or outcome.failure.message.startswith("calendar.create_event "), name
        # One request each, redirects and refusals included: nothing below the engine tries a second time.
        assert server.connections <= len(outcomes), name
        assert len(server.requests) <= len(outcomes), name


async def test_accepted_call_keeps_status_evidence_and_times_while_its_result_is_waited_for() -> None:
    point = Point(server=answers(response(202, b'{"job":7}')), says=DONE, declared={"on_202": PENDING})

    outcomes, _ = await exchanged(point)

    outcome = outcomes["at_most_once", "on_202"]
    assert outcome.pending
    assert outcome.status_code == 202
    assert outcome.evidence is not None
    assert outcome.evidence.body == b'{"job":7}'
    assert outcome.received_after is not None
    assert outcome.failure is not None
    assert outcome.failure.message == "calendar.create_event accepted (202); its result is waited for."
    assert outcome.failure.detail == {"seen": "answered", "pending": True}
