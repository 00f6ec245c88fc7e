"""Other durable engines at our own task, measured in the same run: `run("dbos", seconds=20, singles=60)`.

    python -m bench.peers [--only dbos,celery] [--quick] [--seconds 20] [--singles 60]

The task is a workflow of ten steps, each taking the number the one before it gave, each doing nothing but count
itself. Two processes execute steps; the database, the broker, the client and the bench are on the same machine.

    known.py          the peers: how each is started, its settings, the levels tried, what it promises
    measuring.py      idle latency, levels, the window, the check; `PeerResult`
    room.py           a directory, Postgres and Valkey for one peer; gone afterwards
    children.py       its processes; ended afterwards, whatever happens
    environments.py   its packages, from locks with hashes, under `.bench/`
    programs/         what runs inside those environments: one script per product, `ledger` and `talk` for all

What makes it fair, and where it is not quite, in the peers' favour unless said otherwise:

- Postgres and Valkey are the product's, with its settings: fsync and synchronous_commit on, a fresh cluster each.
- Every peer gets the configuration its documentation recommends for speed, and of several numbers of workflows in
  flight its best; where the defaults are far from that, it is measured with them, too.
- A step counts when it was executed, not when it became durable; no peer must report the end of a workflow under load.
- Idle latency is what a client sees that submits and waits, first of all and on empty tables; polling clients poll far
  more often than they would in production. Ours to compare with it: the waiting client's.
- Nobody but us checks arguments, keeps events for people, or answers over HTTP; Restate's ingress is HTTP, too.
- A number of a run that lost or repeated a step is marked WRONG. A peer that cannot run says why in the table.

What the numbers buy differs:

    DBOS        each step's result is committed to Postgres before the next begins; at least once; recovery at restart
    Celery      messages and results in Redis, which writes nothing to disk here; stock tasks are acknowledged before
                they run, so a killed process loses its task and the chain ends there silently
    LangGraph   in process: no queue, no workers, nobody takes over after a crash; a checkpoint per step in Postgres
    Restate     a journal entry per step in its own replicated log, fsynced; one node, no Postgres
    Temporal    the development server keeps everything in memory: durable against the worker's death, not its own
"""

from __future__ import annotations

from bench.peers.known import PEERS
from bench.peers.measuring import PeerResult, measure, run

__all__ = ["PEERS", "PeerResult", "measure", "run"]
