"""Packages of Python tools for tests: a module and its `dist-info` in a folder, as an installer would leave them.

`write` makes the folder, `on_path` lets this process see it for a while; another process sees it by its PYTHONPATH.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

_numbers = itertools.count(1)


def module_name() -> str:
    """One that no other test has imported."""
    return f"acme_module_{next(_numbers)}"


def write(
    folder: Path,
    source: str,
    names: Iterable[str],
    *,
    distribution: str = "Acme_Tools",
    module: str | None = None,
    version: str = "1.2",
) -> Path:
    """`names`: functions of the source, declared under their own names; the folder is returned."""
    module = module or module_name()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(dedent(source))
    info = folder / f"{distribution}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    declared = "".join(f"{name} = {module}:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[console_scripts]\nacme = {module}:main\n\n[surefoot.tools]\n{declared}")
    return folder


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in {name for name in sys.modules if name.startswith("acme_module_")} - before:
            del sys.modules[name]
