"""The demo tools as a definition declares them (`docs/definitions.md`): what `surefoot up` registers."""

from __future__ import annotations

from typing import Any


def declarations(base_url: str) -> dict[str, Any]:
    """The tools as a definition declares them, for registration: name → declaration."""
    text = {"type": "string"}
    address = {"type": "string", "format": "email"}
    return {
        "calendar.free_busy": {
            "description": "When somebody is busy on the next working day.",
            "input_schema": {"email": address},
            "http": {"method": "GET", "url": f"{base_url}/calendar/free_busy"},
            "effect": "read_only",
            "timeout": "10s",
        },
        "calendar.events": {
            "description": "List every booked event.",
            "input_schema": {},
            "http": {"method": "GET", "url": f"{base_url}/calendar/events"},
            "effect": "read_only",
            "timeout": "10s",
        },
        "calendar.create_event": {
            "description": "Book one event.",
            "input_schema": {"title": text, "start": text, "attendees": {"type": "array", "items": text}},
            "http": {"method": "POST", "url": f"{base_url}/calendar/events"},
            "effect": "keyed",
            "key_header": "Idempotency-Key",
            "key_ttl": "24h",
            "timeout": "10s",
        },
        "calendar.delete_event": {
            "description": "Remove one event. Removing it twice is removing it once.",
            "input_schema": {"event_id": text},
            "http": {"method": "DELETE", "url": f"{base_url}/calendar/events"},
            "effect": "idempotent",
            "timeout": "10s",
        },
        "email.send": {
            "description": "Send one mail.",
            "input_schema": {"to": address, "subject": text, "body": {"type": "string", "default": ""}},
            "http": {"method": "POST", "url": f"{base_url}/email/send"},
            "effect": "at_most_once",
            "timeout": "10s",
        },
    }


def noop_declaration(base_url: str) -> dict[str, Any]:
    """A tool that does nothing, for the bench: any arguments, answered with {}."""
    return {
        "description": "Do nothing.",
        "http": {"method": "POST", "url": f"{base_url}/noop"},
        "effect": "idempotent",
        "timeout": "10s",
    }
