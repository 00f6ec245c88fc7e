"""The recovery table: for each failure kind how it is seen, what is done about it, and how often. Data, one row a kind.

`recovery_defaults.py` makes the server's policies of it, `recovery.py` is asked by the decisions, `docs/recovery.md` is
printed from it. A definition's `retry:` may change the numbers of the kinds that are `written`; what may be *repeated*
at all is decided before, by the effect class. Holds data only; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.domain.states import FailureKind

K = FailureKind


class Action(StrEnum):
    """What is done about a failure. All but `repeat`, `park`, `hold` and `probe` change what is asked."""

    REPEAT = "repeat"
    """The same bytes again, later."""
    REMIND = "remind"
    """The exact complaints, as a message more."""
    SUMMARISE = "summarise"
    """A new conversation that begins with a summary of the old one."""
    CONTINUE = "continue"
    """The part that arrived is kept, and the model is asked for the rest."""
    DOUBLE = "double"
    """The answer is dropped and asked for again with twice the room."""
    SWITCH_MODEL = "switch_model"
    """Another model goes on, if the definition names one."""
    REFUSE_AND_TELL = "refuse_and_tell"
    """Not executed (any more); the model gets the reason as the tool's result."""
    DISABLE = "disable"
    """The tool is taken away from the agents of this workflow, and the model is asked for an alternative."""
    APPEND = "append"
    """The part that arrived is kept unchanged and the model called again."""
    NOTE = "note"
    """The model is told what it is doing."""
    PARK = "park"
    """Held until an operator has mended what is wrong."""
    HOLD = "hold"
    """Held for an operator."""
    PROBE = "probe"
    """The world is asked what happened; else a person is."""
    NONE = "none"
    """The step fails, with the fix in words."""


CHANGES: Final[Mapping[Action, str]] = MappingProxyType(
    {
        Action.REMIND: "format_reminder",
        Action.SUMMARISE: "summarise",
        Action.CONTINUE: "continue",
        Action.DOUBLE: "double_max_tokens",
        Action.SWITCH_MODEL: "switch_model",
        Action.REFUSE_AND_TELL: "tell_model",
        Action.DISABLE: "disable_tool",
        Action.APPEND: "append",
        Action.NOTE: "note",
    }
)
"""What a call says of itself (`change`) that came from an action which changes the request."""

