"""A copy of the tree to remove things from, with a Python of its own that imports the copy and nothing of the original.

    Laboratory(root)       reads the tree once: whatever is edited meanwhile, every mutant is one of the same tree
    copy(name, patch)      a fresh copy, patched; checked by asking its Python where `app` comes from

The copy's `.venv` is a new, empty environment whose only .pth file names the copy first and then the installed packages
of the environment we run in, whose own .pth files are not read that way: the original tree is on no path. So it does
not matter in which folder or with which environment variables a test starts a process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import site
import subprocess
import sysconfig
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_WHERE: Final = "import app, worker, surefoot; print(app.__file__, worker.__file__, surefoot.__file__, sep='\\n')"


class WrongTree(RuntimeError):
    """The copy's Python imports the product from elsewhere: nothing that it says would be about the copy."""


class DoesNotApply(RuntimeError):
    """The patch does not fit the tree any more."""


class Laboratory:
    def __init__(self, *, root: Path = ROOT) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="surefoot-mutants-"))
        self._pristine = self.folder / "pristine"
        # With its bytecode, which fits as long as the source has its time and size; what is patched has another time.
        shutil.copytree(root, self._pristine, ignore=shutil.ignore_patterns(".*", "node_modules"))

    async def copy(self, name: str, patch: Path | None) -> Path:
        """Raises DoesNotApply, WrongTree."""
        return await asyncio.to_thread(self._copy, name, patch)

    def _copy(self, name: str, patch: Path | None) -> Path:
        place = self.folder / name
        shutil.copytree(self._pristine, place)
        _environment(place)
        if patch is not None:
            apply(patch, place)
        imported = subprocess.run(
            [python_of(place), "-c", _WHERE], cwd="/", capture_output=True, text=True, check=False, timeout=60
        )
        strange = [path for path in imported.stdout.split() if not Path(path).resolve().is_relative_to(place.resolve())]
        if imported.returncode or strange:
            raise WrongTree(f"{name}: {strange or imported.stderr[-500:]}")
        return place

    def remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def apply(patch: Path, place: Path, *, check_only: bool = False) -> None:
    """Raises DoesNotApply with what git says. Lines may have moved; what stands around them may not have changed."""
    command = ["git", "apply", "--whitespace=nowarn", *(["--check"] if check_only else []), str(patch)]
    # Outside of any repository, else git applies it to the paths of that one.
    applied = subprocess.run(
        command, cwd=place, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(place.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if applied.returncode:
        raise DoesNotApply(f"{patch.name} does not apply: {applied.stderr.strip()}")


def python_of(place: Path) -> str:
    return str(place / ".venv" / "bin" / "python")


def _environment(place: Path) -> None:
    home = place / ".venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(home)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    paths = [*_first(place), *site.getsitepackages()]
    (packages / "laboratory.pth").write_text("\n".join(paths) + "\n")


def _first(place: Path) -> list[str]:
    """Where the product's packages are in the copy, as an editable install would find them."""
    declared = tomllib.loads((place / "pyproject.toml").read_text())
    folders = declared["tool"]["hatch"]["build"]["targets"]["wheel"]["dev-mode-dirs"]
    return [str((place / folder).resolve()) for folder in folders]
