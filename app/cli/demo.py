"""`surefoot demo`: the first five minutes. Everything starts here, a meeting is booked, a worker is killed, one entry.

Three acts. A workflow whose model answers malformed JSON once; a second one whose worker is killed between the
calendar's doing and its answer; the first POST repeated with its key. Each claim is checked against the API *and* the
tools' own books before it is printed. `--once` ends with exit code 0 only if all of it was true. Talks to Claude if
ANTHROPIC_API_KEY is set (MODEL names the model); then what the model answers is not known, and not claimed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import printing
from app.cli.exits import USAGE, Stop
from app.cli.target import Target
from app.domain.outcomes import JSON

if TYPE_CHECKING:
    from app.cli.client import Answer, Client
    from app.cli.demo_claims import Claim
    from app.cli.demo_stage import Books, Stage
    from app.domain.spans import Trace

DEFINITION: Final = Path(__file__).parents[2] / "examples" / "meeting-scheduler.yaml"
MEETINGS: Final = (
    {
        "meeting_id": "7731",
        "organizer": "kim@x.io",
        "request": "30 min with ana@x.io and bo@x.io on Tuesday afternoon",
    },
    {
        "meeting_id": "7732",
        "organizer": "kim@x.io",
        "request": "45 min with cy@x.io and di@x.io on Wednesday morning",
    },
)
ATTENDEES: Final = 2
"""Of each meeting above."""
_ELSEWHERE: Final = frozenset({f"SUREFOOT_{part}" for part in ("URL", "KEY", "DATABASE_URL", "REDIS_URL", "PORT")})
"""The demo brings everything itself: its keys have been used in a database that was there before."""
ACT_WITHIN: Final = 60.0
"""Seconds for one workflow; Claude takes longer than the scripted model."""


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the show; exit code 0 if every claim held.")] = False,
    port: Annotated[int, typer.Option(help="Port of the API if it is free, else any.")] = 8080,
    width: Annotated[int | None, typer.Option(min=40, max=400, help="Columns of the traces.")] = None,
) -> None:
    """See it work: book a meeting, kill a worker in the middle of another, count the calendar's entries."""
    from app.cli.demo_stage import Stage, free_port

    if not DEFINITION.exists():
        raise Stop(f"The example {DEFINITION.name} is not beside the program.", fix="Run it from the repository.")
    # A shell's background job ignores SIGINT, and SIGTERM would leave the folder behind: both end it like Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="surefoot-demo-") as folder:
        printing.note("Starting Postgres, Redis, the API, two workers, a model and two demo tools …")
        began = time.monotonic()
        with Stage(port=free_port(port), folder=Path(folder), environment=_environment()) as stage:
            printing.note(f"ready after {time.monotonic() - began:.1f} s at {stage.ready['url']}")
            show = Show(stage, width=width)
            with closing(show):
                show.play()
                wrong = [claim for claim in show.claims if not claim.true]
                show.summarise(wrong)
                if not once:
                    show.stay()
    if wrong:
        raise typer.Exit(USAGE)


