"""Values that every shape uses: the closed model, JSON, ids, links."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from app.domain import ids
from app.domain.ids import Prefix

JSON = Any


class Shape(BaseModel):
    """A closed model. Instants are UTC and end in `Z`; money is decimal text in dollars."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def id_or_none(prefix: Prefix, value: UUID | None) -> str | None:
    return None if value is None else ids.encode(prefix, value)


def workflow_path(workflow_id: UUID) -> str:
    return f"/v1/workflows/{ids.encode('wf', workflow_id)}"
