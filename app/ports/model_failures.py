"""One table from the provider's errors to failure kinds: exception classes, HTTP statuses, error codes and types.

    TRANSPORT   exception class of httpx2 or anthropic, or of a reply that cannot be read → kind
    STATUS      HTTP status → kind
    CODES       the provider's stable `error_code`, which says more than the status → kind
    TYPES       `error.type`, which is all there is when an error arrives inside a stream (its status is 200)

A test walks the exception modules of both libraries and fails on a class that is not here. Certainty is not decided
here: whether a byte was sent is known to `app/ports/model.py`. Imports anthropic: load it only with the client.
"""

from __future__ import annotations

import json
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import anthropic
import httpx2
from anthropic.lib.credentials import WorkloadIdentityError

from app.domain.outcomes import Evidence, Failure
from app.domain.states import FailureKind

K = FailureKind

MESSAGE_CAP: Final = 300
"""Characters of the provider's own words in a failure: enough for its longest sentence, never a whole prompt."""

EVIDENCE_CAP: Final = 64 * 1024
"""Bytes of an error body that are kept; real ones are under 1 KiB."""

TRANSPORT: Final[dict[type[BaseException], FailureKind]] = {
    # The total deadline of the attempt, by asyncio.
    TimeoutError: K.TIMEOUT,
    httpx2.TimeoutException: K.TIMEOUT,
    httpx2.ConnectTimeout: K.TIMEOUT,
    httpx2.ReadTimeout: K.TIMEOUT,
    httpx2.WriteTimeout: K.TIMEOUT,
    httpx2.PoolTimeout: K.TIMEOUT,
    anthropic.APITimeoutError: K.TIMEOUT,
    # The connection, and whatever cannot be read as a stream of events.
    httpx2.HTTPError: K.NETWORK,
    httpx2.RequestError: K.NETWORK,
    httpx2.TransportError: K.NETWORK,
    httpx2.NetworkError: K.NETWORK,
    httpx2.ConnectError: K.NETWORK,
    httpx2.ReadError: K.NETWORK,
    httpx2.WriteError: K.NETWORK,
    httpx2.CloseError: K.NETWORK,
    httpx2.ProxyError: K.NETWORK,
    httpx2.ProtocolError: K.NETWORK,
    httpx2.RemoteProtocolError: K.NETWORK,
    httpx2.SSEError: K.NETWORK,
    httpx2.DecodingError: K.NETWORK,
    httpx2.CookieConflict: K.NETWORK,
    httpx2.StreamError: K.NETWORK,
    httpx2.StreamConsumed: K.NETWORK,
    httpx2.StreamClosed: K.NETWORK,
    httpx2.ResponseNotRead: K.NETWORK,
    httpx2.RequestNotRead: K.NETWORK,
    anthropic.APIConnectionError: K.NETWORK,
    anthropic.APIError: K.NETWORK,
    anthropic.APIResponseValidationError: K.NETWORK,
    anthropic.APIWebhookValidationError: K.NETWORK,
    anthropic.AnthropicError: K.NETWORK,
    anthropic.RetryableError: K.NETWORK,
    OSError: K.NETWORK,
    # The SDK raises these while it puts a stream together that is not one: a chunk that is no JSON (ValueError), a
    # delta for a block that never began (LookupError), no event at all (AssertionError), fields that are missing.
    ValueError: K.NETWORK,
    LookupError: K.NETWORK,
    TypeError: K.NETWORK,
    AttributeError: K.NETWORK,
    AssertionError: K.NETWORK,
    RuntimeError: K.NETWORK,
    # Ours to correct.
    httpx2.HTTPStatusError: K.SERVER_ERROR,
    httpx2.UnsupportedProtocol: K.INVALID_REQUEST,
    httpx2.LocalProtocolError: K.INVALID_REQUEST,
    httpx2.InvalidURL: K.INVALID_REQUEST,
    httpx2.TooManyRedirects: K.INVALID_REQUEST,
    anthropic.CredentialsError: K.AUTH,
    anthropic.IdentityTokenFileError: K.AUTH,
    WorkloadIdentityError: K.AUTH,
}

