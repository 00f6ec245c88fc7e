"""The commands that run processes: up, api, worker, migrate. Typer functions that `main.py` puts together.

Everything heavy is imported inside the function, so that `surefoot --help` does not pay for it. A `CannotStart`
becomes two lines on stderr (what was found, what to do) and its exit code.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import reading_settings
from app.embedded.refusal import CannotStart

if TYPE_CHECKING:
    from app.embedded.ready import Ready
    from app.embedded.up import Verbs
    from app.settings import Settings

SAMPLE: Final = '{"definition": {"name": "hello", "steps": {"greet": {"set": {"text": "Hello"}}}}}'
"""A workflow that needs nothing but the service itself."""


def up(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one. [default: 8080]")
    ] = None,
    data: Annotated[Path, typer.Option(help="Where everything is kept between runs.")] = Path(".surefoot"),
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep nothing: a temporary data directory.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes. [default: 2]")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Where to write URL, key and pids. [default: DATA/ready.json]")
    ] = None,
) -> None:
    """Start everything on this machine: Postgres, Redis, API, workers, a scripted model and demo tools."""
    with refusing():
        from app.embedded.up import Options
        from app.embedded.up import up as run_up

        options = Options(
            settings=reading_settings.read(),
            data=data,
            port=port,
            workers=workers,
            ready_file=ready_file,
            ephemeral=ephemeral,
        )
        asyncio.run(run_up(options, verbs=_verbs, welcome=_welcome))


def _verbs() -> Verbs:
    from app.embedded.verbs import VERBS

    return VERBS


def api(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [default: SUREFOOT_PORT]")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address. [default: SUREFOOT_HOST]")] = None,
    port_file: Annotated[Path | None, typer.Option(help='File that gets {"port": N} once it listens.')] = None,
) -> None:
    """Run the REST API: one process, against SUREFOOT_DATABASE_URL and SUREFOOT_REDIS_URL."""
    with refusing():
        from app.cli.serve_api import run_api

        settings = _with_database(reading_settings.read())
        told = {name: value for name, value in {"port": port, "host": host}.items() if value is not None}
        raise typer.Exit(run_api(settings.model_copy(update=told), port_file=port_file))


def worker(
    processes: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; one per core. [default: SUREFOOT_WORKER_PROCESSES]")
    ] = None,
) -> None:
    """Run workers under one supervisor, which restarts them and records how they died."""
    with refusing():
        settings = _with_database(reading_settings.read())
        asyncio.run(_run_workers(settings, processes or settings.worker_processes))


def migrate() -> None:
    """Bring the database at SUREFOOT_DATABASE_URL to the newest schema. Safe to run twice, or at once.

    A database without any API key gets its first, printed once.
    """
    with refusing():
        from app.embedded import schema, verbs
        from app.embedded.supervisor import print_line
        from app.embedded.worker_group import await_database

        url = _with_database(reading_settings.read()).database_url
        asyncio.run(await_database(url, say=print_line))
        print(f"The database is at revision {schema.upgrade(url)}.")
        key = asyncio.run(verbs.first_key(url))
        if key is not None:
            print(f"The first API key, shown this once: {key}")


async def _run_workers(settings: Settings, count: int) -> None:
    from app.embedded import worker_group
    from app.embedded.supervisor import Supervisor, print_line

    group = worker_group.WorkerGroup(count=count, database_url=settings.database_url, environment=dict(os.environ))

    async def before_kill(name: str, pid: int) -> None:
        await group.before_kill(name, pid, say=print_line)

    stopping = asyncio.Event()
    supervisor = Supervisor(died=group.died, before_kill=before_kill)
    worker_group.on_signals(stopping, hurry=supervisor.hurry)
    if await worker_group.unless(stopping, worker_group.await_database(settings.database_url, say=print_line)):
        await worker_group.run_workers(group=group, say=print_line, stopping=stopping, supervisor=supervisor)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn a refusal into two lines and its exit code."""
    try:
        yield
    except CannotStart as refusal:
        print(refusal.what, file=sys.stderr)
        print(refusal.fix, file=sys.stderr)
        raise typer.Exit(refusal.exit_code) from None


def _with_database(settings: Settings) -> Settings:
    if not settings.database_url:
        raise CannotStart(
            "SUREFOOT_DATABASE_URL is not set.",
            fix="Set it to a Postgres (postgresql://…), or use `surefoot up`, which brings its own.",
        )
    return settings


def _welcome(found: Ready) -> None:
    """What a person needs next, on stdout; the children's lines go to stderr."""
    print(
        f"""
Surefoot is ready.

  URL   {found.url}
  key   {found.key}
  data  {found.data}

Try it:

  curl -sS {found.url}/v1/workflows \\
    -H 'Authorization: Bearer {found.key}' \\
    -H 'Idempotency-Key: hello-1' \\
    -H 'Content-Type: application/json' \\
    -d '{SAMPLE}'

Ctrl-C stops it.
""",
        flush=True,
    )
