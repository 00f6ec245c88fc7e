"""What a tool is told about the result it reported."""

from __future__ import annotations

from typing import Literal

from app.api.shapes.values import Shape


class Accepted(Shape):
    accepted: Literal[True]
    """Stored: it need not be sent again."""
