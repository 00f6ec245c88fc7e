"""What the demo tools know: calendar, mailbox, payments, reports, and the keys that were used.

All of it follows from the ledger's executed entries: `outcome` says what an effect will come to, `apply` makes it so,
and a restart applies every entry again. A key that was used keeps its answer for ever, also when what it made was
undone since: as real tools do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.embedded.tool_calendar import Calendar
from app.embedded.tool_ledger import Entry
from app.embedded.tool_mailbox import Mailbox
from app.embedded.tool_payments import Payments
from app.embedded.tool_reports import Reports
from app.embedded.tool_routes import KEYED


class Books:
    def __init__(self, entries: Iterable[Entry]) -> None:
        self._calendar, self._mailbox, self._payments, self.reports = Calendar(), Mailbox(), Payments(), Reports()
        self._by_key: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            self.apply(entry)

    def answered(self, tool: str, key: str | None) -> Entry | None:
        """The entry that a tool's key was first used for."""
        return None if key is None else self._by_key.get((tool, key))

    def outcome(self, tool: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        """The result of an effect that is about to take place, and whether it changes anything. Raises `Refused`."""
        match tool.partition(".")[0]:
            case "calendar":
                return self._calendar.outcome(tool, arguments)
            case "email":
                return self._mailbox.outcome(arguments)
            case "payments":
                return self._payments.outcome(tool, arguments)
        return self.reports.outcome(), True

    def apply(self, entry: Entry) -> None:
        if not entry["executed"] or "result" not in entry:
            return
        match entry["tool"].partition(".")[0]:
            case "calendar":
                self._calendar.apply(entry)
            case "email":
                self._mailbox.apply(entry)
            case "payments":
                self._payments.apply(entry)
            case "reports":
                self.reports.apply(entry)
        if entry["key"] is not None and entry["tool"] in KEYED:
            self._by_key[entry["tool"], entry["key"]] = entry

    def read(self, tool: str, arguments: Mapping[str, Any], *, workflow: str | None, today: str) -> Any:
        """What a read_only tool answers. Raises `Refused`."""
        match tool.partition(".")[0]:
            case "calendar":
                return self._calendar.read(tool, arguments, today=today)
            case "email":
                return self._mailbox.search(arguments, workflow=workflow)
            case "payments":
                return self._payments.read(tool, arguments)
        return self.reports.find(arguments["key"])
