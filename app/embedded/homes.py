"""Directories for servers that may run as another user: where data lives, where sockets fit, who can get there.

Postgres refuses to run as root, so root runs it as `postgres` or `nobody`; then every directory above its data must
let that user through. We never open up somebody's directories: what cannot be reached goes to a directory of our own
under `/var/tmp`, found again by the path it stands for. Socket paths have a limit of about 104 bytes in every
kernel; longer ones are replaced the same way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.embedded.refusal import CannotStart

SOCKET_PATH_LIMIT: Final = 103
"""Bytes of `sun_path` without its final NUL on the smallest kernel we meet (macOS: 104, Linux: 108)."""

LASTING: Final = Path("/var/tmp")
"""Where data goes that its server cannot reach elsewhere: unlike /tmp it survives a reboot."""


def passable(path: Path, *, uid: int, gid: int) -> bool:
    """Whether that user may walk through every directory down to and including `path`. Access lists are not asked."""
    resolved = path.resolve()
    return all(_allows(part, uid=uid, gid=gid, need=stat.S_IXOTH) for part in (resolved, *resolved.parents))


def readable(path: Path, *, uid: int, gid: int) -> bool:
    """Whether that user may read and execute this file or directory and can get to it."""
    return passable(path.parent, uid=uid, gid=gid) and _allows(
        path.resolve(), uid=uid, gid=gid, need=stat.S_IXOTH | stat.S_IROTH
    )


def _allows(path: Path, *, uid: int, gid: int, need: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
    return found.st_mode >> shift & need == need


def stand_in_path(path: Path, *, under: Path) -> Path:
    """Where the stand-in of `path` is, or would be: the same path gives the same place."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
    return under / f"surefoot-{os.geteuid()}-{name}"


def stand_in(path: Path, *, under: Path, mode: int) -> Path:
    """A directory of ours that stands for `path`. Made if missing."""
    place = stand_in_path(path, under=under)
    own_directory(place, mode=mode)
    return place


def own_directory(path: Path, *, mode: int) -> None:
    """Make the directory with exactly this mode; refuse one that somebody else put there (a shared /tmp)."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise CannotStart(
            f"{path} belongs to somebody else or is not a directory.", fix=f"Remove {path} or choose another --data."
        )
    path.chmod(mode)


def socket_directory(wanted: Path, *, longest_name: str, mode: int) -> Path:
    """`wanted`, or a short stand-in if a socket of that name in it would exceed what the kernel takes."""
    if len(os.fsencode(wanted / longest_name)) <= SOCKET_PATH_LIMIT:
        wanted.mkdir(mode=mode, parents=True, exist_ok=True)
        return wanted
    short = Path(tempfile.gettempdir())
    if len(os.fsencode(short)) > SOCKET_PATH_LIMIT // 2:
        short = Path("/tmp")
    return stand_in(wanted, under=short, mode=mode)


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A data directory that is gone afterwards; a server of another user can reach what it owns inside it."""
    home = Path(tempfile.mkdtemp(prefix="surefoot-"))
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    try:
        yield home
    finally:
        shutil.rmtree(home)
