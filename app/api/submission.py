"""The body of `POST /v1/workflows`: fields, limits, and which of the design's fields are not built yet."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from app.api import body
from app.api.budget_bodies import BudgetBody
from app.api.shapes.values import JSON
from app.domain.durations import DurationError, parse_duration
from app.domain.events import CATALOGUE
from app.domain.faults import Fault
from app.errors import InvalidValue, Unsupported

LABELS_LIMIT: Final = 64
LABEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", re.ASCII)
LONGEST_URL: Final = 2048

UNBUILT: Final = {
    "on_conflict": "Leave it out; the Idempotency-Key keeps submissions apart.",
    "workflow_key": "Leave it out; use the Idempotency-Key.",
}
_BY_NAME: Final = "Send the definition itself as an object, or as definition_text."


def _label_name(name: str) -> str:
    if LABEL_NAME.fullmatch(name) is None:
        raise ValueError("a label's name is 1 to 63 letters, digits and . _ - /, and begins with a letter or digit")
    return name


def _event_pattern(pattern: str) -> str:
    if pattern == "*" or pattern in CATALOGUE:
        return pattern
    if pattern.endswith(".*") and any(name.startswith(pattern[:-1]) for name in CATALOGUE):
        return pattern
    raise ValueError("an event is a name of docs/events.md, a group as workflow.*, or *")


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if not fine or not url.isprintable() or not url.isascii() or " " in url:
        raise ValueError("a URL is http:// or https:// with a host, in printable ASCII")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL carries no user or password here; deliveries are signed instead")
    return url


class WebhookBody(body.Body):
    url: Annotated[str, StringConstraints(max_length=LONGEST_URL), AfterValidator(_web_address)]
    events: list[Annotated[str, AfterValidator(_event_pattern)]] | None = Field(default=None, min_length=1)
    """Names of events, groups as `workflow.*`, or `*`; by default what people are told about."""


class SubmissionBody(body.Body):
    definition: dict[str, JSON] | None = None
    definition_text: str | None = None
    """YAML or JSON source instead of `definition`; then faults have a line."""
    source_name: Annotated[str, StringConstraints(max_length=200)] | None = None
    """The file `definition_text` came from, for messages."""
    input: dict[str, JSON] = Field(default_factory=dict)
    labels: dict[Annotated[str, AfterValidator(_label_name)], Annotated[str, StringConstraints(max_length=256)]] = (
        Field(default_factory=dict, max_length=LABELS_LIMIT)
    )
    webhook: WebhookBody | None = None
    deadline: Annotated[str, StringConstraints(max_length=32)] | None = None
    """How long the workflow may take, as `2h`."""
    budget: BudgetBody | None = None

    @field_validator("deadline")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_duration(value)
            except DurationError as error:
                raise ValueError(str(error)) from error
        return value

    @property
    def deadline_after(self) -> timedelta | None:
        return None if self.deadline is None else parse_duration(self.deadline)


def read(value: dict[str, JSON]) -> SubmissionBody:
    """The submission, or every fault of its fields (the definition's own faults are the engine's to find)."""
    named = isinstance(value.get("definition"), str)
    checked = body.check(
        SubmissionBody,
        {name: part for name, part in value.items() if not (named and name == "definition")},
        unbuilt=UNBUILT,
    )
    if named:
        detail = "Submitting a published definition by name is not built yet."
        raise Unsupported(
            detail, faults=[Fault(code="unsupported", pointer="/definition", detail=detail, fix=_BY_NAME)]
        )
    if (checked.definition is None) == (checked.definition_text is None):
        detail = "One of definition and definition_text is needed, and only one."
        fix = "Send the definition as an object in `definition`, or its YAML source in `definition_text`."
        raise InvalidValue(detail, faults=[Fault(code="missing_field", pointer="/definition", detail=detail, fix=fix)])
    return checked
