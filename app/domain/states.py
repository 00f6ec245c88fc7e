"""The closed vocabularies: every status, state, class and kind that a row or an answer may hold.

The CHECK constraints of the tables are written from these enums (`app/store/tables.py`), so a word that is not
here cannot be stored. The words are explained in `docs/glossary.md`; which move may follow which is in
`app/domain/transitions.py` and printed in `docs/state_machine.md`.
"""

from __future__ import annotations

from enum import StrEnum

ENGINE_VERSION = 1
"""The meaning of the rows. A worker claims only calls whose `engine_version` it knows (rolling deploys)."""


ACCEPTED = 202
"""RFC 9110 §15.3.3: the request has been accepted, but the processing is not complete."""


class WorkflowStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    FAILING = "failing"
    CANCELLING = "cancelling"
    COMPENSATING = "compensating"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in FINAL_STATUSES

    @property
    def draining(self) -> bool:
        """Nothing new is scheduled; what is in flight is settled."""
        return self in (WorkflowStatus.FAILING, WorkflowStatus.CANCELLING)

    @property
    def ending(self) -> bool:
        """On the way to failed or cancelled: draining, or undoing what was done."""
        return self.draining or self is WorkflowStatus.COMPENSATING


FINAL_STATUSES = frozenset({WorkflowStatus.SUCCEEDED, WorkflowStatus.FAILED, WorkflowStatus.CANCELLED})
NEEDS_A_PERSON = frozenset({WorkflowStatus.WAITING, WorkflowStatus.PAUSED})


def settled(*, status: str, saga: str | None, undos_failed: int, open_calls: int) -> bool:
    """Whether a workflow ended, or goes on only after a person did something; whatever its status if a failure is held,
    or an undo failed and nothing else is under way. What a held request waits for."""
    needs_operator = saga == "held" or (undos_failed > 0 and open_calls == 0)
    return status in FINAL_STATUSES or status in NEEDS_A_PERSON or needs_operator


class StepKind(StrEnum):
    TOOL = "tool"
    SET = "set"
    AGENT = "agent"
    APPROVAL = "approval"


class StepState(StrEnum):
    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in FINAL_STEP_STATES


FINAL_STEP_STATES = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED})


class Undo(StrEnum):
    """What became of an effect after it was done (saga)."""

    NONE = "none"
    RECORDED = "recorded"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """A person decided that it stays done."""


class CallKind(StrEnum):
    MODEL = "model"
    TOOL = "tool"
    PROBE = "probe"
    COMPENSATION = "compensation"
    DISCOVER = "discover"


class CallState(StrEnum):
    HELD = "held"
    DUE = "due"
    INTENDED = "intended"
    PROBING = "probing"
    IN_DOUBT = "in_doubt"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"

    @property
    def final(self) -> bool:
        return self in FINAL_CALL_STATES


FINAL_CALL_STATES = frozenset({CallState.SUCCEEDED, CallState.FAILED, CallState.CANCELLED, CallState.ABANDONED})


class HeldReason(StrEnum):
    APPROVAL = "approval"
    PAUSE = "pause"
    BUDGET = "budget"
    QUOTA = "quota"
    BREAKER = "breaker"
    CONCURRENCY = "concurrency"
    POISONED = "poisoned"
    REPEAT = "repeat"
    DRIFT = "drift"
    OPERATOR = "operator"
    ATTACHED = "attached"


