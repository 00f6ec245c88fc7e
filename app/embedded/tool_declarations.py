"""The demo tools as a definition declares them (`docs/tools.md`): what `surefoot up` registers.

Each effect class is there once at least, with what it needs: a key and how long it is remembered, a probe that tells
whether it happened, the call that undoes it, a result that comes later.
"""

from __future__ import annotations

from typing import Any, Final

Declaration = dict[str, Any]

TEXT: Final = {"type": "string"}
ADDRESS: Final = {"type": "string", "format": "email"}
TIMEOUT: Final = "10s"
"""Of one attempt: the demo tools answer in milliseconds, a person who makes them hang should not wait for long."""
KEYED: Final = {"effect": "keyed", "key_header": "Idempotency-Key", "key_ttl": "24h", "timeout": TIMEOUT}


def declarations(base_url: str) -> dict[str, Declaration]:
    """The tools as a definition declares them, for registration: name → declaration."""
    return {
        **_calendar(base_url),
        **_email(base_url),
        **_payments(base_url),
        **_refunds(base_url),
        **_reports(base_url),
    }


def noop_declaration(base_url: str) -> Declaration:
    """A tool that does nothing, for the bench: any arguments, answered with {}."""
    return {
        "description": "Do nothing.",
        "http": {"method": "POST", "url": f"{base_url}/noop"},
        "effect": "idempotent",
        "timeout": TIMEOUT,
    }


def _read(description: str, url: str, schema: dict[str, Any]) -> Declaration:
    return {
        "description": description,
        "input_schema": schema,
        "http": {"method": "GET", "url": url},
        "effect": "read_only",
        "timeout": TIMEOUT,
    }


def _calendar(base_url: str) -> dict[str, Declaration]:
    any_text = {"type": "string", "default": ""}
    return {
        "calendar.free_busy": _read(
            "When somebody is busy on the next working day.", f"{base_url}/calendar/free_busy", {"email": ADDRESS}
        ),
        "calendar.events": _read("List every booked event.", f"{base_url}/calendar/events", {}),
        "calendar.find_event": _read(
            "Find booked events by title, start, or the key they were booked with.",
            f"{base_url}/calendar/find",
            {"title": any_text, "start": any_text, "key": any_text},
        ),
        "calendar.create_event": {
            "description": "Book one event.",
            "input_schema": {"title": TEXT, "start": TEXT, "attendees": {"type": "array", "items": TEXT}},
            "http": {"method": "POST", "url": f"{base_url}/calendar/events"},
            **KEYED,
            # Asked when the key is too old to be trusted; the calendar keeps it with the event.
            "probe": {
                "tool": "calendar.find_event",
                "with": {"key": "${{ key }}"},
                "found": "size(output.events) > 0",
                "result": "${{ output.events[0] }}",
            },
            "compensate": {"tool": "calendar.delete_event", "with": {"event_id": "${{ output.event_id }}"}},
        },
        "calendar.delete_event": {
            "description": "Remove one event. Removing it twice is removing it once.",
            "input_schema": {"event_id": TEXT},
            "http": {"method": "DELETE", "url": f"{base_url}/calendar/events"},
            "effect": "idempotent",
            # A second try that finds nothing left to delete follows a first one that did.
            "on_repeat_status": {"404": "succeeded"},
            "timeout": TIMEOUT,
        },
    }


def _email(base_url: str) -> dict[str, Declaration]:
    any_text = {"type": "string", "default": ""}
    return {
        "email.send": {
            "description": "Send one mail.",
            "input_schema": {"to": ADDRESS, "subject": TEXT, "body": any_text},
            "http": {"method": "POST", "url": f"{base_url}/email/send"},
            "effect": "checkable",
            # `mine`: only what this workflow sent. The same mail of last week is no proof.
            "probe": {
                "tool": "email.search",
                "with": {
                    "to": "${{ arguments.to }}",
                    "subject": "${{ arguments.subject }}",
                    "body": "${{ coalesce(arguments.body, '') }}",
                    "mine": True,
                },
                "found": "size(output.messages) > 0",
                "result": {"message_id": "${{ output.messages[0].message_id }}", "to": "${{ arguments.to }}"},
            },
            "timeout": TIMEOUT,
        },
        "email.search": _read(
            "Find sent mails by recipient and subject; `mine`: only those of this workflow.",
            f"{base_url}/email/search",
            {"to": ADDRESS, "subject": TEXT, "body": any_text, "mine": {"type": "boolean", "default": False}},
        ),
    }


