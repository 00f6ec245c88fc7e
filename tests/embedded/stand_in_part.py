"""Stand-ins for the API and the worker of `surefoot up`, quick to start: `stand_in_part.py api|worker`.

The API answers every request with 200 and `{"pid": N}` on the socket it inherits; `DELAY_READY` names a file that has
to exist before. The worker registers in `workers` as a real one does, then waits to be asked to end; `STUBBORN=1`
makes it ignore that. Each writes its pid into the directory `PIDS`, so that a test can look for who was left behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4


def serve(fd: int) -> None:
    listener = socket.socket(fileno=fd)
    body = b'{"pid": %d}' % os.getpid()
    gate = os.environ.get("DELAY_READY")
    while True:
        line, _ = listener.accept()
        with line:
            line.recv(65_536)
            status = b"503 Not Yet" if gate and not Path(gate).exists() else b"200 OK"
            line.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def work(name: str) -> None:
    import psycopg

    from app.domain.states import ENGINE_VERSION
    from app.store import workers

    if os.environ.get("STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with psycopg.connect(os.environ["SUREFOOT_DATABASE_URL"], autocommit=True) as connection:
        registration = workers.Registration(
            id=uuid4(),
            name=name,
            machine=workers.this_machine(),
            pid=os.getpid(),
            slots=1,
            engine_version=ENGINE_VERSION,
        )
        workers.register(connection, registration, lease=timedelta(seconds=60))
    while True:
        signal.pause()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["api", "worker"])
    parser.add_argument("--fd", type=int)
    parser.add_argument("--name", default="")
    told = parser.parse_args()
    Path(os.environ["PIDS"], str(os.getpid())).touch()
    if told.part == "api":
        serve(told.fd)
    else:
        work(told.name)


if __name__ == "__main__":
    main()
