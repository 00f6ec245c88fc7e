"""What a call sent and what came back: the frozen request with its messages, and each attempt's bytes as evidence."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.shapes.step import Answer
from app.api.shapes.values import JSON
from app.domain import bodies, conversation
from app.domain.plan import Plan
from app.domain.states import CallKind
from app.store import step_views
from app.store.step_views import Row

_TEXT_TYPES: Final = ("text/", "application/json", "application/problem+json", "application/xml")


async def request_of(connection: AsyncConnection, call: Row, *, plan: Plan, step: Row) -> JSON:
    """A tool's arguments as they were frozen; for a model call the whole request, messages included."""
    frozen: JSON = call["request"]
    if call["kind"] != CallKind.MODEL:
        return frozen
    bytes_of_messages = await step_views.conversation(
        connection,
        workflow_id=call["workflow_id"],
        path=call["step"],
        conversation=frozen["conversation"],
        below=frozen["messages"],
    )
    planned = plan.steps[step["name"]]
    agent = planned.agent
    tools = [plan.tools[name] for name in (agent.tools if agent is not None else ())]
    return {
        **frozen,
        "system": None if agent is None else agent.instructions,
        "tools": [
            conversation.tool_param(name=tool.name, description=tool.description, input_schema=tool.input_schema)
            for tool in tools
        ],
        "output_schema": planned.output_schema,
        "messages": [json.loads(message) for message in bytes_of_messages],
    }


async def answers_of(connection: AsyncConnection, attempts: Sequence[Row], *, workflow_id: UUID) -> list[Answer]:
    """One per attempt that received bytes, in order."""
    hashes = [attempt["evidence"] for attempt in attempts if attempt["evidence"] is not None]
    stored = await step_views.payload_bodies(connection, workflow_id=workflow_id, hashes=hashes)
    return [
        _answer(attempt, stored[attempt["evidence"]])
        for attempt in attempts
        if attempt["evidence"] is not None and attempt["evidence"] in stored
    ]


def _answer(attempt: Row, body: bytes) -> Answer:
    media_type = attempt["media_type"]
    value: Any = bodies.read_body(body, media_type, truncated=attempt["truncated"])
    opaque = isinstance(value, dict) and value.get("opaque") is True and value.get("bytes") == len(body)
    text = _text(body, media_type) if opaque or isinstance(value, str) else None
    return Answer(
        attempt=attempt["n"],
        status_code=attempt["status_code"],
        media_type=media_type,
        truncated=attempt["truncated"],
        bytes=len(body),
        sha256=attempt["evidence"],
        json_=None if text is not None or opaque else value,
        text=text,
        base64=base64.b64encode(body).decode() if opaque and text is None else None,
        failure=attempt["failure"],
        request_id=attempt["request_id"],
    )


def _text(body: bytes, media_type: str | None) -> str | None:
    """The bytes as text if they are; None if only base64 can carry them."""
    if media_type is not None and not media_type.startswith(_TEXT_TYPES):
        return None
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None
