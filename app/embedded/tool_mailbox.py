"""The demo's mailbox: what was sent, and a search that tells whether it was.

It keeps the `Surefoot-Workflow` header of each mail, so that a search can leave out what others have sent
(`mine=true`): a mail like this one from last week must not pass for the one whose outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.embedded.tool_ledger import Entry

_SOUGHT_BY: Final = ("to", "subject", "body")


class Mailbox:
    def __init__(self) -> None:
        self._sent: list[dict[str, Any]] = []

    def outcome(self, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        return {"message_id": f"msg_{len(self._sent) + 1}", "to": arguments["to"]}, True

    def apply(self, entry: Entry) -> None:
        self._sent.append({"body": "", **entry["arguments"], **entry["result"], "workflow": entry.get("workflow")})

    def search(self, arguments: Mapping[str, Any], *, workflow: str | None) -> dict[str, Any]:
        """What was sent `to` whom with which `subject` and `body`, as far as they are given; oldest first."""
        sought = {name: arguments[name] for name in _SOUGHT_BY if name in arguments}
        if arguments.get("mine") == "true":
            sought["workflow"] = workflow
        found = [mail for mail in self._sent if all(mail.get(name) == value for name, value in sought.items())]
        return {"messages": [{name: mail[name] for name in ("message_id", *_SOUGHT_BY)} for mail in found]}
