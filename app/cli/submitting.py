"""`surefoot submit FILE`: one POST with an Idempotency-Key; the id alone on stdout, everything else on stderr.

YAML goes as it is (`definition_text`, so that faults have lines), JSON as an object. Without `--key` a fresh one is
made and printed: repeating the printed command finds the same workflow.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Annotated

import typer

from app.cli import following, labels, looking, printing
from app.cli.exits import Stop
from app.cli.session import client_of
from app.domain.outcomes import JSON


def submit(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The definition, YAML or JSON; - reads stdin.")],
    input_: Annotated[str | None, typer.Option("--input", metavar="JSON|@file", help="The workflow's input.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Idempotency-Key: an id of your own system.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="May be repeated.")] = None,
    webhook: Annotated[str | None, typer.Option("--webhook", metavar="URL", help="Where events are sent.")] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", metavar="2h", help="How long it may take.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it ends or needs a person; see the exit code.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="The same, showing what happens (on stderr).")] = False,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Most seconds to wait; then exit code 4.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The workflow object instead of its id.")] = False,
) -> None:
    """Submit a definition as a new workflow; prints its id."""
    body = submission(file, input_=input_, label=label or [], webhook=webhook, deadline=deadline)
    idempotency_key = _key(key)
    with client_of(ctx) as client:
        answer = client.post("/v1/workflows", body, key=idempotency_key)
        workflow = answer.body
        if "idempotent-replayed" in answer.headers:
            printing.note(f"this key has been used with this body before: the same workflow ({workflow['status']})")
        if not as_json:
            printing.out(workflow["id"])
        if follow:
            workflow = looking.watch(client, workflow["id"], seconds=timeout, stream=sys.stderr)
        elif wait:
            workflow = following.wait(client, workflow["id"], seconds=timeout)
        if as_json:
            printing.as_json(workflow)
        if wait or follow:
            printing.note(printing.headline(workflow))
            looking.say_what_to_do(workflow)
            raise typer.Exit(following.exit_code(workflow))
        if not as_json:
            printing.note(f"  surefoot trace {workflow['id']} --follow")


def submission(
    file: str, *, input_: str | None, label: list[str], webhook: str | None, deadline: str | None
) -> dict[str, JSON]:
    """The body of the POST. Raises `Stop` for what can be seen to be wrong from here."""
    text = _read(file, what="definition")
    body: dict[str, JSON] = {"labels": dict(labels.label(one) for one in label)}
    if file.endswith(".json"):
        body["definition"] = _parsed(text, what=file)
    else:
        body |= {"definition_text": text, "source_name": "stdin" if file == "-" else Path(file).name}
    if input_ is not None:
        source = _read(input_[1:], what="input") if input_.startswith("@") else input_
        body["input"] = _parsed(source, what="--input")
    if webhook is not None:
        body["webhook"] = {"url": webhook}
    if deadline is not None:
        body["deadline"] = deadline
    return body


def _key(given: str | None) -> str:
    if given is None:
        made = f"cli-{uuid.uuid4()}"
        printing.note(f"key {made}  (made up; give --key with an id of your own, so that a repeat finds this workflow)")
        return made
    if given.startswith("sf_"):
        raise Stop(
            "That is an API key, not an Idempotency-Key.",
            fix="Give the API key before the command: surefoot --key sf_… submit FILE --key your-own-id",
        )
    return given


def _read(path: str, *, what: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Stop(f"The {what} {path} cannot be read: {error.strerror}.", fix="Check the path.") from error
    except UnicodeDecodeError as error:
        raise Stop(f"{path} is not UTF-8 text (byte {error.start}).", fix="Save it as UTF-8.") from error


def _parsed(text: str, *, what: str) -> JSON:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Stop(f"{what} is not JSON: {error}.", fix="Quote it for the shell, or use --input @file.json") from error
