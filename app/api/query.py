"""Query parameters, as closed models: an unknown name is an error, a wrong value names its parameter.

Text from a query goes into SQL as a parameter; only NUL would break that, so it is refused here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.domain.states import ApprovalStatus, CallState, StepState, Undo, WorkflowStatus

PAGE: Final = 50
LARGEST_PAGE: Final = 500
LONGEST_EVENT_PAGE: Final = 1000


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("text without NUL")
    return text


def _utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("an instant between the years 1 and 9999 in UTC") from error


Text = Annotated[str, StringConstraints(max_length=512), AfterValidator(_storable)]
Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
Limit = Annotated[int, Field(ge=1, le=LARGEST_PAGE, description="Most items of one page.")]
Cursor = Annotated[str | None, StringConstraints(max_length=1024), Field(description="next_cursor of the page before.")]


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    """A route without parameters."""


class PageQuery(Query):
    limit: Limit = PAGE
    cursor: Cursor = None


class WorkflowsQuery(BaseModel):
    """`label.<name>=<value>` filters by label; each may occur once."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    status: Annotated[list[WorkflowStatus], Field(description="One or more statuses.")] = []
    definition: Annotated[Text | None, Field(description="A definition's name, or its digest `sha256:…`.")] = None
    since: Annotated[Instant | None, Field(description="Created at or after this instant, RFC 3339.")] = None
    attention: Annotated[Text | None, Field(description="A word that was written to `attention`.")] = None
    failure_kind: Annotated[Text | None, Field(alias="failure.kind", description="Kind of its failure.")] = None
    key: Annotated[Text | None, Field(description="The Idempotency-Key it was submitted with.")] = None
    limit: Limit = PAGE
    cursor: Cursor = None


class StepsQuery(PageQuery):
    state: Annotated[list[StepState], Field(description="One or more states.")] = []


class EffectsQuery(PageQuery):
    state: Annotated[list[CallState], Field(description="One or more states, as in_doubt.")] = []
    undo: Annotated[list[Undo], Field(description="What became of undoing it: failed is a work-list.")] = []
    tool: Annotated[Text | None, Field(description="Only of this tool.")] = None


class TenantEffectsQuery(EffectsQuery):
    workflow: Annotated[Text | None, Field(description="Only of this workflow, wf_….")] = None


class ApprovalsQuery(PageQuery):
    status: Annotated[list[ApprovalStatus], Field(description="One or more statuses, as open.")] = []
    workflow: Annotated[Text | None, Field(description="Only of this workflow, wf_….")] = None


class EventsQuery(Query):
    after: Annotated[int, Field(ge=0, le=2**31 - 1, description="The last seq you have; 0 at the start.")] = 0
    limit: Annotated[int, Field(ge=1, le=LONGEST_EVENT_PAGE, description="Most events of one page.")] = 100


class TraceQuery(Query):
    format: Annotated[str, Field(description="tree or text")] = "tree"
    width: Annotated[int, Field(ge=40, le=400, description="Columns of the text.")] = 100
