"""MCP tools: `McpTools.send` performs one attempt at a call, `discover` asks a server what tools it has.

The counterpart of `http_tools.py` and `python_tools.py`. One session for each attempt (`mcp_sessions.py`): the server
is started or connected, its list is asked for, and the tool compared with what was frozen; only then `tools/call` is
written, and `may_send` is asked right before. From then on an attempt without a reply is unknown. The reply is taken
from the wire (`mcp_wire.py`): what the SDK thinks of it decides nothing.

It raises nothing but cancellation, and leaves no process behind. Programs are started only if the operator allows them
(`SUREFOOT_MCP_COMMANDS`): what a tenant writes must not decide what runs on a worker.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog
from pydantic import SecretStr

from app.domain import canonical, drifting, mcp_replies
from app.domain.bodies import storable_text
from app.domain.expressions import ExpressionError
from app.domain.mcp_certainty import NOT_TAKEN_ON, Seen, judge
from app.domain.outcomes import JSON, Evidence, Outcome
from app.domain.servers import Definition, McpServer, McpTool, sha256_of
from app.domain.states import AttemptOutcome, EffectClass
from app.ports.addresses import OutboundPolicy, UrlRefused
from app.ports.children import Unstartable
from app.ports.connecting import Connector, NotPermitted, Refused, Resolver, TlsFailed, Unconnected, Unresolved
from app.ports.mcp_wire import LONGEST_MESSAGE, TooLong, Wire
from app.ports.secrets import Secrets
from app.ports.world import MaySend, ToolRequest

if TYPE_CHECKING:
    from app.ports.mcp_sessions import Place

log = structlog.get_logger(__name__)

AT_ONCE: Final = 16
"""Servers started as processes at once: each is an interpreter's start, and a worker has more to do."""
LONGEST_PAUSE: Final = 300.0
"""Seconds between two attempts at a server whose program this worker does not have (as for Python tools)."""
_MESSAGE: Final = 2_500
_TOO_LONG: Final = f"its answer is too long to be read: more than {LONGEST_MESSAGE // 2**20} MB"


