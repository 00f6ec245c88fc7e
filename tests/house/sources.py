"""The repository as its house rules see it: its files, and its Python modules as syntax trees.

A rule collects `Breach`es and hands them to `none`, whose message says where, why the rule is there and what to do.
A rule with an exception carries it as data beside the reason, so that the exception is argued for where it is made.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    path: str
    """Relative to the repository, with slashes."""
    text: str
    tree: ast.Module


@dataclass(frozen=True, kw_only=True, slots=True)
class Breach:
    path: str
    line: int
    what: str


@cache
def files() -> tuple[str, ...]:
    """Every file that is, or is about to be, in the repository; without what .gitignore names."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(sorted({name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}))


@cache
def modules(*rooms: str) -> tuple[Module, ...]:
    """The Python modules under these folders (or files)."""
    return tuple(_read(name) for name in files() if name.endswith(".py") and _under(name, rooms))


def none(breaches: Iterable[Breach], *, why: str, fix: str) -> None:
    found = [f"  {breach.path}:{breach.line}: {breach.what}" for breach in breaches]
    assert not found, "\n".join(["", *found, f"Why: {why}", f"Fix: {fix}"])


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names and attributes, calls and indexes left out: `a().b[0].c` is `a.b.c`."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}".lstrip(".")
        case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Await(value=inner):
            return dotted(inner)
    return ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call in the tree with what is called, dotted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module or name, dotted, with its line: `from a import b` is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the nodes that are documentation: docstrings and strings that stand alone as a statement."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


@cache
def _read(name: str) -> Module:
    text = (ROOT / name).read_text(encoding="utf-8")
    return Module(path=name, text=text, tree=ast.parse(text, name))


def _under(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}/") for room in rooms)
