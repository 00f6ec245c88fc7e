"""House rules of the files: telling names, sizes that can be read, nothing of the machine they were written on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.house import sources
from tests.house.sources import ROOT, Breach

LINES_AT_MOST = 400
"""Aim under 300; a file beyond 400 does more than its name says."""

SAYS_NOTHING = {"service", "utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}

LONG = {
    "app/store/tables.py": "one list of tables: split, it would hide which refer to which",
}
GENERATED = ("migrations/versions/",)
NOT_TEXT = (".png", ".svg", ".ico", ".woff2", ".gz", ".wasm")

# Written in pieces, so that this file does not break its own rules.
UNFINISHED = re.compile(
    r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b|Not" + "ImplementedError"
)
MACHINE_PATH = re.compile(
    r"(^|[^\w.~/-])/(" + "|".join(["wo" + "rk", "ro" + "ot", "fa" + "rm", "ho" + "me/[a-z]"]) + r")(/|\b)"
)
REGISTRY = re.compile(
    "|".join(["py" + r"pi\.org", "files\\.python" + "hosted", "registry\\.npm" + "js", "deb\\.deb" + "ian"])
)
SECRET = re.compile(r"sk-ant-[a-z0-9]{3,}-[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY")


def test_file_names_say_what_is_in_them() -> None:
    breaches = (
        Breach(path=name, line=1, what="a name that names nothing")
        for name in _texts(".py")
        if PurePosixPath(name).stem in SAYS_NOTHING
    )

    sources.none(
        breaches,
        why="a file whose name fits everything collects everything.",
        fix="name it after the verb it does (submit, claim) or the noun it holds (tables, faults).",
    )


def test_files_stay_readable_in_one_sitting() -> None:
    breaches = (
        Breach(path=name, line=count, what=f"{count} lines")
        for name in _texts(".py")
        if name not in LONG and not name.startswith(GENERATED) and (count := len(_lines(name))) > LINES_AT_MOST
    )

    sources.none(
        breaches,
        why=f"over {LINES_AT_MOST} lines nobody reads to the end before changing the start.",
        fix="split by verb.",
    )


def test_nothing_is_left_for_later() -> None:
    sources.none(
        _matches(UNFINISHED, _texts(".py", ".md", ".yaml", ".yml", ".toml", ".html", ".css", ".js")),
        why="a note to oneself in the code is read by everybody and done by nobody.",
        fix="do it, file an issue, or answer with a clear error that says it is not built.",
    )


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    sources.none(
        _matches(MACHINE_PATH, _texts()),
        why="it works here and nowhere else.",
        fix="a path relative to the repository, tmp_path in tests, or a setting.",
    )


def test_no_file_names_a_package_registry() -> None:
    sources.none(
        _matches(REGISTRY, _texts()),
        why="where packages come from is the installer's configuration (mirrors, closed networks), not the project's.",
        fix="name the package and its version; leave the host out.",
    )


def test_no_file_holds_a_secret() -> None:
    sources.none(_matches(SECRET, _texts()), why="what is committed is published.", fix="read it from the environment.")


def test_text_files_end_with_one_newline_and_no_carriage_returns() -> None:
    breaches = (
        Breach(path=name, line=1, what="no newline at the end, or carriage returns")
        for name in _texts(".py", ".md", ".toml", ".yaml", ".yml")
        if (content := (ROOT / name).read_bytes()) and (not content.endswith(b"\n") or b"\r" in content)
    )

    sources.none(breaches, why="diffs that show what did not change.", fix="make format, or the editor's setting.")


def _texts(*endings: str) -> Iterator[str]:
    for name in sources.files():
        if name.endswith(NOT_TEXT) or (endings and not name.endswith(endings)):
            continue
        yield name


def _lines(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def _matches(pattern: re.Pattern[str], names: Iterator[str]) -> Iterator[Breach]:
    for name in names:
        for number, line in enumerate(_lines(name), start=1):
            if found := pattern.search(line):
                yield Breach(path=name, line=number, what=found[0].strip())