STATUS: Final[dict[int, FailureKind]] = {
    400: K.INVALID_REQUEST,
    401: K.AUTH,
    402: K.SPEND_LIMITED,
    403: K.AUTH,
    404: K.MODEL_NOT_FOUND,
    408: K.SERVER_ERROR,
    409: K.SERVER_ERROR,
    412: K.INVALID_REQUEST,
    413: K.CONTEXT_TOO_LONG,
    422: K.INVALID_REQUEST,
    425: K.SERVER_ERROR,
    429: K.RATE_LIMITED,
    431: K.INVALID_REQUEST,
    499: K.SERVER_ERROR,
    501: K.SERVER_ERROR,
    503: K.SERVER_ERROR,
    504: K.SERVER_ERROR,
    529: K.OVERLOADED,
}
"""Any other 5xx is server_error, any other status invalid_request."""

CODES: Final[dict[str, FailureKind]] = {
    # 429 has two meanings: a limit that passes in seconds, and one that lasts to the end of the month.
    "ramp_limit_exceeded": K.RATE_LIMITED,
    "contract_spend_limit_reached": K.SPEND_LIMITED,
    "enforced_spend_limit_reached": K.SPEND_LIMITED,
    "linked_organization_spend_limit_reached": K.SPEND_LIMITED,
    "linked_organization_billing_unavailable": K.SPEND_LIMITED,
    "organization_on_hold": K.AUTH,
    "compaction_unavailable": K.OVERLOADED,
    "request_body_timeout": K.SERVER_ERROR,
}

TYPES: Final[dict[str, FailureKind]] = {
    "invalid_request_error": K.INVALID_REQUEST,
    "authentication_error": K.AUTH,
    "permission_error": K.AUTH,
    "billing_error": K.SPEND_LIMITED,
    "not_found_error": K.MODEL_NOT_FOUND,
    "request_too_large": K.CONTEXT_TOO_LONG,
    "rate_limit_error": K.RATE_LIMITED,
    "timeout_error": K.SERVER_ERROR,
    "gateway_timeout_error": K.SERVER_ERROR,
    "api_error": K.SERVER_ERROR,
    "overloaded_error": K.OVERLOADED,
}

FIXES: Final[dict[FailureKind, str]] = {
    K.RATE_LIMITED: "Nothing to do: the call goes again when the provider allows it.",
    K.SPEND_LIMITED: "Raise the spend limit in the provider's console, or wait for the next billing period.",
    K.OVERLOADED: "Nothing to do: the call is repeated with growing pauses.",
    K.SERVER_ERROR: "Nothing to do: the call is repeated; see the provider's status page if it stays.",
    K.TIMEOUT: "Nothing to do: the call is repeated. Raise SUREFOOT_MODEL_TIMEOUT if the answer is simply long.",
    K.NETWORK: "Nothing to do: the call is repeated. If it stays, check the way from the workers to the provider.",
    K.CONTEXT_TOO_LONG: "Split the task into steps, or let its tools return less.",
    K.AUTH: "Set ANTHROPIC_API_KEY to a key that may use this model, restart the workers, then retry the workflow.",
    K.MODEL_NOT_FOUND: "Correct the model's id in the agent, or its alias in SUREFOOT_MODELS.",
    K.INVALID_REQUEST: "Correct the agent as the message says; check ANTHROPIC_BASE_URL if it is set.",
}

_TOO_LONG: Final = ("prompt is too long", "exceed context limit")
_OWN_SPEND_LIMIT: Final = "reached your specified"
"""Two conditions that have no code: the provider says them only in words (the second is the limit that customers set
for themselves)."""


