"""The error catalogue: everything Surefoot says no with, each with a code, an HTTP status, a title and a fix.

SurefootError
├── RequestError            the request itself is wrong; repeating it unchanged cannot help
│   ├── IdempotencyKeyMissing 400 · IdempotencyKeyInvalid 400 · MalformedJson 400 · Unauthorized 401
│   ├── ResultTokenInvalid 401 · Forbidden 403 · ApproverIsSubmitter 403
│   ├── NotFound 404 · MethodNotAllowed 405 · BodyTooLarge 413 · UnsupportedMediaType 415
│   └── IdempotencyKeyReused 422 · InvalidValue 422 · DefinitionInvalid 422 · InputInvalid 422
│       · OutboundForbidden 422 · Unsupported 422
├── StateConflict           the request is fine, the state of things does not allow it now; `possible` says what instead
│   ├── RequestInProgress 409 · NotPossible 409 · QuarantineActive 409 · AlreadyResolved 409 · NotInDoubt 409
│   ├── AlreadyDecided 409 · RevisionChanged 409 · RequestChanged 409 · AlreadySettled 409
│   └── ApprovalClosed 410
├── Unavailable             repeat it later
│   └── DatabaseUnavailable 503
└── Internal 500            a defect of ours
EngineError                 never leaves the process
├── LeaseLost               a write after a claim found another attempt at the fence
├── IllegalTransition       a fact that the state machine does not list for this state
└── NotRecovered            `surefoot recover` changed nothing, or effects are still held
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from app.domain.faults import Fault
from app.domain.outcomes import JSON


class SurefootError(Exception):
    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    fix: ClassVar[str]
    """The default fix; an instance may say a better one."""
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str = "",
        *,
        fix: str | None = None,
        faults: Sequence[Fault] = (),
        extra: Mapping[str, JSON] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.how = fix or self.fix
        self.faults = tuple(faults)
        self.extra = dict(extra or {})
        """Further members of the problem document, as `possible` or `not_before`."""
        self.retry_after = retry_after
        """Seconds, for the Retry-After header."""


class RequestError(SurefootError):
    pass


class IdempotencyKeyMissing(RequestError):
    code, status = "idempotency_key_missing", 400
    title = "This request needs an Idempotency-Key"
    fix = 'Add -H "Idempotency-Key: <an id of your own system>", so that a repeated request finds the same workflow.'


class IdempotencyKeyInvalid(RequestError):
    code, status = "idempotency_key_invalid", 400
    title = "The Idempotency-Key is not usable"
    fix = "Send 1 to 255 printable ASCII characters, bare or in double quotes."


class MalformedJson(RequestError):
    code, status = "malformed_json", 400
    title = "The body is not JSON"
    fix = "Send one JSON object, UTF-8, without a trailing comma."


class Unauthorized(RequestError):
    code, status = "unauthorized", 401
    title = "No valid API key"
    fix = "Send Authorization: Bearer sf_…; `surefoot up` prints the key and puts it in its ready file."


class ResultTokenInvalid(RequestError):
    code, status = "result_token_invalid", 401
    title = "The token does not belong to a call that waits for its result"
    fix = "Send Authorization: Bearer and the value of the header Surefoot-Result-Token of the request you answer."


class Forbidden(RequestError):
    code, status = "forbidden", 403
    title = "The API key lacks the scope for this"
    fix = "Use a key with the scope named in `detail`, or with `admin`, which includes the others."


class ApproverIsSubmitter(RequestError):
    code, status = "approver_is_submitter", 403
    title = "Who submitted the workflow may not approve this"
    fix = "Let somebody decide with another API key; the definition says `approver: other_than_submitter`."


class NotFound(RequestError):
    code, status = "not_found", 404
    title = "There is nothing here with that id"
    fix = "Check the id and the key you use; ids of other tenants are not found either."


class MethodNotAllowed(RequestError):
    code, status = "method_not_allowed", 405
    title = "This path does not know that method"
    fix = "See the Allow header or /openapi.json."


class BodyTooLarge(RequestError):
    code, status = "body_too_large", 413
    title = "The body is too large"
    fix = "Keep the body under 4 MiB; put large data behind a URL that a tool reads."


class UnsupportedMediaType(RequestError):
    code, status = "unsupported_media_type", 415
    title = "This Content-Type is not read here"
    fix = "Send Content-Type: application/json."


class IdempotencyKeyReused(RequestError):
    code, status = "idempotency_key_reused", 422
    title = "This Idempotency-Key was used with a different request"
    fix = "Send a new key to start another workflow, or repeat the original body to get the existing one."


class InvalidValue(RequestError):
    code, status = "invalid_value", 422
    title = "A value in the request is not allowed"
    fix = "Correct the fields listed in `errors`."


class DefinitionInvalid(RequestError):
    code, status = "definition_invalid", 422
    title = "The definition has faults"
    fix = "Correct the places listed in `errors`; all of them were found in one pass."


class InputInvalid(RequestError):
    code, status = "input_invalid", 422
    title = "The input does not fit the definition's `input`"
    fix = "Correct the fields listed in `errors`."


class OutboundForbidden(RequestError):
    code, status = "outbound_forbidden", 422
    title = "That address is inside a private network"
    fix = "Use a public address, or let the operator add the host to SUREFOOT_OUTBOUND_ALLOW."


class Unsupported(RequestError):
    code, status = "unsupported", 422
    title = "This is not built yet"
    fix = "Leave the field out; docs/definitions.md lists what this version knows."


class StateConflict(SurefootError):
    possible: ClassVar[tuple[str, ...]]
    """What can be done instead, as the problem's `possible`; an instance may say it better in `extra`."""

    def __init__(
        self,
        detail: str = "",
        *,
        fix: str | None = None,
        faults: Sequence[Fault] = (),
        extra: Mapping[str, JSON] | None = None,
        retry_after: float | None = None,
    ) -> None:
        members = {"possible": list(self.possible), **(extra or {})}
        super().__init__(detail, fix=fix, faults=faults, extra=members, retry_after=retry_after)