class McpTools:
    """Implements `ToolPort`. One per process and event loop.

    `commands`: programs that may be started, `*` for any. `where`: what this process is called in messages.
    """

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        secrets: Mapping[str, SecretStr],
        response_limit: int,
        commands: frozenset[str],
        where: str,
        resolver: Resolver | None = None,
    ) -> None:
        self._connector = Connector(policy, resolver=resolver)
        self._secrets = Secrets(secrets)
        self._limit = response_limit
        self._commands = commands
        self._where = where
        self._free = asyncio.Semaphore(AT_ONCE)

    async def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        mcp = request.tool.mcp
        if mcp is None:
            raise ValueError(f"{request.tool.name} is no MCP tool")
        attempt = _Attempt(tool=request.tool.name, seconds=seconds, number=_number(request), wire=Wire(may_send))
        arguments = dict(request.arguments)
        if request.tool.effect is EffectClass.KEYED:
            if request.key is None or request.tool.key_argument is None:
                detail = "a keyed call without its key would not be safe to repeat"
                return self._outcome(attempt, Seen.UNRENDERABLE, detail)
            arguments[request.tool.key_argument] = request.key

        async def work(place: Place) -> Outcome | None:
            from app.ports import mcp_sessions

            async with mcp_sessions.session(
                place, attempt.wire, connector=self._connector, secrets=self._secrets
            ) as client:
                changed = self._changed(attempt, mcp, await mcp_sessions.listed(client), accepted=request.definition)
                if changed is not None:
                    return changed
                await mcp_sessions.called(client, name=mcp.name, arguments=arguments, meta=_meta(request.headers))
            return None

        limit = min(self._limit, request.tool.max_output or self._limit)
        return await self._perform(attempt, mcp.server, work, finish=lambda: self._replied(attempt, limit=limit))

    async def discover(self, server: McpServer, *, seconds: float, may_send: MaySend) -> Outcome:
        """The evidence is `{"tools": [definition, …]}`."""
        attempt = _Attempt(tool=server.name, seconds=seconds, number=1, wire=Wire(may_send))
        if not may_send():
            return self._outcome(attempt, Seen.FENCED)

        async def work(place: Place) -> Outcome | None:
            from app.ports import mcp_sessions

            async with mcp_sessions.session(
                place, attempt.wire, connector=self._connector, secrets=self._secrets
            ) as client:
                body = self._secrets.mask(canonical.canonical_json({"tools": await mcp_sessions.listed(client)}))
            evidence = Evidence(
                body=body[: self._limit], media_type="application/json", truncated=len(body) > self._limit
            )
            took = time.monotonic() - attempt.began
            return Outcome(certainty=AttemptOutcome.SUCCEEDED, evidence=evidence, sent_after=0.0, received_after=took)

        return await self._perform(attempt, server, work, finish=lambda: None)

    async def aclose(self) -> None:
        """Sessions end with their attempts."""

    # --- one attempt ---

    async def _perform(
        self,
        attempt: _Attempt,
        server: McpServer,
        work: Callable[[Place], Awaitable[Outcome | None]],
        *,
        finish: Callable[[], Outcome | None],
    ) -> Outcome:
        seen, detail = Seen.LOST, "it ended the session without an answer"
        try:
            async with asyncio.timeout(attempt.seconds):
                await asyncio.to_thread(_load)  # seconds the first time, on a loop that others need
                place = self._place(attempt, server)
                got = place if isinstance(place, Outcome) else await self._in_turn(place, work)
                if got is not None:
                    return got
        except TimeoutError:
            seen, detail = Seen.DEADLINE, f"{attempt.seconds:g} s"
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling()):
                raise asyncio.CancelledError from error
            seen, detail = self._observed(error)
        if attempt.wire.too_long and seen is Seen.LOST:
            detail = _TOO_LONG
        replied = finish()
        if replied is not None:
            return replied
        if attempt.wire.sent_at is None:
            seen = Seen.DEADLINE_UNSENT if seen is Seen.DEADLINE else Seen.NO_HANDSHAKE if seen is Seen.LOST else seen
        elif seen not in (Seen.DEADLINE, Seen.LOST):
            seen = Seen.LOST
        return self._outcome(attempt, seen, detail)

    async def _in_turn(self, place: Place, work: Callable[[Place], Awaitable[Outcome | None]]) -> Outcome | None:
        if place.command is None:
            return await work(place)
        async with self._free:
            return await work(place)

    def _place(self, attempt: _Attempt, server: McpServer) -> Place | Outcome:
        from app.ports.mcp_sessions import Place

        command = server.command
        if command is not None and not {"*", command[0]} & self._commands:
            detail = f"{self._where} does not run {storable_text(command[0], limit=100)}"
            return self._outcome(attempt, Seen.COMMAND_FORBIDDEN, detail)
        bound = self._secrets.bindings()
        try:
            environment = {
                name: str(each.render({"secrets": bound})) for name, each in (server.environment or {}).items()
            }
            headers = [(name, str(each.render({"secrets": bound}))) for name, each in (server.headers or {}).items()]
            url = None if server.url is None else str(server.url.render({"secrets": bound}))
        except ExpressionError as error:
            missing = f"the secret `{bound.missing[0]}` is not set" if bound.missing else str(error).rstrip(".")
            return self._outcome(attempt, Seen.UNRENDERABLE, missing)
        return Place(command=command, environment=environment, url=url, headers=headers)

    def _changed(
        self, attempt: _Attempt, mcp: McpTool, listed: list[dict[str, JSON]], *, accepted: str | None
    ) -> Outcome | None:
        """Not sent, because the tool is not what it was when its list was frozen; None if it is."""
        now: Definition | None = next((each for each in listed if each["name"] == mcp.name), None)
        if now is not None and sha256_of(now) in (mcp.sha256, accepted):
            return None
        log.warning("mcp_tool.drifted", tool=attempt.tool, gone=now is None)
        failure = drifting.drifted(attempt.tool, was=mcp.definition, now=now)
        return Outcome(certainty=AttemptOutcome.NOT_SENT, failure=failure)

    def _observed(self, error: BaseException) -> tuple[Seen, str]:
        """What stopped it. A foreign error's text may quote what was sent: only its class is told."""
        from app.ports.mcp_sessions import MCPError, TooManyTools

        leaf = _leaf(error)
        for kind, seen in (
            (NotPermitted, Seen.FENCED),
            (Refused, Seen.FORBIDDEN),
            (UrlRefused, Seen.UNRENDERABLE),
            (Unstartable, Seen.NOT_INSTALLED),
            (TooManyTools, Seen.TOO_MANY),
        ):
            if isinstance(leaf, kind):
                return seen, str(leaf)
        if isinstance(leaf, TooLong):
            return Seen.LOST, _TOO_LONG
        if isinstance(leaf, MCPError):
            said = leaf.error.message.partition("\n")[0]
            return Seen.LOST, storable_text(f"{leaf.error.code}: {said}", limit=300)
        if isinstance(leaf, Unresolved | Unconnected | TlsFailed):
            return Seen.UNREACHED, str(leaf)
        if isinstance(leaf, OSError):
            return Seen.UNREACHED, type(leaf).__name__
        return Seen.LOST, type(leaf).__name__

    # --- what became of it ---

    def _replied(self, attempt: _Attempt, *, limit: int) -> Outcome | None:
        """By the reply, if there is one; or by the status of an HTTP answer that is none."""
        wire, reply = attempt.wire, attempt.wire.reply
        if reply is None:
            status = wire.status
            refused = status is not None and 400 <= status < 500 and status != 408
            return self._outcome(attempt, Seen.REFUSED, f"it answered {status}", status=status) if refused else None
        body = self._secrets.mask(_body(reply, wire.raw))
        evidence = Evidence(body=body[:limit], media_type="application/json", truncated=len(body) > limit)
        if reply.failed:
            seen = Seen.REFUSED if mcp_replies.code(reply) in NOT_TAKEN_ON else Seen.ERROR
            return self._outcome(attempt, seen, mcp_replies.said(reply), evidence=evidence)
        if reply.is_error or reply.asks_back:
            seen = Seen.ASKS_BACK if reply.asks_back else Seen.IS_ERROR
            return self._outcome(attempt, seen, mcp_replies.said(reply), evidence=evidence)
        return self._outcome(attempt, Seen.ANSWERED, evidence=evidence)

    def _outcome(
        self,
        attempt: _Attempt,
        seen: Seen,
        detail: str = "",
        *,
        evidence: Evidence | None = None,
        status: int | None = None,
    ) -> Outcome:
        detail = storable_text(self._secrets.mask_text(detail), limit=_MESSAGE)
        wait = _pause(attempt.number) if seen is Seen.NOT_INSTALLED else None
        verdict = judge(seen, tool=attempt.tool, detail=detail, retry_after=wait)
        wire = attempt.wire
        unsent = verdict.outcome is AttemptOutcome.NOT_SENT
        return Outcome(
            certainty=verdict.outcome,
            failure=verdict.failure,
            evidence=evidence,
            status_code=status,
            sent_after=None if unsent or wire.sent_at is None else wire.sent_at - attempt.began,
            received_after=None if unsent or wire.received_at is None else wire.received_at - attempt.began,
        )