class AttemptOutcome(StrEnum):
    """Certainty belongs to the attempt. Write-once."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


class EffectClass(StrEnum):
    READ_ONLY = "read_only"
    IDEMPOTENT = "idempotent"
    KEYED = "keyed"
    CHECKABLE = "checkable"
    AT_MOST_ONCE = "at_most_once"


GUARDED_CLASSES = frozenset({EffectClass.KEYED, EffectClass.CHECKABLE, EffectClass.AT_MOST_ONCE})
"""Classes for which the same arguments asked for again by a model are a second effect (the repeat guard)."""

EARLY_CLASSES = frozenset({EffectClass.READ_ONLY, EffectClass.IDEMPOTENT, EffectClass.KEYED})
"""Classes that may be repeated before the lost worker is known to be silent."""


class DueKind(StrEnum):
    CALL = "call"
    """A call waits to be claimed. ref = call id."""
    ATTEMPT = "attempt"
    """A call is in flight; due_at says when its worker is to be asked about. ref = call id."""
    APPLY = "apply"
    """Evidence was committed without its decision. ref = call id."""
    DEADLINE = "deadline"
    """The workflow's deadline. ref = workflow id."""
    STEP_TIMEOUT = "step_timeout"
    """ref = uuid5 of workflow and path; the path is in `dues.note`."""
    EXPIRY = "expiry"
    """An approval expires. ref = approval id."""
    DELIVERY = "delivery"
    """A webhook stream has something to send. ref = stream id."""
    RESULT = "result"
    """A tool answered 202; until then its result is waited for. ref = call id."""
    ATTACHED = "attached"
    """Another call owns the business key; its end is looked at. ref = call id."""
    SWITCH = "switch"
    """An operator's switch stands before the call; note = its scope. ref = call id."""
    BUDGET = "budget"
    """A call waits for room in a budget; note = `reserved` (others hold it) or `exceeded` (for a top-up). ref = call
    id."""
    DURATION = "duration"
    """The calls of a scope have taken as long as its budget allows; note = the scope. ref follows from workflow and
    scope."""
    DEPENDENCY = "dependency"
    """A call waits for what it calls: a breaker or a rate limit stands before it; note = its scope. ref = call id."""


class BreakerState(StrEnum):
    """Of what is called: a tool of a tenant, a model under a credential. No row means closed, and never was open."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    PARKED = "parked"
    """The provider does not accept the credential, or its spending limit is reached: an operator mends that."""


class ApprovalKind(StrEnum):
    STEP = "step"
    TOOL = "tool"
    REPEAT = "repeat"
    DRIFT = "drift"


class ApprovalStatus(StrEnum):
    OPEN = "open"
    DECIDED = "decided"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class DeliveryState(StrEnum):
    OPEN = "open"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    DISABLED = "disabled"


class FailureKind(StrEnum):
    """Why something went wrong, as a closed enum. What is done about each is in `app/domain/recovery.py`."""

    RATE_LIMITED = "rate_limited"
    SPEND_LIMITED = "spend_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    NETWORK = "network"
    CONTEXT_TOO_LONG = "context_too_long"
    OUTPUT_TRUNCATED = "output_truncated"
    MALFORMED_OUTPUT = "malformed_output"
    WRONG_SHAPE = "wrong_shape"
    TOOL_ARGUMENTS_INVALID = "tool_arguments_invalid"
    TOOL_UNKNOWN = "tool_unknown"
    TOOL_ERROR = "tool_error"
    TOOL_BROKEN = "tool_broken"
    REFUSED = "refused"
    PAUSED_TURN = "paused_turn"
    NO_PROGRESS = "no_progress"
    AUTH = "auth"
    MODEL_NOT_FOUND = "model_not_found"
    INVALID_REQUEST = "invalid_request"
    BUDGET_EXCEEDED = "budget_exceeded"
    UNKNOWN_OUTCOME = "unknown_outcome"
    WORKER_LOST = "worker_lost"
    EXPRESSION_ERROR = "expression_error"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    STEP_TIMEOUT = "step_timeout"
    APPROVAL_REJECTED = "approval_rejected"
    APPROVAL_EXPIRED = "approval_expired"
    SIGNAL_TIMEOUT = "signal_timeout"
    CHILD_FAILED = "child_failed"
    ITEM_FAILURES_EXCEEDED = "item_failures_exceeded"
    KEY_CONFLICT = "key_conflict"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    OUTBOUND_FORBIDDEN = "outbound_forbidden"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Lane(StrEnum):
    """Celery queues: slow receivers never take the calls' credit."""

    CALLS = "calls"
    DELIVERIES = "deliveries"