class RequestInProgress(StateConflict):
    code, status = "request_in_progress", 409
    title = "A request with the same key is being stored right now"
    fix = "Repeat the same request after Retry-After; it will return that workflow."
    retryable = True
    possible = ("repeat after Retry-After",)


class NotPossible(StateConflict):
    code, status = "not_possible", 409
    title = "Its state does not allow this"
    fix = "See `possible` for what it allows."
    possible = ("read",)


class QuarantineActive(StateConflict):
    code, status = "quarantine_active", 409
    title = "A request that already left may still take effect"
    fix = "Wait until `not_before`, look at the tool again, then say that it did not happen."
    retryable = True
    possible = ("happened", "abandon", "did_not_happen after not_before")


class AlreadyResolved(StateConflict):
    code, status = "already_resolved", 409
    title = "This doubt was settled otherwise"
    fix = "Read the effect; its `resolved` says who settled it, when and how."
    possible = ("read",)


class NotInDoubt(StateConflict):
    code, status = "not_in_doubt", 409
    title = "This effect is not in doubt"
    fix = "Read the effect; only an effect whose state is in_doubt can be resolved."
    possible = ("read",)


class AlreadyDecided(StateConflict):
    code, status = "already_decided", 409
    title = "This approval was decided otherwise"
    fix = "Read the approval; `decision` and `by` say what was decided."
    possible = ("read",)


class RevisionChanged(StateConflict):
    code, status = "revision_changed", 409
    title = "The approval changed after you read it"
    fix = "Read it again and decide with the `revision` it has now."
    possible = ("read", "decide with the revision it has now")


class RequestChanged(StateConflict):
    code, status = "request_changed", 409
    title = "What would be sent is not what the approval was asked for"
    fix = "Reject it, and find out who changed the stored request: nothing of Surefoot does that."
    possible = ("read", "reject", "cancel the workflow")


class AlreadySettled(StateConflict):
    code, status = "already_settled", 409
    title = "This call was settled otherwise"
    fix = "Stop sending: the first outcome that was reported, found or decided stands."
    possible = ("repeat the outcome it has",)


class ApprovalClosed(StateConflict):
    code, status = "approval_closed", 410
    title = "This approval is no longer open"
    fix = "Read the workflow to see how it went on."
    possible = ("read",)


class Unavailable(SurefootError):
    retryable = True


class DatabaseUnavailable(Unavailable):
    code, status = "database_unavailable", 503
    title = "The database does not answer"
    fix = "Repeat the same request with the same Idempotency-Key after Retry-After; nothing was lost."


class Internal(SurefootError):
    code, status = "internal", 500
    title = "Something broke on our side"
    fix = "Repeat the request with the same Idempotency-Key; if it stays, report the request_id."
    retryable = True


class EngineError(Exception):
    pass


class LeaseLost(EngineError):
    """Another attempt stands at the fence: whatever was to be written is not ours to write."""


class IllegalTransition(EngineError):
    """The state machine does not list this fact for this state: a defect, never input."""


class NotRecovered(EngineError):
    """`surefoot recover` changed nothing, or effects are still held: what is wrong, and what to do."""

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
