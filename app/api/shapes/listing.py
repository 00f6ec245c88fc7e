"""A page of a list: `{"data": […], "next_cursor", "has_more"}`. No totals: counting costs as much as reading."""

from __future__ import annotations

from typing import Generic, TypeVar

from app.api.shapes.values import Shape

Item = TypeVar("Item", bound=Shape)


class Page(Shape, Generic[Item]):
    data: list[Item]
    next_cursor: str | None
    """Give it back as `cursor`; null at the end."""
    has_more: bool
