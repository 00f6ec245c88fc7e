"""Do these arguments fit the tool's frozen schema? Asked before anything is sent, whoever gives them."""

from __future__ import annotations

from app.domain import schemas
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Tool
from app.domain.states import FailureKind

_SAID = 10
"""Complaints in one message: the rest are mended with them."""


def misfit(tool: Tool, arguments: JSON) -> Failure | None:
    """What is wrong with them, or None. The argument that carries the key is filled in later."""
    if tool.input_schema is None:
        return None
    errors = [
        error
        for error in schemas.validate(tool.input_schema, arguments)
        if not (error.keyword == "required" and tool.key_argument and f'"{tool.key_argument}"' in error.message)
    ]
    if not errors:
        return None
    listed = "; ".join(f"{error.pointer or '/'}: {error.message}" for error in errors[:_SAID])
    return Failure(
        kind=FailureKind.TOOL_ARGUMENTS_INVALID,
        message=f"The arguments do not fit the schema of {tool.name}, so nothing was sent: {listed}",
        fix="Correct the step's `with`, or what it is made of; the tool's `input_schema` says what it takes.",
        detail={"errors": [{"pointer": error.pointer, "message": error.message} for error in errors[:_SAID]]},
    )