UNTIL_DEADLINE: Final = 1000
"""As good as "until the deadline": a rate limit is somebody's schedule, not a failure of ours."""
IN_A_ROW: Final = 3
"""Failures of a tool, or turns that change nothing, in a row before something is done: once is chance, twice may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    kind: FailureKind
    seen: str
    """How it is detected."""
    actions: tuple[Action, ...]
    """In their order: the next one when the one before it is used up or does not apply."""
    done: str
    """What that means here, in a sentence."""
    budget: int = 0
    """How many times, unless the definition says otherwise."""
    written: bool = False
    """Whether `retry:` of a definition may speak of it."""
    after: int | None = None
    """For what must happen several times in a row first: how many."""

    @property
    def switches(self) -> bool:
        """Whether a policy for it may name another model."""
        return Action.SWITCH_MODEL in self.actions


_ROWS: Final = (
    Row(
        kind=K.RATE_LIMITED,
        seen="429 with retry-after; 425, 429 of a tool",
        actions=(Action.REPEAT, Action.SWITCH_MODEL),
        done="Nothing was executed: the worker is released, and the same bytes go again after what was asked for.",
        budget=UNTIL_DEADLINE,
        written=True,
    ),
    Row(
        kind=K.SPEND_LIMITED,
        seen="429 with a spend code, 402, 400 `reached your specified … limits`",
        actions=(Action.PARK,),
        done="Waiting does not help: the calls of that credential are held until an operator has raised the limit.",
    ),
    Row(
        kind=K.OVERLOADED,
        seen="529, `overloaded_error` inside a stream",
        actions=(Action.REPEAT, Action.SWITCH_MODEL),
        done="Exponential backoff with full jitter; then another model, if the definition names one.",
        budget=8,
        written=True,
    ),
    Row(
        kind=K.SERVER_ERROR,
        seen="500, 502, 503, 504, 408, 409 of the model; what a tool declares as not executed",
        actions=(Action.REPEAT, Action.SWITCH_MODEL),
        done="Backoff, identical bytes.",
        budget=5,
        written=True,
    ),
    Row(
        kind=K.TIMEOUT,
        seen="no answer by the attempt's deadline",
        actions=(Action.REPEAT, Action.SWITCH_MODEL),
        done="What had arrived is discarded and the call repeated; the cost of the lost one is reserved.",
        budget=5,
        written=True,
    ),
    Row(
        kind=K.NETWORK,
        seen="connection refused or broken, a stream that ends without a stop reason, an empty 200",
        actions=(Action.REPEAT, Action.SWITCH_MODEL),
        done="What had arrived is discarded and the call repeated; the cost of the lost one is reserved.",
        budget=5,
        written=True,
    ),
    Row(
        kind=K.WORKER_LOST,
        seen="the lease of the attempt's worker is over",
        actions=(Action.REPEAT, Action.HOLD),
        done="Model calls and reads are repeated, effects by class; the fifth loss in a row of one call holds it.",
        budget=5,
        written=True,
    ),
    Row(
        kind=K.CONTEXT_TOO_LONG,
        seen="our own accounting, 400 `prompt is too long`, 413, stop reason `model_context_window_exceeded`",
        actions=(Action.SUMMARISE,),
        done="The conversation is summarised and goes on as a new one that begins with the task, the summary and the "
        "list of effects done.",
        budget=2,
        written=True,
    ),
    Row(
        kind=K.OUTPUT_TRUNCATED,
        seen="stop reason `max_tokens`",
        actions=(Action.CONTINUE, Action.DOUBLE),
        done="Text is kept, and the model asked to continue exactly there; the parts are joined. Half a tool call is "
        "dropped and asked for again with twice the `max_tokens`, up to what the model can.",
        budget=3,
        written=True,
    ),
    Row(
        kind=K.MALFORMED_OUTPUT,
        seen="the final answer is no JSON, is empty, or breaks the protocol",
        actions=(Action.REMIND, Action.SWITCH_MODEL),
        done="The exact complaint and the schema are added to the conversation, and the model asked again.",
        budget=2,
        written=True,
    ),
    Row(
        kind=K.WRONG_SHAPE,
        seen="the final answer breaks the step's `output_schema`",
        actions=(Action.REMIND, Action.SWITCH_MODEL),
        done="The exact complaints and the schema are added to the conversation, and the model asked again.",
        budget=2,
        written=True,
    ),
    Row(
        kind=K.TOOL_ARGUMENTS_INVALID,
        seen="the arguments of a tool use break the tool's frozen schema",
        actions=(Action.REFUSE_AND_TELL, Action.DISABLE),
        done="Nothing is executed; the model gets every place that is wrong. More in a row than allowed, and the step "
        "loses that tool.",
        budget=3,
        written=True,
    ),
    Row(
        kind=K.TOOL_UNKNOWN,
        seen="a tool use names a tool that was not offered",
        actions=(Action.REFUSE_AND_TELL,),
        done="Nothing is executed; the model gets the list of tools. More in a row than allowed, and the step fails.",
        budget=3,
        written=True,
    ),
    Row(
        kind=K.TOOL_ERROR,
        seen="the tool answered that it failed, for certain",
        actions=(Action.REPEAT, Action.REFUSE_AND_TELL),
        done="The tool call is repeated, not the model call, if its effect class and the answer allow it; then the "
        "model gets the error as the result. A tool step fails at once unless its `retry:` says otherwise.",
        budget=2,
        written=True,
    ),
    Row(
        kind=K.TOOL_BROKEN,
        seen="one tool failed several times in a row in an agent's conversation (`after`)",
        actions=(Action.DISABLE,),
        done="The tool is taken away from the agents of this workflow: every further use is answered with the reason, "
        "and the model is asked for an alternative. With `max_retries: 0` the step fails instead.",
        budget=1,
        written=True,
        after=IN_A_ROW,
    ),
    Row(
        kind=K.REFUSED,
        seen="stop reason `refusal`",
        actions=(Action.SWITCH_MODEL,),
        done="The category is recorded. Never asked again as it was: another model is, if the definition names one.",
        budget=1,
        written=True,
    ),
    Row(
        kind=K.PAUSED_TURN,
        seen="stop reason `pause_turn`",
        actions=(Action.APPEND,),
        done="What arrived is kept unchanged, and the model called again to go on.",
        budget=10,
        written=True,
    ),
    Row(
        kind=K.NO_PROGRESS,
        seen="the same tools with the same arguments and the same results several turns in a row (`after`), or two "
        "such turns in alternation",
        actions=(Action.NOTE, Action.NONE),
        done="The model is told what it repeats; then the step fails, or ends gracefully if the agent's `finish` says "
        "so.",
        budget=2,
        written=True,
        after=IN_A_ROW,
    ),
    Row(
        kind=K.AUTH,
        seen="401, 403, no key",
        actions=(Action.PARK,),
        done="The calls of that credential are held until an operator has mended it.",
    ),
    Row(kind=K.MODEL_NOT_FOUND, seen="404 of the model", actions=(Action.NONE,), done="The step fails with the fix."),
    Row(kind=K.INVALID_REQUEST, seen="another 400", actions=(Action.NONE,), done="The step fails with the fix."),
    Row(
        kind=K.BUDGET_EXCEEDED,
        seen="spent and the worst case of this call are more than the budget; all turns are used",
        actions=(Action.NONE, Action.HOLD),
        done="Not called: the step fails, or waits for more, as the budget's `on_exceeded` says.",
    ),
    Row(
        kind=K.UNKNOWN_OUTCOME,
        seen="a request may have taken effect, and no class says that repeating is safe",
        actions=(Action.PROBE,),
        done="See effects.md: the same key, a probe, or a person.",
    ),
    Row(
        kind=K.EXPRESSION_ERROR,
        seen="an expression of the definition fails",
        actions=(Action.NONE,),
        done="The step fails; the message names the expression.",
    ),
    Row(
        kind=K.DEADLINE_EXCEEDED,
        seen="the workflow's deadline passes",
        actions=(Action.NONE,),
        done="The workflow fails once everything in flight is settled. An agent with `finish: gracefully` is asked for "
        "its answer a little before.",
    ),
    Row(
        kind=K.STEP_TIMEOUT,
        seen="the step's `timeout` passes",
        actions=(Action.NONE,),
        done="The step fails once everything in flight is settled. An agent with `finish: gracefully` is asked for its "
        "answer a little before.",
    ),
    Row(kind=K.APPROVAL_REJECTED, seen="a person says no", actions=(Action.NONE,), done="As `on_reject` says."),
    Row(kind=K.APPROVAL_EXPIRED, seen="nobody answers in time", actions=(Action.NONE,), done="As `on_expire` says."),
    Row(kind=K.SIGNAL_TIMEOUT, seen="a signal does not come", actions=(Action.NONE,), done="The step fails."),
    Row(kind=K.CHILD_FAILED, seen="a child workflow failed", actions=(Action.NONE,), done="The step fails."),
    Row(
        kind=K.ITEM_FAILURES_EXCEEDED,
        seen="an item of a `for_each` failed",
        actions=(Action.NONE,),
        done="The step fails; what is under way is settled first.",
    ),
    Row(
        kind=K.KEY_CONFLICT,
        seen="the business key belongs to a call with other arguments",
        actions=(Action.NONE,),
        done="Nothing is sent; the step fails.",
    ),
    Row(
        kind=K.PAYLOAD_TOO_LARGE,
        seen="a request would be larger than allowed",
        actions=(Action.NONE,),
        done="Nothing is sent; the step fails.",
    ),
    Row(
        kind=K.OUTBOUND_FORBIDDEN,
        seen="a tool's address is inside a private network",
        actions=(Action.NONE,),
        done="Nothing is sent; the step fails, an agent gets it as the tool's result.",
    ),
    Row(kind=K.CANCELLED, seen="somebody ended it", actions=(Action.NONE,), done="Nothing more is started."),
    Row(kind=K.INTERNAL, seen="a defect of ours", actions=(Action.NONE,), done="The step fails; please report it."),
)

TABLE: Final[Mapping[FailureKind, Row]] = MappingProxyType({row.kind: row for row in _ROWS})
"""Every kind, in the order in which the documentation tells them."""

GROUPS: Final[Mapping[str, frozenset[FailureKind]]] = MappingProxyType(
    {
        "transient": frozenset(
            {K.RATE_LIMITED, K.OVERLOADED, K.SERVER_ERROR, K.TIMEOUT, K.NETWORK, K.WORKER_LOST},
        ),
        "malformed_output": frozenset({K.MALFORMED_OUTPUT, K.WRONG_SHAPE}),
        "any": frozenset(row.kind for row in _ROWS if row.written),
    }
)
"""Names under `retry` that stand for several kinds, the most specific first."""
