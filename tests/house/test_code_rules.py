"""House rules of the code: one boundary, one clock, a pure domain, nothing swallowed, nothing left open."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from app import errors
from app.settings import Settings
from tests.house import sources
from tests.house.sources import Breach, Module

CODE = ("app", "worker")

COMMITS = {
    "app/engine/transactions.py": "the one boundary",
    "app/store/migrating.py": "runs Alembic, which commits each migration",
}

CLOCKS = {
    "app/cli/deciding.py": 'turns a person\'s "2h ago" into an instant; what it means is shown by --dry-run',
    "app/cli/doctor.py": "compares this machine's clock with the database's, and decides nothing by it",
    "app/embedded/wire.py": "the demo servers are the world outside; their ledgers carry the world's time",
}
"""Files that may ask this machine for the time of day, each with its reason."""

WALL_CLOCK = re.compile(r"(^|\.)(datetime\.(now|utcnow|today)|date\.today|time\.time(_ns)?)$")

IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime.datetime.now", "fcntl", "glob", "http", "io", "logging",
    "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid.uuid1", "uuid.uuid4", "uuid.uuid6",
    "uuid.uuid7",
}  # fmt: skip
"""What the standard library has of clocks, chance, threads and the outside."""

DOMAIN_LIBRARIES = {
    "pydantic": "documents come in as bytes",
    "cel_expr_python": "expressions",
    "jsonschema_rs": "JSON Schema",
    "yaml": "definitions are YAML",
}

WORLD_VERBS = {"send", "ring", "perform"}

LOG_VERBS = {"debug", "info", "warning", "error", "critical", "exception", "msg"}

PASSED_ON: dict[str, str] = {}
"""Functions that may pass on `**anything`, as path::name, each with its reason."""

ASSIGNED = {
    "app/cli/main.py::sys.stdout": "after a broken pipe, what Python flushes at exit must not complain again",
}
"""Attributes of other rooms that may be assigned, as path::name, each with its reason."""

WORKING_COPIES = {
    "app/domain/accounts.py::Account": "a row loaded under the lock, for one decision to work on",
    "app/domain/aggregate.py": "rows loaded under the lock, for one decision to work on",
    "app/domain/changes.py::Transition": "built by the draft, then only read",
    "app/domain/definition": "what is gathered while one document is checked, in one pass",
    "app/domain/reads.py::Reads": "collected fact by fact",
}
"""Dataclasses of the domain that are not frozen, as folder, path or path::class, each with its reason."""


def test_nobody_commits_outside_the_transaction_helper() -> None:
    def breaches() -> Iterator[Breach]:
        for module in _outside(COMMITS):
            prose = sources.docstrings(module.tree)
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Attribute) and node.attr == "commit":
                    yield _at(module, node, "`.commit`")
                elif _is_statement(node, "COMMIT") and id(node) not in prose:
                    yield _at(module, node, "COMMIT as a statement")

    sources.none(
        breaches(),
        why="a state and its events, dues and deliveries are one transaction; a second boundary tears them apart.",
        fix="open `async with services.transaction()` in an engine verb and let it end.",
    )


def test_nobody_reads_the_wall_clock_but_the_named_places() -> None:
    breaches = (
        _at(module, call, f"`{name}()`")
        for module in _outside(CLOCKS)
        for name, call in sources.calls(module.tree)
        if WALL_CLOCK.search(name)
    )

    sources.none(
        breaches,
        why="clocks of machines differ and jump; leases, timers and dues are judged by the database's clock.",
        fix="take `now` as an argument (the transaction reads clock_timestamp()), or time.monotonic() for durations.",
    )


def test_domain_imports_neither_the_outside_nor_a_library_without_need() -> None:
    def breaches() -> Iterator[Breach]:
        for module in sources.modules("app/domain"):
            for name, line in sources.imports(module.tree):
                if not _may_be_imported_by_the_domain(name):
                    yield Breach(path=module.path, line=line, what=f"imports {name}")

    sources.none(
        breaches(),
        why="the same state and facts must give the same decision, in a test, a replay and every process.",
        fix="take time, identity, randomness and what was read as arguments; ids from `ids.derived`.",
    )


def test_domain_dataclasses_are_frozen_and_named() -> None:
    def breaches() -> Iterator[Breach]:
        for module in sources.modules("app/domain"):
            for node in ast.walk(module.tree):
                if not isinstance(node, ast.ClassDef):
                    continue
                for decorator in node.decorator_list:
                    if not sources.dotted(decorator).endswith("dataclass"):
                        continue
                    place = f"{module.path}::{node.name}"
                    excused = any(
                        place == known or place.startswith((f"{known}/", f"{known}::")) for known in WORKING_COPIES
                    )
                    missing = ({"kw_only"} if excused else {"kw_only", "frozen"}) - _switched_on(decorator)
                    if missing:
                        yield _at(module, node, f"class {node.name} without {', '.join(sorted(missing))}")

    sources.none(
        breaches(),
        why="a decision that can be changed after it was made, or built by position, is a decision nobody can trust.",
        fix="@dataclass(frozen=True, kw_only=True, slots=True); change with dataclasses.replace.",
    )


def test_nobody_talks_to_the_world_inside_a_transaction() -> None:
    def breaches() -> Iterator[Breach]:
        for module in sources.modules(*CODE):
            for block in ast.walk(module.tree):
                if isinstance(block, ast.AsyncWith) and any(_opens_transaction(item) for item in block.items):
                    for statement in block.body:
                        for name, call in sources.calls(statement):
                            if name.rpartition(".")[2] in WORLD_VERBS:
                                yield _at(module, call, f"`{name}()` in the transaction of line {block.lineno}")

    sources.none(
        breaches(),
        why="a transaction over the world holds locks for as long as a stranger likes, and cannot undo what was sent.",
        fix="claim in one transaction, perform without one, record in another; ring after the block.",
    )


def test_nobody_swallows_an_exception() -> None:
    breaches = (
        _at(module, handler, "an except block that does nothing")
        for module in sources.modules("app", "worker", "tests", "migrations", "docs", "bench")
        for handler in ast.walk(module.tree)
        if isinstance(handler, ast.ExceptHandler) and all(_does_nothing(statement) for statement in handler.body)
    )

    sources.none(
        breaches,
        why="what is swallowed is found again weeks later, somewhere else.",
        fix="handle it, log it with what it means, or let it rise; if ignoring is right, continue and say why.",
    )


def test_log_calls_name_an_event_and_fields() -> None:
    def breaches() -> Iterator[Breach]:
        for module in sources.modules(*CODE):
            for name, call in sources.calls(module.tree):
                owner, _, verb = name.rpartition(".")
                is_log = verb in LOG_VERBS and "log" in owner.rpartition(".")[2].lower()
                if is_log and call.args and not isinstance(call.args[0], ast.Constant):
                    yield _at(module, call, f"`{name}` with a composed message")

    sources.none(
        breaches(),
        why="an event name can be searched, counted and alerted on; a sentence with values in it cannot.",
        fix='log.info("call_claimed", call=…, attempt=…)',
    )


def test_no_function_passes_on_unnamed_arguments() -> None:
    breaches = (
        _at(module, node, f"def {node.name}(**{node.args.kwarg.arg})")
        for module in sources.modules(*CODE)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and f"{module.path}::{node.name}" not in PASSED_ON
        and node.args.kwarg is not None
        and _passes_on(node, node.args.kwarg.arg)
    )

    sources.none(
        breaches,
        why="**kwargs hides from the reader and from mypy what a function takes.",
        fix="name the arguments; if a library calls it with more, add it to PASSED_ON with the reason.",
    )


def test_nobody_replaces_code_of_others_at_run_time() -> None:
    def breaches() -> Iterator[Breach]:
        for module in sources.modules(*CODE):
            imported = {name.rpartition(".")[2] for name, _ in sources.imports(module.tree)}
            for node in ast.walk(module.tree):
                for target in node.targets if isinstance(node, ast.Assign) else ():
                    name = sources.dotted(target)
                    foreign = isinstance(target, ast.Attribute) and name.partition(".")[0] in imported
                    if foreign and f"{module.path}::{name}" not in ASSIGNED:
                        yield _at(module, target, f"assigns {name}")

    sources.none(
        breaches(),
        why="whoever reads the library's source no longer reads what runs.",
        fix="subclass, pass an argument, or use the hook the library has.",
    )


def test_every_module_says_what_it_is() -> None:
    breaches = (
        Breach(path=module.path, line=1, what="no module docstring")
        for module in sources.modules("app", "worker", "migrations", "docs", "bench", "tests")
        if module.text.strip() and ast.get_docstring(module.tree) is None
    )

    sources.none(
        breaches,
        why="the docstring is the map: a newcomer decides by it whether to read on.",
        fix="say what it is, what it promises, what it never does.",
    )


def test_every_setting_has_a_sentence_and_a_unit() -> None:
    wrong = [
        name
        for name, knob in Settings.model_fields.items()
        if not (knob.description or "").rstrip().endswith((".", ")"))
        or (knob.annotation is float and not re.search(r"\bseconds\b|\bmultiple\b|\bshare\b", knob.description or ""))
    ]

    assert not wrong, f"Settings without a sentence, or floats without a unit (seconds, multiple, share): {wrong}"


def test_every_error_stands_in_the_printed_tree_with_its_status() -> None:
    tree = errors.__doc__ or ""

    missing = [
        kind.__name__
        for kind in _below(errors.SurefootError)
        if f"{kind.__name__} {getattr(kind, 'status', '')}".strip() not in tree
    ]

    assert not missing, f"Add to the tree at the top of app/errors.py, with the HTTP status: {missing}"


def test_every_error_has_its_own_code() -> None:
    codes = [vars(kind)["code"] for kind in _below(errors.SurefootError) if "code" in vars(kind)]

    twice = sorted({code for code in codes if codes.count(code) > 1})

    assert not twice, f"Clients tell errors apart by code; these stand for two: {twice}"


def test_no_exception_outlives_its_reason() -> None:
    excused = [place for rule in (COMMITS, CLOCKS, PASSED_ON, ASSIGNED, WORKING_COPIES) for place in rule]

    stale = []
    for place in excused:
        path, _, name = place.partition("::")
        texts = [module.text for module in sources.modules(path)]
        if not texts or name.rpartition(".")[2] not in texts[0]:
            stale.append(place)

    assert not stale, (
        f"Nothing needs these exceptions any more; remove them from tests/house/test_code_rules.py: {stale}"
    )


def _outside(allowed: dict[str, str]) -> Iterator[Module]:
    return (module for module in sources.modules(*CODE) if module.path not in allowed)


def _at(module: Module, node: ast.stmt | ast.expr | ast.ExceptHandler, what: str) -> Breach:
    return Breach(path=module.path, line=node.lineno, what=what)


def _may_be_imported_by_the_domain(name: str) -> bool:
    if any(name == impure or name.startswith(f"{impure}.") for impure in IMPURE):
        return False
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or top in DOMAIN_LIBRARIES or f"{name}.".startswith("app.domain.")


def _is_statement(node: ast.AST, word: str) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.strip().rstrip(";").upper() == word
    )


def _passes_on(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    return any(
        keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == name
        for _, call in sources.calls(function)
        for keyword in call.keywords
    )


def _switched_on(decorator: ast.expr) -> set[str]:
    given = decorator.keywords if isinstance(decorator, ast.Call) else []
    return {word.arg or "" for word in given if isinstance(word.value, ast.Constant) and word.value.value is True}


def _opens_transaction(item: ast.withitem) -> bool:
    return sources.dotted(item.context_expr).rpartition(".")[2] == "transaction"


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _below(kind: type[errors.SurefootError]) -> Iterator[type[errors.SurefootError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)
