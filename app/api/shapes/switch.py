"""A switch: an operator holds a scope back. No row means that nothing is held."""

from __future__ import annotations

from datetime import datetime

from app.api.shapes.values import Shape
from app.engine import switch


class Switch(Shape):
    scope: str
    """`tenant`, `tool:<name>` or `model:<id or alias>`."""
    reason: str | None
    by: str
    created_at: datetime


class Released(Shape):
    released: int
    """Calls that are due again."""


def switch_shape(held: switch.Switch) -> Switch:
    return Switch(scope=held.scope, reason=held.reason, by=held.by, created_at=held.created_at)
