"""What the demo tools know: events, keys and how many mails. All of it follows from the ledger's executed entries.

`outcome` says what an effect will come to, `apply` makes it so; a restart applies every entry again. A key that was
used keeps its answer for ever, also when its event was deleted since: as real tools do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from app.embedded.tool_ledger import Entry

FIRST_EVENT: Final = 8841
"""The calendar is not new: its events are numbered from here."""

_SATURDAY: Final = 5


class Books:
    def __init__(self, entries: Iterable[Entry]) -> None:
        self._events: dict[str, dict[str, Any]] = {}
        self._by_key: dict[str, Entry] = {}
        self._created = self._sent = 0
        for entry in entries:
            self.apply(entry)

    def answered(self, key: str | None) -> Entry | None:
        """The entry that a key was first used for."""
        return None if key is None else self._by_key.get(key)

    def outcome(self, tool: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        """The result of an effect that is about to take place, and whether it changes anything."""
        if tool == "calendar.create_event":
            made = {"event_id": f"evt_{FIRST_EVENT + self._created}", "title": arguments["title"]}
            return made | _times(arguments), True
        if tool == "calendar.delete_event":
            return {"event_id": arguments["event_id"], "deleted": True}, arguments["event_id"] in self._events
        return {"message_id": f"msg_{self._sent + 1}", "to": arguments["to"]}, True

    def apply(self, entry: Entry) -> None:
        if not entry["executed"] or "result" not in entry:
            return
        match entry["tool"]:
            case "calendar.create_event":
                self._created += 1
                self._events[entry["result"]["event_id"]] = {**entry["arguments"], **entry["result"]}
                if entry["key"] is not None:
                    self._by_key[entry["key"]] = entry
            case "calendar.delete_event":
                self._events.pop(entry["arguments"]["event_id"], None)
            case "email.send":
                self._sent += 1

    def events(self) -> dict[str, Any]:
        return {"data": list(self._events.values())}

    def free_busy(self, email: str, *, today: str) -> dict[str, Any]:
        """Two busy hours that follow from the address, and whatever the calendar holds for that person."""
        day = _working_day_after(date.fromisoformat(today[:10])).isoformat()
        draw = sha256(email.lower().encode("utf-8", "replace")).digest()
        busy = [_hour(day, 9 + draw[0] % 3), _hour(day, 13 + draw[1] % 3)]
        busy += [
            {"start": event["start"], "end": event["end"]}
            for event in self._events.values()
            if email in event["attendees"] and str(event["start"]).startswith(day)
        ]
        return {"email": email, "busy": sorted(busy, key=lambda block: str(block["start"]))}


def _working_day_after(today: date) -> date:
    day = today + timedelta(days=1)
    return day + timedelta(days=7 - day.weekday()) if day.weekday() >= _SATURDAY else day


def _hour(day: str, hour: int) -> dict[str, str]:
    return {"start": f"{day}T{hour:02d}:00:00Z", "end": f"{day}T{hour + 1:02d}:00:00Z"}


def _times(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Start and end of an event: as long as its `minutes` say, else half an hour."""
    start = str(arguments["start"])
    try:
        minutes = float(arguments.get("minutes", 30))
        end = (datetime.fromisoformat(start) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    except (ValueError, TypeError, OverflowError):
        end = start
    return {"start": start, "end": end}
