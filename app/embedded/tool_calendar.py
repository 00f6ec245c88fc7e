"""The demo's calendar: events, and when people are busy. Its state follows from the ledger's executed entries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from app.embedded.tool_ledger import Entry

FIRST_EVENT: Final = 8841
"""The calendar is not new: its events are numbered from here."""

_SATURDAY: Final = 5
_SOUGHT_BY: Final = ("title", "start", "key")


class Calendar:
    def __init__(self) -> None:
        self._events: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str | None] = {}
        self._created = 0

    def outcome(self, tool: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        """The result of an effect that is about to take place, and whether it changes anything."""
        if tool == "calendar.create_event":
            made = {"event_id": f"evt_{FIRST_EVENT + self._created}", "title": arguments["title"]}
            return made | _times(arguments), True
        return {"event_id": arguments["event_id"], "deleted": True}, arguments["event_id"] in self._events

    def apply(self, entry: Entry) -> None:
        if entry["tool"] == "calendar.create_event":
            self._created += 1
            event_id = entry["result"]["event_id"]
            self._events[event_id] = {**entry["arguments"], **entry["result"]}
            self._keys[event_id] = entry["key"]
        else:
            self._events.pop(entry["arguments"]["event_id"], None)

    def read(self, tool: str, arguments: Mapping[str, Any], *, today: str) -> Any:
        match tool:
            case "calendar.free_busy":
                return self._free_busy(arguments["email"], today=today)
            case "calendar.events":
                return {"data": list(self._events.values())}
        return {"events": [event for event in self._events.values() if self._fits(event, arguments)]}

    def _fits(self, event: Mapping[str, Any], sought: Mapping[str, Any]) -> bool:
        known = {**event, "key": self._keys[event["event_id"]]}
        return all(known[name] == sought[name] for name in _SOUGHT_BY if sought.get(name))

    def _free_busy(self, email: str, *, today: str) -> dict[str, Any]:
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