@dataclass(kw_only=True, slots=True)
class _Attempt:
    tool: str
    seconds: float
    number: int
    wire: Wire
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = time.monotonic()


def _load() -> None:
    """The SDK. A worker that calls no MCP tool never loads it."""
    importlib.import_module("app.ports.mcp_sessions")


def _number(request: ToolRequest) -> int:
    attempt = request.headers.get("Surefoot-Attempt", "1")
    return int(attempt) if attempt.isdigit() else 1


def _body(reply: mcp_replies.Reply, raw: bytes) -> bytes:
    """The result as JSON; of one that nobody can read the message as it came."""
    if not reply.readable:
        return raw
    return json.dumps(reply.error if reply.failed else reply.result, separators=(",", ":")).encode()


def _meta(headers: Mapping[str, str]) -> dict[str, str]:
    """Which call this is, in the protocol's own place for it: `surefoot/workflow`, `traceparent`."""
    ours = "Surefoot-"
    return {
        f"surefoot/{name.removeprefix(ours).lower()}" if name.startswith(ours) else name: value
        for name, value in headers.items()
    }


def _pause(number: int) -> timedelta:
    return timedelta(seconds=min(2.0 ** min(number, 16), LONGEST_PAUSE))


def _leaf(error: BaseException) -> BaseException:
    """What happened, out of the groups that task groups wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        inner = [each for each in error.exceptions if not isinstance(each, asyncio.CancelledError)]
        error = inner[0] if inner else error.exceptions[0]
    return error
