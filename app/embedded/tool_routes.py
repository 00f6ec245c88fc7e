"""Where each demo tool is served, what it needs to know, and what kind of tool it is. Data only.

A keyed tool is asked with `Idempotency-Key`; the same key gives the same answer and changes nothing more.
"""

from __future__ import annotations

from typing import Final

ROUTES: Final = {
    ("GET", "/calendar/free_busy"): "calendar.free_busy",
    ("GET", "/calendar/events"): "calendar.events",
    ("GET", "/calendar/find"): "calendar.find_event",
    ("POST", "/calendar/events"): "calendar.create_event",
    ("DELETE", "/calendar/events"): "calendar.delete_event",
    ("POST", "/email/send"): "email.send",
    ("GET", "/email/search"): "email.search",
    ("POST", "/payments/authorizations"): "payments.authorize",
    ("GET", "/payments/fraud_check"): "payments.fraud_check",
    ("POST", "/payments/settlements"): "payments.settle",
    ("DELETE", "/payments/authorizations"): "payments.void",
    ("POST", "/payments/refunds"): "payments.refund",
    ("GET", "/payments/reconcile"): "payments.reconcile",
    ("GET", "/payments/find"): "payments.find",
    ("POST", "/reports/render"): "reports.render",
    ("GET", "/reports/find"): "reports.find",
}

NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "calendar.free_busy": ("email",),
    "calendar.create_event": ("title", "start", "attendees"),
    "calendar.delete_event": ("event_id",),
    "email.send": ("to", "subject"),
    "payments.authorize": ("reference", "amount", "currency", "card"),
    "payments.fraud_check": ("authorization_id", "check"),
    "payments.settle": ("authorization_id",),
    "payments.void": ("authorization_id",),
    "payments.refund": ("settlement_id",),
    "payments.reconcile": ("authorization_id",),
    "payments.find": ("operation", "key"),
    "reports.render": ("title",),
    "reports.find": ("key",),
}

READS: Final = frozenset(
    {
        "calendar.free_busy",
        "calendar.events",
        "calendar.find_event",
        "email.search",
        "payments.fraud_check",
        "payments.reconcile",
        "payments.find",
        "reports.find",
    }
)

KEYED: Final = frozenset(
    {"calendar.create_event", "payments.authorize", "payments.settle", "payments.refund", "reports.render"}
)

RENDER: Final = "reports.render"
RESULT: Final = "reports.result"
"""What rules of `/behave` and the ledger call the result of a report on its way to whoever waits for it."""

STATUS: Final = {RENDER: 202}
"""What a tool answers that does not answer 200."""
