"""`python -m bench.peers`: the same ten-step workflow on other engines, on this machine, one after another.

python -m bench.peers [--only dbos,celery] [--quick] [--seconds 20] [--singles 60] [--relock]
"""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from bench.peers import environments, known, measuring, table

QUICK_SECONDS = 5.0
QUICK_SINGLES = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="Measure the peers on this machine.")
    names = [peer.name for peer in known.PEERS]
    parser.add_argument("--only", default=",".join(names), help=f"of {','.join(names)}")
    parser.add_argument("--quick", action="store_true", help="short windows; for a look, not for a record")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the measured window (20)")
    parser.add_argument("--singles", type=int, default=60, help="workflows on the idle system (60)")
    parser.add_argument("--relock", action="store_true", help="take the newest versions into the locks, and end")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name]
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(names)}")
    if options.relock:
        return _relock(chosen)
    signal.signal(signal.SIGTERM, _leave)
    seconds = QUICK_SECONDS if options.quick else options.seconds
    singles = QUICK_SINGLES if options.quick else options.singles
    results: list[measuring.PeerResult] = []
    try:
        for name in chosen:
            results.append(measuring.run(name, seconds=seconds, singles=singles))  # noqa: PERF401 - kept if interrupted
    finally:
        if results:
            table.show(results, command=f"python -m bench.peers {' '.join(sys.argv[1:])}".rstrip())
    return 1 if any(result.not_run or result.faults for result in results) else 0


def _relock(chosen: list[str]) -> int:
    """Products, not peers: two peers of one product share its environment."""
    for product in dict.fromkeys(name.partition("-")[0] for name in chosen):
        environments.relock(product)
        print(f"bench/peers/locks/{product}.lock")
    return 0


def _leave(number: int, _: FrameType | None) -> None:
    """As Ctrl-C does: everything that was started is ended on the way out."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
