"""The functions behind Python tools: found as entry points, imported once, described so that they can be called.

    Functions.known(tool)          the function, if this process has it already
    await Functions.load(tool)     found and imported, in a thread; raises `NotLoaded`
    installed()                    every entry point of the group in this environment, without importing it

What may be called is what an *installed distribution* declares in the group `surefoot.tools`, looked up by the
distribution's name and the entry point's name: nothing that a definition says is ever imported as a path. Importing
runs the package's code; it is done in a thread of its own, so that a slow import stops nobody's heartbeat.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, Final

import structlog

from app.domain.bodies import storable_text
from app.domain.definition.entry_points import CONTEXT, normalised
from app.domain.function_certainty import Seen
from app.domain.outcomes import JSON
from app.domain.plan import PythonTool
from app.ports.function_threads import FunctionThreads
from surefoot import ENTRY_POINTS, ToolContext

log = structlog.get_logger(__name__)

REMEMBERED: Final = 5.0
"""Seconds: a thousand calls of a missing tool are one look-up."""

_IMPORTS: Final = 4
"""Imports at once: one that hangs must not keep the others from being made."""

_DETAIL: Final = 300
"""Letters of a foreign error in a message; `surefoot tool installed` shows all of it."""

_NAMED: Final = 12


class NotLoaded(Exception):
    """This process cannot call it. The message is a fragment that says why and names this process."""

    def __init__(self, seen: Seen, detail: str) -> None:
        super().__init__(detail)
        self.seen = seen
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    call: Callable[..., Any]
    is_async: bool
    takes_context: bool
    accepts: frozenset[str] | None
    """Names of its parameters; None: any."""
    requires: frozenset[str]
    """Those without a default, `context` left out."""

    def unfit(self, arguments: Mapping[str, JSON]) -> str | None:
        """Why it cannot be called with these arguments, as a fragment; None if it can."""
        missing = self.requires - arguments.keys()
        if missing:
            return f"its function requires {_names(missing)}, and the arguments have {_names(arguments.keys())}"
        if self.accepts is not None and not self.accepts >= arguments.keys():
            return f"its function has no parameter {_names(arguments.keys() - self.accepts)}"
        if self.takes_context and CONTEXT in arguments:
            return "`context` is the parameter that tells the function which call this is, and among the arguments"
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """An entry point as its distribution declares it."""

    tool: PythonTool
    version: str
    value: str
    """Where the function is: `module:name`."""


class Functions:
    """One per process and event loop. `where`: what this process is called in messages; `remembered`: seconds for
    which a failed look-up is not tried again."""

    def __init__(self, *, where: str, remembered: float = REMEMBERED) -> None:
        self._where = where
        self._remembered = remembered
        self._known: dict[PythonTool, Function] = {}
        self._refused: dict[PythonTool, tuple[float, NotLoaded]] = {}
        self._loading: dict[PythonTool, asyncio.Task[Function]] = {}
        self._threads = FunctionThreads(limit=_IMPORTS)

    def known(self, tool: PythonTool) -> Function | None:
        return self._known.get(tool)

    async def load(self, tool: PythonTool) -> Function:
        """Raises `NotLoaded`. Cancelling it does not cancel the import: the next that asks finds it further."""
        at, refused = self._refused.get(tool, (0.0, None))
        if refused is not None and time.monotonic() - at < self._remembered:
            raise NotLoaded(refused.seen, refused.detail)
        loading = self._loading.get(tool)
        if loading is None:
            loading = self._loading[tool] = asyncio.create_task(self._load(tool, again=refused is not None))
            loading.add_done_callback(partial(self._loaded, tool))
        return await asyncio.shield(loading)

    async def _load(self, tool: PythonTool, *, again: bool) -> Function:
        await self._threads.reserve()
        ended = await self._threads.run(partial(found, tool, where=self._where, again=again), name=f"import of {tool}")
        if ended.raised is not None:
            raise ended.raised
        function: Function = ended.value
        return function

    def _loaded(self, tool: PythonTool, loading: asyncio.Task[Function]) -> None:
        self._loading.pop(tool, None)
        if loading.cancelled():
            return
        error = loading.exception()
        if error is None:
            self._known[tool] = loading.result()
            self._refused.pop(tool, None)
        elif isinstance(error, NotLoaded):
            self._refused[tool] = (time.monotonic(), error)
            log.error("python_tool.not_loaded", tool=str(tool), why=error.detail)


def found(tool: PythonTool, *, where: str, again: bool = False) -> Function:
    """Look it up, import it, describe it. Blocks; raises `NotLoaded`."""
    if again:
        importlib.invalidate_caches()  # it may have been installed since
    point = _declared(tool, where=where)
    try:
        target = point.load()
    except BaseException as error:  # a module may do anything while it is imported, sys.exit included
        raise NotLoaded(Seen.NOT_LOADED, f"importing {point.value} on {where} raised {_said(error)}") from error
    try:
        return described(target)
    except TypeError as error:
        raise NotLoaded(Seen.NOT_LOADED, f"{point.value} on {where} {error}") from error


def _declared(tool: PythonTool, *, where: str) -> metadata.EntryPoint:
    try:
        distribution = _distribution(tool.distribution)
        declared = {point.name: point for point in distribution.entry_points if point.group == ENTRY_POINTS}
    except metadata.PackageNotFoundError:
        raise NotLoaded(Seen.NOT_INSTALLED, f"{where} has no distribution `{tool.distribution}`") from None
    except Exception as error:  # its metadata is broken in a way of its own
        detail = f"reading what `{tool.distribution}` on {where} declares raised {_said(error)}"
        raise NotLoaded(Seen.NOT_LOADED, detail) from error
    if tool.name in declared:
        return declared[tool.name]
    has = f"it has {_names(declared)}" if declared else "it has none"
    detail = f"`{tool.distribution}` {distribution.version} on {where} declares no `{tool.name}` in {ENTRY_POINTS}"
    raise NotLoaded(Seen.NOT_INSTALLED, f"{detail}; {has}")


def _distribution(name: str) -> metadata.Distribution:
    """Raises `PackageNotFoundError`. The quick look-up goes by the folder's name, which not every installer spells as
    it should; what a distribution calls itself decides."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        for distribution in metadata.distributions():
            if _name(distribution) == name:
                return distribution
        raise


