"""Definitions that this process has checked and compiled: a client sends the same one with every input.

What a check says depends on the document as it was written (or its source, with its lines and the file's name), on the
tenant's registered tools, and on the settings and the outbound policy of this process, which never change. So a
`Known` is kept under the first two of these and carries a fingerprint of the third; `app/engine/accept.py` compares it
inside the accepting transaction: what was registered since is never missed. Nothing is shared between tenants.

Only what passed is kept: a refusal is made anew each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from app.domain import schemas
from app.domain.definition.catalogue import Catalogue, Checked
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.definition.source import read_text
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.plan import Plan
from app.engine.submission import Submission
from app.errors import DefinitionInvalid, OutboundForbidden
from app.ports import prices
from app.ports.mcp_commands import allowed_commands
from app.ports.outbound import literal_forbidden
from app.store import submissions

if TYPE_CHECKING:
    from app.engine.services import Services

KEPT: Final = 256
"""Definitions held in one process."""
KEPT_BYTES: Final = 4 * 1024 * 1024
"""Of their text, all together: a parsed and compiled definition takes some twenty times its text."""


class Written(NamedTuple):
    """What a definition is known by."""

    tenant_id: UUID
    as_text: bool
    sha256: str
    """Of the source, or of the tree with its keys in the order they were sent: the order has meaning."""
    source_name: str | None
    priced: bool = False
    """With the prices that a budget of the submission needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A definition that passed."""

    document: JSON
    checked: Checked
    plan: Plan
    tools: str
    """Fingerprint of the registered tools it was checked with."""
    forbidden: tuple[Fault, ...]
    """Literal private addresses of its tools, and programs that may not be started. A submission's other faults are
    told before these."""


class Definitions:
    """The definitions seen lately, up to `KEPT` of them and `KEPT_BYTES` of text."""

    def __init__(self) -> None:
        self._known: OrderedDict[Written, tuple[Known, int]] = OrderedDict()
        self._bytes = 0

    def find(self, written: Written) -> Known | None:
        found = self._known.get(written)
        if found is None:
            return None
        self._known.move_to_end(written)
        return found[0]

    def keep(self, written: Written, known: Known, *, size: int) -> None:
        self.forget(written)
        if size > KEPT_BYTES:
            return
        self._known[written] = (known, size)
        self._bytes += size
        while len(self._known) > KEPT or self._bytes > KEPT_BYTES:
            _, (_, gone) = self._known.popitem(last=False)
            self._bytes -= gone

    def forget(self, written: Written) -> None:
        """Its tools have changed."""
        found = self._known.pop(written, None)
        if found is not None:
            self._bytes -= found[1]

    def __len__(self) -> int:
        return len(self._known)


def written_by(submission: Submission) -> tuple[Written, int]:
    """What the submission's definition is known by, and how long its text is."""
    source = submission.definition_text
    as_text = source is not None
    if source is None:
        source = json.dumps(submission.definition, separators=(",", ":"), ensure_ascii=False)
    written = source.encode("utf-8", "surrogatepass")
    sha256 = hashlib.sha256(written).hexdigest()
    priced = submission.budget is not None and submission.budget.priced
    return Written(submission.tenant_id, as_text, sha256, submission.source_name, priced), len(written)


async def known(services: Services, submission: Submission, written: Written, *, size: int) -> Known:
    """As it was checked before, or checked now. Raises DefinitionInvalid with every fault."""
    found = services.definitions.find(written)
    if found is None:
        found = await _check(services, submission)
        services.definitions.keep(written, found, size=size)
        services.plans.keep(submission.tenant_id, found.plan)
    return found


async def _check(services: Services, submission: Submission) -> Known:
    lines: Mapping[str, int] = {}
    document = submission.definition
    if submission.definition_text is not None:
        read = read_text(submission.definition_text)
        if read.faults:
            raise DefinitionInvalid(faults=read.faults)
        document, lines = read.tree, read.lines
    async with services.database.hot("tools", size=2) as connection:
        registered, fingerprint = await submissions.tools(connection, submission.tenant_id)
    priced = submission.budget is not None and submission.budget.priced
    if priced or "budget" in (submission.definition_text or json.dumps(document)):
        await asyncio.to_thread(prices.warm)  # half a second of CPU, once in a process
    checked = check(
        document,
        lines=lines,
        source_name=submission.source_name,
        catalogue=replace(catalogue(services, registered), priced=priced),
    )
    if checked.faults or checked.plan_body is None:
        raise DefinitionInvalid(faults=checked.faults)
    return Known(
        document=document,
        checked=checked,
        plan=compile_plan(checked.plan_body),
        tools=fingerprint,
        forbidden=forbidden(services, document),
    )


def forbidden(services: Services, document: JSON) -> tuple[Fault, ...]:
    """What the operator does not let the document's tools reach or start, as far as that shows without DNS."""
    return (*private_addresses(services, _urls(document)), *_commands(services, document))


def private_addresses(services: Services, urls: Iterator[tuple[str, str]]) -> Iterator[Fault]:
    """One fault for each (pointer, url) that literally is one, where that is not allowed. Names are judged at each
    send, because no DNS happens in a POST."""
    for pointer, url in urls:
        reason = literal_forbidden(url, services.outbound)
        if reason is not None:
            yield Fault(code="outbound_forbidden", pointer=pointer, detail=reason, fix=OutboundForbidden.fix)


def _urls(document: JSON) -> Iterator[tuple[str, str]]:
    for name, tool in (document.get("tools") or {}).items():
        for key in ("http", "mcp"):
            url: str | None = (tool.get(key) or {}).get("url")
            if url is not None and "${{" not in url.split("/")[2]:  # scheme, nothing, host: the check saw to that
                yield f"/definition/tools/{schemas.escape(name)}/{key}/url", url.partition("${{")[0]


def _commands(services: Services, document: JSON) -> Iterator[Fault]:
    """One fault for each MCP server whose program the operator does not let workers start."""
    allowed = allowed_commands(services.settings.mcp_commands)
    for name, tool in (document.get("tools") or {}).items():
        command = (tool.get("mcp") or {}).get("command")
        if command and not {"*", command[0]} & allowed:
            yield Fault(
                code="command_forbidden",
                pointer=f"/definition/tools/{schemas.escape(name)}/mcp/command",
                detail=f"Workers may not start {command[0]!r:.100} as an MCP server.",
                fix="Let the operator name the program in SUREFOOT_MCP_COMMANDS, or use a server with a url.",
            )


def catalogue(services: Services, registered: Mapping[str, JSON]) -> Catalogue:
    settings = services.settings
    return Catalogue(
        tools=registered,
        models=settings.models,
        tool_timeout=settings.tool_timeout,
        model_timeout=settings.model_timeout,
        settle_factor=settings.settle_factor,
        max_parallel=settings.max_parallel,
        deadline=settings.deadline,
        max_turns=settings.max_turns,
        max_tokens=settings.max_tokens,
        steps_limit=settings.steps_limit,
        items_limit=settings.items_limit,
        definition_limit=settings.definition_limit,
        rate_of=prices.rate_of,
    )
