"""A mutant as it is kept: one unified diff with a header that says in words what is taken away and who would notice.

    Removes:   the protection that the patch takes out of the product
    Breaks:    the invariants that no longer hold without it (S1 … K1), and how
    Noticed:   what a user would see on a bad day
    Suspects:  the tests that ought to fail, the quickest first; one a line, as pytest names them
    Chaos:     arguments of `python -m tests.chaos.matrix` under which the matrix must fail (may be left out)

The header ends where the diff begins; `git apply` skips it. A line that begins with a blank goes on with the field
before it. Never: a switch in the product; what is removed is removed in a copy.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "patches"

INVARIANTS: Final = re.compile(r"\b(S[1-9]|L[12]|W[1-4]|H[12]|T1|K1)\b")

_FIELD: Final = re.compile(r"(Removes|Breaks|Noticed|Suspects|Chaos):\s*(.*)")
_DIFF: Final = re.compile(r"^--- a/", re.MULTILINE)
_CHANGED: Final = re.compile(r"^(?:---|\+\+\+) [ab]/(.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    name: str
    path: Path
    removes: str
    breaks: str
    noticed: str
    suspects: tuple[str, ...]
    chaos: tuple[str, ...]
    files: tuple[str, ...]
    """What it changes, relative to the repository."""
    added: tuple[str, ...]
    """Lines that it adds, without the sign."""


class Unreadable(ValueError):
    """The header says something that nobody reads."""


def every(folder: Path = FOLDER) -> list[Mutant]:
    """In the order of their names."""
    return [read(path) for path in sorted(folder.glob("*.patch"))]


def read(path: Path) -> Mutant:
    text = path.read_text()
    begins = _DIFF.search(text)
    header, diff = (text, "") if begins is None else (text[: begins.start()], text[begins.start() :])
    fields = _fields(header, path)
    return Mutant(
        name=path.stem,
        path=path,
        removes=" ".join(fields.get("Removes", ())),
        breaks=" ".join(fields.get("Breaks", ())),
        noticed=" ".join(fields.get("Noticed", ())),
        suspects=tuple(fields.get("Suspects", ())),
        chaos=tuple(shlex.split(" ".join(fields.get("Chaos", ())))),
        files=tuple(dict.fromkeys(_CHANGED.findall(diff))),
        added=tuple(line[1:] for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")),
    )


def _fields(header: str, path: Path) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in header.splitlines():
        field = _FIELD.match(line)
        if field is not None:
            lines = fields.setdefault(field[1], [])
            rest = field[2]
        elif lines is not None and line.startswith((" ", "\t")):
            rest = line
        elif not line.strip():
            continue
        else:
            raise Unreadable(f"{path.name}: {line!r} belongs to no field; the fields are in {Path(__file__).name}.")
        if lines is not None and rest.strip():
            lines.append(rest.strip())
    return fields