def _name(distribution: metadata.Distribution) -> str:
    """Empty for what a broken uninstallation leaves."""
    return normalised(distribution.metadata["Name"]) if "Name" in distribution.metadata else ""


def described(target: object) -> Function:
    """How it is called. Raises `TypeError` with a fragment that says why it cannot be a tool."""
    if not callable(target) or inspect.isclass(target):
        raise TypeError("is no function")
    inner = getattr(target, "__call__", None)  # noqa: B004 - an instance whose class is callable
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (target, inner)):
        raise TypeError("is a generator: a tool returns its result")
    is_async = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(inner)
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # built in, and does not say
        return Function(call=target, is_async=is_async, takes_context=False, accepts=None, requires=frozenset())
    needed = [each for each in parameters if each.default is each.empty and each.kind not in _VARIADIC]
    positional = [each.name for each in needed if each.kind is inspect.Parameter.POSITIONAL_ONLY]
    if positional:
        raise TypeError(f"has positional-only parameters ({_names(positional)}): arguments are given by name")
    named = frozenset(each.name for each in parameters if each.kind in _BY_NAME)
    anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return Function(
        call=target,
        is_async=is_async,
        takes_context=CONTEXT in named,
        accepts=None if anything else named,
        requires=frozenset(each.name for each in needed) - {CONTEXT},
    )


def completed(
    function: Function, arguments: dict[str, JSON], *, keyed: bool, key_argument: str | None, context: ToolContext
) -> tuple[Seen, str] | None:
    """Add the key and the context to the arguments; or why the function is not called with them."""
    if keyed:
        if context.key is None or (key_argument is None and not function.takes_context):
            return Seen.KEY_LOST, "its key does not reach the function, so a keyed call would not be safe to repeat"
        if key_argument is not None:
            arguments[key_argument] = context.key
    unfit = function.unfit(arguments)
    if unfit is not None:
        return Seen.ARGUMENTS_UNFIT, unfit
    if function.takes_context:
        arguments[CONTEXT] = context
    return None


def installed() -> Iterator[Installed]:
    """Sorted by spelling. What is declared, without importing it."""
    entries = [
        Installed(
            tool=PythonTool(distribution=_name(distribution), name=point.name),
            version=distribution.version,
            value=point.value,
        )
        for distribution in metadata.distributions()
        if _name(distribution)
        for point in distribution.entry_points
        if point.group == ENTRY_POINTS
    ]
    first: dict[PythonTool, Installed] = {}
    for entry in entries:  # the path's first wins, as it does when it is looked up
        first.setdefault(entry.tool, entry)
    yield from sorted(first.values(), key=lambda entry: str(entry.tool))


def _said(error: BaseException) -> str:
    return storable_text(f"{type(error).__name__}: {error}", limit=_DETAIL)


_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _names(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return storable_text(", ".join(f"`{name[:60]}`" for name in every[:_NAMED]), limit=_DETAIL) + more or "none"