def _payments(base_url: str) -> dict[str, Declaration]:
    base = f"{base_url}/payments"
    of_authorization = {"authorization_id": TEXT}
    return {
        "payments.authorize": {
            "description": "Reserve an amount on a card, in the currency's smallest unit.",
            "input_schema": {
                "reference": TEXT,
                "amount": {"type": "integer", "minimum": 1},
                "currency": TEXT,
                "card": TEXT,
            },
            "http": {"method": "POST", "url": f"{base}/authorizations"},
            **KEYED,
            "probe": _payment_probe("authorize", ("authorization_id", "status", "amount", "currency")),
            "compensate": {
                "tool": "payments.void",
                "with": {"authorization_id": "${{ output.authorization_id }}"},
            },
        },
        "payments.settle": {
            "description": "Move a reserved amount.",
            "input_schema": of_authorization,
            "http": {"method": "POST", "url": f"{base}/settlements"},
            **KEYED,
            "probe": _payment_probe("settle", ("settlement_id", "authorization_id", "status", "amount", "currency")),
            "compensate": {"tool": "payments.refund", "with": {"settlement_id": "${{ output.settlement_id }}"}},
        },
    }


def _refunds(base_url: str) -> dict[str, Declaration]:
    """What undoes a payment, and what the bank's books say."""
    base = f"{base_url}/payments"
    of_authorization = {"authorization_id": TEXT}
    return {
        "payments.void": {
            "description": "Release what is still reserved. What was settled is not touched.",
            "input_schema": of_authorization,
            "http": {"method": "DELETE", "url": f"{base}/authorizations"},
            "effect": "idempotent",
            "timeout": TIMEOUT,
        },
        "payments.refund": {
            "description": "Move a settled amount back.",
            "input_schema": {"settlement_id": TEXT},
            "http": {"method": "POST", "url": f"{base}/refunds"},
            **KEYED,
            "probe": _payment_probe("refund", ("refund_id", "settlement_id", "authorization_id", "amount")),
        },
        "payments.fraud_check": _read(
            "One check of a reserved payment; 422 if it must not go through.",
            f"{base}/fraud_check",
            {**of_authorization, "check": {"type": "string", "enum": ["velocity", "sanctions", "device"]}},
        ),
        "payments.reconcile": _read(
            "What the bank's books say about one payment.", f"{base}/reconcile", of_authorization
        ),
        "payments.find": _read(
            "Find the payment that an operation with this key was about.",
            f"{base}/find",
            {"operation": {"type": "string", "enum": ["authorize", "settle", "refund"]}, "key": TEXT},
        ),
    }


def _payment_probe(operation: str, fields: tuple[str, ...]) -> Declaration:
    return {
        "tool": "payments.find",
        "with": {"operation": operation, "key": "${{ key }}"},
        "found": "size(output.payments) > 0",
        "result": {name: f"${{{{ output.payments[0].{name} }}}}" for name in fields},
    }


def _reports(base_url: str) -> dict[str, Declaration]:
    return {
        "reports.render": {
            "description": "Render a report. It is accepted at once; the result comes when it is ready.",
            "input_schema": {"title": TEXT, "rows": {"type": "array", "default": []}},
            "http": {"method": "POST", "url": f"{base_url}/reports/render"},
            **KEYED,
            "on_202": "wait",
            "result_within": "10m",
            "probe": {
                "tool": "reports.find",
                "with": {"key": "${{ key }}"},
                "found": "output.reports.exists(report, report.status == 'ready')",
                "result": "${{ output.reports[0] }}",
            },
        },
        "reports.find": _read(
            "Find the report that was asked for with this key.", f"{base_url}/reports/find", {"key": TEXT}
        ),
    }