def kind_of(*, status: int, type: str | None, code: str | None, message: str) -> FailureKind:
    """The failure kind of an error the provider sent. `status` is 200 for one that arrived inside a stream."""
    if code in CODES:
        return CODES[code]
    if status == 404 and type != "not_found_error":
        return K.INVALID_REQUEST  # no such path: not the provider's API answers there
    if status == 200:
        kind = TYPES.get(type or "", K.SERVER_ERROR)
    elif type == "overloaded_error":
        kind = K.OVERLOADED
    else:
        kind = STATUS.get(status, K.SERVER_ERROR if status >= 500 else K.INVALID_REQUEST)
    if kind is K.INVALID_REQUEST and any(words in message for words in _TOO_LONG):
        return K.CONTEXT_TOO_LONG
    if kind is K.INVALID_REQUEST and _OWN_SPEND_LIMIT in message:
        return K.SPEND_LIMITED
    return kind


def of_status(error: anthropic.APIStatusError, *, secret: str) -> Failure:
    """The failure behind an error response."""
    words = _masked((error.api_message or "").strip(), secret)[:MESSAGE_CAP]
    kind = kind_of(status=error.status_code, type=error.type, code=error.error_code, message=words)
    where = "inside its answer" if error.status_code == 200 else f"with status {error.status_code}"
    return Failure(
        kind=kind,
        message=f"The model provider refused {where}" + (f": {words}" if words else f" ({error.type or 'no reason'})."),
        fix=FIXES[kind],
        status_code=None if error.status_code == 200 else error.status_code,
        retry_after=retry_after(error.response.headers),
        detail={"type": error.type, "error_code": error.error_code, "request_id": error.request_id},
    )


def of_exception(error: BaseException, *, sent: bool) -> Failure:
    """The failure behind an exception that is no error response. What breaks before anything was sent, and is not
    the network's doing, is the request's."""
    cause = _root(error)
    found = next(cls for cls in type(cause).__mro__ if cls in TRANSPORT or cls is Exception)
    kind = TRANSPORT.get(found, K.NETWORK)
    name = type(cause).__name__
    if not sent and isinstance(cause, ValueError | LookupError | TypeError | AttributeError | AssertionError):
        kind = K.INVALID_REQUEST
    match kind:
        case FailureKind.INVALID_REQUEST:
            message = f"The request could not be built ({name})."
        case FailureKind.TIMEOUT:
            message = "The model did not finish its answer in time." if sent else "The model provider did not answer."
        case FailureKind.AUTH:
            message = "The credentials for the model provider could not be read."
        case _ if sent:
            message = f"The answer broke off or could not be read ({name})."
        case _:
            message = f"The model provider could not be reached ({name})."
    return Failure(kind=kind, message=message, fix=FIXES[kind], detail={"error": name})


def evidence_of(error: anthropic.APIStatusError, *, secret: str) -> Evidence | None:
    """The error's body as it arrived, the key masked, cut at the cap."""
    if error.body is None:
        return None
    is_text = isinstance(error.body, str)
    text = error.body if isinstance(error.body, str) else json.dumps(error.body, separators=(",", ":"))
    body = _masked(text, secret).encode("utf-8", "replace")
    return Evidence(
        body=body[:EVIDENCE_CAP],
        media_type="text/plain" if is_text else "application/json",
        truncated=len(body) > EVIDENCE_CAP,
    )


def retry_after(headers: httpx2.Headers) -> timedelta | None:
    """How long the provider asks us to wait: `retry-after-ms`, or `Retry-After` as seconds or a date (RFC 9110
    §10.2.3; the date is taken relative to the response's own `Date`, so that no clock of ours is asked)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            seconds = _until(text, headers.get("date"))
        if 0 <= seconds < timedelta.max.total_seconds():
            return timedelta(seconds=seconds)
    return None


def _until(then: str, now: str | None) -> float:
    """Seconds between two HTTP dates, not below 0; -1 if either is none."""
    try:
        return max(0.0, (parsedate_to_datetime(then) - parsedate_to_datetime(now or "")).total_seconds())
    except (ValueError, TypeError):
        return -1.0


def _root(error: BaseException) -> BaseException:
    """The SDK wraps what the transport raised; the innermost says what happened."""
    while isinstance(error, anthropic.APIConnectionError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _masked(text: str, secret: str) -> str:
    return text.replace(secret, "***") if secret else text
