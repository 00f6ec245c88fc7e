"""The API as a process: `surefoot api`, or `python -m app.cli.serve_api` with the same environment.

Builds the services, makes the application, serves it until a stop signal (`app/api/serving.py` knows how to end).
Beside `app/main.py`, which only makes applications: this is the one place that turns one into a process.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import signal
import socket
import sys
from pathlib import Path

import structlog

from app import garbage, logs
from app.api import serving
from app.bootstrap import build_services
from app.embedded import listening, ready
from app.embedded.refusal import CannotStart
from app.main import create_app
from app.settings import Settings


def run_api(settings: Settings, *, fd: int | None = None, port_file: Path | None = None) -> int:
    """Serve until asked to stop; the exit code. `fd`: a socket that already listens. Raises `CannotStart`."""
    logs.configure(level=settings.log_level, as_json=settings.log_json)
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)  # where it stands, as workers tell, too
    listener = socket.socket(fileno=fd) if fd is not None else listening.listen(settings.host, settings.port)
    with listener:
        return asyncio.run(_serve(settings, listener=listener, port_file=port_file))


async def _serve(settings: Settings, *, listener: socket.socket, port_file: Path | None) -> int:
    stopping = asyncio.Event()
    services = build_services(settings, worker_name=None)
    app = create_app(services, stopping=stopping)
    garbage.settle()
    if port_file is not None:
        ready.private_file(port_file, f'{{"port": {listener.getsockname()[1]}}}\n')
    structlog.get_logger("surefoot.api").info("listening", url=listening.url_of(listener))
    try:
        await serving.serve(app, listener=listener, stopping=stopping)
    finally:
        await services.close()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.cli.serve_api", description="The Surefoot API.")
    parser.add_argument("--fd", type=int, help="number of an inherited socket that already listens")
    parser.add_argument("--port-file", type=Path, help='file that gets {"port": N} once the server listens')
    told = parser.parse_args()
    try:
        return run_api(Settings(), fd=told.fd, port_file=told.port_file)
    except CannotStart as refusal:
        print(f"{refusal.what}\n{refusal.fix}", file=sys.stderr)
        return refusal.exit_code


if __name__ == "__main__":
    sys.exit(main())
