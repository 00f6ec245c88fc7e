"""What leaves for one MCP call and what came back, as bytes: whether `tools/call` may be written, was, and its reply.

The SDK speaks the protocol; what an outcome hangs on is seen here, below it. Each transport hands what it is about to
write to `Wire.leaving`, which asks `may_send` right before `tools/call` goes, and what it reads to `Wire.arrived`. So
an error of the SDK after the reply came takes nothing away, and a reply that the SDK cannot read is still one.
"""

from __future__ import annotations

import json
import time
from typing import Final

from app.domain import mcp_replies
from app.domain.mcp_replies import Reply
from app.domain.outcomes import JSON
from app.ports.connecting import Permit
from app.ports.world import MaySend

CALL: Final = "tools/call"

LONGEST_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes of one message of a server. A tool that answers with 10 MB has answered; beyond this nobody reads on."""


class TooLong(Exception):
    """A message beyond `LONGEST_MESSAGE`."""


class Wire:
    """One per attempt."""

    def __init__(self, may_send: MaySend) -> None:
        self._permit = Permit(may_send)
        self._id: JSON = None
        self.reply: Reply | None = None
        self.raw: bytes = b""
        """The reply's message as it came."""
        self.received_at: float | None = None
        self.status: int | None = None
        """Of the HTTP answer to `tools/call`."""
        self.too_long = False
        """A message was not read to its end. (The SDK swallows an error inside a stream of events.)"""

    @property
    def sent_at(self) -> float | None:
        """`time.monotonic()` right before the first byte of `tools/call` was given to the socket or pipe."""
        return self._permit.sent_at

    def leaving(self, message: bytes) -> Permit | None:
        """The permit that has to be used for each piece of it; None: it may always go. Raises nothing."""
        try:
            request = json.loads(message)
        except ValueError:
            return None
        if not isinstance(request, dict) or request.get("method") != CALL:
            return None
        self._id = request.get("id")
        return self._permit

    def arrived(self, message: bytes) -> None:
        """A whole message. Only the first reply to the call counts."""
        if self.reply is not None or self._permit.sent_at is None:
            return
        reply = mcp_replies.read_reply(message)
        if reply is not None and (reply.id == self._id or (reply.failed and reply.id is None)):
            self.reply, self.raw, self.received_at = reply, message, time.monotonic()