class Show:
    """The three acts on a stage, and what was found true."""

    def __init__(self, stage: Stage, *, width: int | None) -> None:
        from app.cli.client import Client
        from app.cli.demo_stage import Books

        self._stage, self._width = stage, width
        ready = stage.ready
        self._target = Target(url=ready["url"], key=ready["key"])
        self._client: Client = Client(self._target)
        self._books: Books = Books(ready["tools_url"])
        self.claims: list[Claim] = []

    def play(self) -> None:
        first = self._act_one()
        self._act_two()
        self._act_three(first)
        self._calendar()

    def _act_one(self) -> str:
        from app.cli import demo_claims

        _heading("1", "A meeting is booked. The model's first answer will not be valid JSON.")
        workflow = self._submit(MEETINGS[0]).body
        found = self._until_settled(workflow["id"])
        trace = self._trace(found["id"])
        claims = [demo_claims.succeeded(found, which="the first workflow")]
        if self._stage.scripted:
            claims += demo_claims.recovered_from_malformed_answer(trace)
        claims += demo_claims.done_once(
            self._books.ledger(), found["id"], attendees=ATTENDEES, which="the first workflow"
        )
        self._claim(claims)
        return str(found["id"])

    def _act_two(self) -> None:
        from app.cli import demo_claims
        from app.cli.demo_stage import until

        _heading("2", "Another one. Its worker is killed after the calendar did it and before it could answer.")
        self._books.hold_answer(demo_claims.CREATE)
        workflow_id = str(self._submit(MEETINGS[1]).body["id"])
        until(
            "the calendar has created the event and keeps its answer back",
            lambda: bool(self._books.held()),
            within=ACT_WITHIN,
        )
        killed = time.monotonic()
        pid = self._pid_inside(workflow_id, "create_event")
        name = self._stage.kill_worker(pid)
        printing.out(f"kill -9 {pid}   ({name}, inside {demo_claims.CREATE})")
        self._books.drop_answers()
        found = self._until_settled(workflow_id)
        printing.out(f"ended {time.monotonic() - killed:.1f} s after the kill\n")
        trace = self._trace(workflow_id)
        ledger = self._books.ledger()
        claims = [demo_claims.succeeded(found, which="the second workflow")]
        claims += demo_claims.survived_the_kill(trace, ledger, workflow_id)
        claims += demo_claims.done_once(ledger, workflow_id, attendees=ATTENDEES, which="the second workflow")
        self._claim(claims)

    def _act_three(self, first: str) -> None:
        from app.cli import demo_claims

        _heading("3", "The first POST once more, with the same Idempotency-Key: a client that lost its answer.")
        again = self._submit(MEETINGS[0])
        replayed = again.headers.get("idempotent-replayed") == "true"
        printing.out(f"{again.status}  {again.body['id']}  Idempotent-Replayed: {str(replayed).lower()}\n")
        self._claim([demo_claims.one_workflow(first, again.body["id"], replayed=replayed)])

    def _calendar(self) -> None:
        from app.cli import demo_claims

        _heading("", "The demo calendar, from its own books")
        entries = self._books.calendar()
        printing.table(
            [
                (str(entry["event_id"]), str(entry["start"]), str(entry["title"]), ", ".join(entry["attendees"]))
                for entry in entries
            ],
            head=("event", "start", "title", "attendees"),
        )
        printing.out()
        self._claim([demo_claims.one_entry_per_meeting(entries, meetings=len(MEETINGS))])

    def summarise(self, wrong: Sequence[Claim]) -> None:
        _heading("", "What was shown, and checked against the API and the tools' own books")
        for claim in self.claims:
            printing.out(f"{'✓' if claim.true else '✗'} {claim.text}{'' if claim.true else f'  ({claim.found})'}")
        if wrong:
            printing.out(f"\n{len(wrong)} of {len(self.claims)} claims did not hold.")

    def stay(self) -> None:
        """Leave everything up until Ctrl-C, with a curl to paste."""
        body = json.dumps({"definition": {"name": "hello", "steps": {"greet": {"set": {"text": "Hello"}}}}})
        printing.out(
            f"""
It stays up until Ctrl-C.

  URL  {self._target.url}
  key  {self._target.key}

  curl -sS {self._target.url}/v1/workflows \\
    -H 'Authorization: Bearer {self._target.key}' \\
    -H 'Idempotency-Key: hello-1' \\
    -H 'Content-Type: application/json' \\
    -d '{body}'

  export SUREFOOT_URL={self._target.url} SUREFOOT_KEY={self._target.key}
  surefoot list"""
        )
        try:
            while self._stage.alive():
                time.sleep(1.0)
        except KeyboardInterrupt:
            printing.note("\nstopping …")
            return
        raise Stop("`surefoot up` has ended by itself.")

    def close(self) -> None:
        self._books.close()
        self._client.__exit__()

    def _submit(self, meeting: Mapping[str, str]) -> Answer:
        body = {
            "definition_text": _definition(),
            "source_name": DEFINITION.name,
            "input": dict(meeting),
            "labels": {"from": "demo"},
        }
        answer = self._client.post("/v1/workflows", body, key=f"demo-{meeting['meeting_id']}")
        if answer.status == 202 and "idempotent-replayed" not in answer.headers:
            printing.out(f"POST /v1/workflows  Idempotency-Key: demo-{meeting['meeting_id']}  →  {answer.body['id']}")
        return answer

    def _until_settled(self, workflow_id: str) -> JSON:
        from app.cli import following

        told = {"at": time.monotonic()}

        def tell(workflow: JSON, new: list[JSON]) -> None:
            if time.monotonic() - told["at"] > 1.0:
                printing.note(f"  … {following.event_line(new[-1])}")
                told["at"] = time.monotonic()

        return following.follow(self._client, workflow_id, seconds=ACT_WITHIN, seen=tell)

    def _trace(self, workflow_id: str) -> Trace:
        """Printed, and returned for the claims."""
        from app.cli import looking
        from app.domain.spans import Trace

        printing.out("\n" + looking.drawn(self._client, workflow_id, columns=self._width, stream=sys.stdout))
        return Trace.from_json(looking.tree(self._client, workflow_id))

    def _pid_inside(self, workflow_id: str, step: str) -> int:
        """The process that performs the open attempt of that step: step → attempt → worker → pid."""
        found = self._client.get(f"/v1/workflows/{workflow_id}/steps/{step}")
        attempts = [attempt for call in found["call_list"] for attempt in call["attempt_list"]]
        open_ones = [attempt["worker"] for attempt in attempts if attempt["outcome"] is None]
        workers = {worker["id"]: worker["pid"] for worker in self._client.get("/v1/workers")["data"]}
        if not open_ones or open_ones[-1] not in workers:
            raise Stop(f"No worker is inside {step}.", fix=f"See: surefoot show {workflow_id} {step}")
        return int(workers[open_ones[-1]])

    def _claim(self, claims: Sequence[Claim]) -> None:
        self.claims += claims
        for claim in claims:
            if not claim.true:
                printing.note(f"✗ not true: {claim.text} ({claim.found})")


def _definition() -> str:
    return DEFINITION.read_text(encoding="utf-8")


def _environment() -> dict[str, str]:
    """This environment for `up`, without what names another server or database; MODEL becomes the aliases."""
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    model = os.environ.get("MODEL")
    if os.environ.get("ANTHROPIC_API_KEY") and model:
        kept["SUREFOOT_MODELS"] = json.dumps({"fast": model, "smart": model})
    return kept


def _heading(number: str, text: str) -> None:
    printing.out("\n" + printing.paint(f"── {f'{number}. ' if number else ''}{text}", "1", sys.stdout))
