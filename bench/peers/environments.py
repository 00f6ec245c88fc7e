"""The peers' own environments: made once from pinned files with hashes, kept under `.bench/`, never ours.

    locks/<product>.in, .lock    what is asked for, and every version and hash it resolved to
    restate_server/              the same for Restate's server, which comes from npm

A peer's dependencies must not meet the product's: other versions of the same library would change what is measured,
on both sides. A directory counts only with its stamp, which is written last; an interrupted installation is made anew.
Newer versions: `python -m bench.peers --relock`, then read the diff.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
LOCKS: Final = HERE / "locks"
NPM: Final = HERE / "restate_server"
CACHE: Final = HERE.parent.parent / ".bench"

INSTALL_WITHIN: Final = 600.0
"""Seconds: the largest is 100 MB, over a line that others use too."""

_STAMP: Final = "complete"
_LAST_WORDS: Final = 600
"""Characters of an installer's output that are shown when it fails."""


class CannotRun(Exception):
    """A peer that cannot be installed, started or measured; the sentence goes into the table."""


def python(product: str) -> Path:
    """The interpreter of the product's environment; made if it is not there."""
    place = _place(product, (LOCKS / f"{product}.lock").read_bytes())
    interpreter = place / "bin" / "python"
    with _alone(place):
        if not (place / _STAMP).exists():
            _tell(f"{product}: making its environment (once)")
            shutil.rmtree(place, ignore_errors=True)
            _run((_uv(), "venv", "--quiet", "--python", sys.executable, str(place)))
            _run(
                (
                    *(_uv(), "pip", "install", "--quiet", "--python", str(interpreter), "--compile-bytecode"),
                    *("--require-hashes", "--only-binary", ":all:", "-r", str(LOCKS / f"{product}.lock")),
                )
            )
            (place / _STAMP).touch()
    return interpreter


def restate_server() -> Path:
    """The server's binary, from its package for this platform; installed without running anybody's scripts."""
    lock = (NPM / "package-lock.json").read_bytes()
    place = _place("restate-server", lock)
    with _alone(place):
        if not (place / _STAMP).exists():
            npm = shutil.which("npm")
            if npm is None:
                raise CannotRun("its server comes from npm, which is not installed")
            _tell("restate: installing its server (once)")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(NPM / name, place)
            _run((npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(place)))
            (place / _STAMP).touch()
    found = list(place.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if len(found) != 1:
        raise CannotRun(f"its npm package has no server for {sys.platform} {platform.machine()}")
    return found[0]


def relock(product: str) -> None:
    """Resolve the newest versions into the lock, for every platform, without the address of an index."""
    _run(
        (
            *(_uv(), "pip", "compile", str(LOCKS / f"{product}.in"), "--universal", "--generate-hashes", "--upgrade"),
            *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"),
            *("--output-file", str(LOCKS / f"{product}.lock")),
        )
    )


def _place(product: str, lock: bytes) -> Path:
    """By content: a new lock or another Python is another environment."""
    told = hashlib.sha256(lock + platform.python_version().encode()).hexdigest()[:12]
    return CACHE / f"{product}-{told}"


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise CannotRun("uv, which makes its environment, is not installed (make setup)")
    return found


def _run(argv: Sequence[str]) -> None:
    try:
        subprocess.run(
            argv, check=True, timeout=INSTALL_WITHIN, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        raise CannotRun(
            f"it could not be installed: {(error.stderr or error.stdout)[-_LAST_WORDS:].strip()}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"it could not be installed within {INSTALL_WITHIN:.0f} s") from error


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Two benches at once: the second waits and finds it made."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    with (CACHE / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
