"""The certainty table as data: one row for each thing that can be seen, the first that fits wins.

Every row names its source: the table of effects.md, or the section of the RFC that says what the answer means.
Statuses not in RFC 9110 fall through to the row of their class, as RFC 9110 §15 asks of clients. What a tool's owner
has declared is part of the lookup: such a row stands before the one it replaces, and fits only where it was declared.
"""

from __future__ import annotations

from collections.abc import Container, Set
from dataclasses import dataclass

from app.domain.observations import Declaration, Observation
from app.domain.states import EARLY_CLASSES, AttemptOutcome, EffectClass, FailureKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    seen: Observation
    outcome: AttemptOutcome
    kind: FailureKind | None
    """None exactly for success."""
    message: str
    """`{tool}`, `{status}` and `{detail}` are filled in."""
    fix: str | None = None
    source: str
    statuses: Container[int] | None = None
    """Statuses the row speaks of; None: any, or none at all."""
    effects: frozenset[EffectClass] | None = None
    """Effect classes the row speaks of; None: every one."""
    declared: Declaration | None = None
    """The row speaks only of tools that declare this; None: of every tool."""
    not_executed: bool = False
    """The answer says that nothing was done: the same bytes, key included, may go again, whatever the class."""
    pending: bool = False
    """The tool has taken the request on and will tell its result later."""

    def fits(
        self, observation: Observation, status: int | None, effect: EffectClass, declared: Set[Declaration]
    ) -> bool:
        return (
            self.seen is observation
            and (self.statuses is None or (status is not None and status in self.statuses))
            and (self.effects is None or effect in self.effects)
            and (self.declared is None or self.declared in declared)
        )


SUCCESS = (*range(200, 300), 303)
"""2xx, and 303: the request was carried out and its result is elsewhere (RFC 9110 §15.4.4)."""


def _not_sent(
    seen: Observation, kind: FailureKind, message: str, *, fix: str | None = None, source: str = "effects.md, Certainty"
) -> Row:
    return Row(seen=seen, outcome=AttemptOutcome.NOT_SENT, kind=kind, message=message, fix=fix, source=source)


def _unknown(
    seen: Observation, kind: FailureKind, message: str, *, fix: str | None = None, source: str = "effects.md, Certainty"
) -> Row:
    return Row(seen=seen, outcome=AttemptOutcome.UNKNOWN, kind=kind, message=message, fix=fix, source=source)


def _answer(
    statuses: Container[int],
    outcome: AttemptOutcome,
    kind: FailureKind | None,
    message: str,
    *,
    source: str,
    fix: str | None = None,
    effects: frozenset[EffectClass] | None = None,
    not_executed: bool = False,
) -> Row:
    return Row(
        seen=Observation.ANSWERED,
        statuses=statuses,
        outcome=outcome,
        kind=kind,
        message=message,
        fix=fix,
        source=source,
        effects=effects,
        not_executed=not_executed,
    )


def _not_executed(statuses: Container[int], kind: FailureKind, declared: Declaration) -> Row:
    """By the declaration only: no RFC says of such an answer that nothing was done."""
    return Row(
        seen=Observation.ANSWERED,
        statuses=statuses,
        outcome=AttemptOutcome.FAILED,
        kind=kind,
        message=f"{{tool}} answered {{status}}; it did not act, as it declares (`{declared.value}`).",
        fix="Read the tool's answer on this call.",
        source="effects.md, Certainty: unless the tool declares it",
        declared=declared,
        not_executed=True,
    )


def _accepted(seen: Observation) -> Row:
    """A cut answer to a 202 says no less: what is missing is not the result, that comes later."""
    return Row(
        seen=seen,
        statuses=(202,),
        outcome=AttemptOutcome.UNKNOWN,
        kind=FailureKind.TIMEOUT,
        message="{tool} accepted (202); its result is waited for.",
        fix="Let the tool post it to the Surefoot-Result-Url of the request, or declare a probe.",
        source="RFC 9110 §15.3.3: the request might or might not eventually be acted upon",
        declared=Declaration.ACCEPTED_IS_PENDING,
        pending=True,
    )


_LOOK = "Look at the tool's own records whether it took effect."

TABLE: tuple[Row, ...] = (
    # --- before the first byte --------------------------------------------------------------------------------------
    _not_sent(
        Observation.FENCED,
        FailureKind.WORKER_LOST,
        "The worker was no longer sure of its lease, so {tool} was not asked.",
        source="effects.md, Sequence: self-fence",
    ),
    _not_sent(
        Observation.FORBIDDEN,
        FailureKind.OUTBOUND_FORBIDDEN,
        "{tool} was not asked: {detail}.",
        fix="Use a public address, or let the operator add the host to SUREFOOT_OUTBOUND_ALLOW.",
        source="api.md, Outbound safety",
    ),
    _not_sent(
        Observation.SECRET_MISSING,
        FailureKind.AUTH,
        "{tool} was not asked: {detail}.",
        fix="Add it to SUREFOOT_SECRETS of the workers and restart them.",
        source="definitions.md, Rules 7",
    ),
    _not_sent(
        Observation.EXPRESSION_FAILED,
        FailureKind.EXPRESSION_ERROR,
        "{tool} was not asked: its request could not be made: {detail}.",
        fix="Correct the expression in the tool's `http`.",
        source="definitions.md, Tools",
    ),
    _not_sent(
        Observation.REQUEST_INVALID,
        FailureKind.INVALID_REQUEST,
        "{tool} was not asked: {detail}.",
        fix="Correct the tool's `http` or the arguments.",
        source="RFC 9112 §2.2: a sender must not generate an invalid message",
    ),
    _not_sent(
        Observation.DNS_FAILED,
        FailureKind.NETWORK,
        "{tool} was not reached: {detail}.",
        fix="Check the host name in the tool's url.",
    ),
    _not_sent(
        Observation.CONNECT_FAILED,
        FailureKind.NETWORK,
        "{tool} was not reached: {detail}.",
        fix="Check that the tool is up and listens on that port.",
    ),
    _not_sent(
        Observation.TLS_FAILED,
        FailureKind.NETWORK,
        "{tool} was not asked: {detail}.",
        fix="Check the certificate of the tool's host.",
    ),
    _not_sent(
        Observation.POOL_TIMEOUT,
        FailureKind.TIMEOUT,
        "{tool} was not asked: no connection was free in time.",
        fix="Raise the tool's timeout or lower the concurrency.",
    ),
    _not_sent(
        Observation.DEADLINE_UNSENT,
        FailureKind.TIMEOUT,
        "{tool} was not reached in time: {detail}.",
        fix="Check that the tool is reachable, or raise its timeout.",
        source="effects.md, Certainty: connect failure",
    ),
    _not_sent(
        Observation.DEFECT_UNSENT,
        FailureKind.INTERNAL,
        "{tool} was not asked: a defect of ours ({detail}).",
        fix="Report it with the workflow's id.",
        source="effects.md, Payload hygiene",
    ),
    # --- after the first byte, without an answer --------------------------------------------------------------------
    _unknown(
        Observation.WRITE_ERROR,
        FailureKind.NETWORK,
        "The connection to {tool} broke while the request was being sent; it may have arrived.",
        fix=_LOOK,
    ),
    _unknown(
        Observation.READ_ERROR,
        FailureKind.NETWORK,
        "{tool} was asked, but the connection broke before its answer ({detail}).",
        fix=_LOOK,
    ),
    _unknown(
        Observation.PROTOCOL_ERROR,
        FailureKind.NETWORK,
        "{tool} was asked, but what came back is not an HTTP answer ({detail}).",
        fix=_LOOK,
    ),
    _unknown(
        Observation.DEADLINE,
        FailureKind.TIMEOUT,
        "{tool} was asked and did not answer in time ({detail}).",
        fix=f"{_LOOK} If it is only slow, raise its timeout.",
    ),
    _unknown(
        Observation.DEFECT,
        FailureKind.INTERNAL,
        "{tool} was asked, but a defect of ours lost the answer ({detail}).",
        fix=f"{_LOOK} Report it with the workflow's id.",
        source="effects.md, Payload hygiene",
    ),
    # --- the answer's status arrived, its body broke off ------------------------------------------------------------
    _accepted(Observation.ANSWER_CUT),
    # The status says that it was done. Where repeating is harmless the whole answer is worth asking again; where it
    # is not, a known success with an opaque output is better than a doubt.
    Row(
        seen=Observation.ANSWER_CUT,
        statuses=SUCCESS,
        effects=EARLY_CLASSES,
        outcome=AttemptOutcome.UNKNOWN,
        kind=FailureKind.NETWORK,
        message="{tool} answered {status}, but the connection broke before the end of its answer ({detail}).",
        fix=_LOOK,
        source="RFC 9112 §8: an incomplete message; effects.md: read error",
    ),
    Row(
        seen=Observation.ANSWER_CUT,
        statuses=SUCCESS,
        outcome=AttemptOutcome.SUCCEEDED,
        kind=None,
        message="",
        source="effects.md, Certainty: an unreadable body is still succeeded, output opaque",
    ),
    # --- the answer's status ----------------------------------------------------------------------------------------
    _accepted(Observation.ANSWERED),
    _answer(
        SUCCESS,
        AttemptOutcome.SUCCEEDED,
        None,
        "",
        source="RFC 9110 §15.3, §15.4.4 (303)",
    ),
    _answer(
        (304,),
        AttemptOutcome.UNKNOWN,
        FailureKind.SERVER_ERROR,
        "{tool} answered 304 (not modified) to a request that was not conditional; whether it acted is not known.",
        fix=_LOOK,
        source="RFC 9110 §15.4.5",
    ),
    _not_executed(range(300, 400), FailureKind.TOOL_ERROR, Declaration.REDIRECT_NOT_EXECUTED),
    _answer(
        range(300, 400),
        AttemptOutcome.UNKNOWN,
        FailureKind.TOOL_ERROR,
        "{tool} answered {status} (a redirect, which is never followed); whether it acted is not known.",
        fix="Point the tool's url at the final address, https and trailing slash included.",
        source="RFC 9110 §15.4: further action is needed, nothing is said about what was done",
    ),
    _answer(
        (401, 403, 407),
        AttemptOutcome.FAILED,
        FailureKind.AUTH,
        "{tool} refused our credentials ({status}).",
        fix="Check the secret that the tool's headers use, and what it is allowed to do.",
        source="RFC 9110 §15.5.2, §15.5.4, §15.5.8: not applied",
    ),
    _not_executed((408,), FailureKind.TIMEOUT, Declaration.TIMEOUT_NOT_EXECUTED),
    _answer(
        (408,),
        AttemptOutcome.UNKNOWN,
        FailureKind.TIMEOUT,
        "{tool} answered 408 (request timeout); whether it acted is not known.",
        fix=_LOOK,
        source="RFC 9110 §15.5.9; effects.md: gateways send it for a request that went on",
    ),
    _answer(
        (409,),
        AttemptOutcome.UNKNOWN,
        FailureKind.SERVER_ERROR,
        "{tool} answered 409: a request with this key is still in progress there.",
        fix=_LOOK,
        effects=frozenset({EffectClass.KEYED}),
        source="draft-ietf-httpapi-idempotency-key-header §2.7",
    ),
    _answer(
        (425, 429),
        AttemptOutcome.FAILED,
        FailureKind.RATE_LIMITED,
        "{tool} asked to come back later ({status}); it did not act.",
        source="RFC 8470 §5.2 (425), RFC 6585 §4 (429): not executed",
        not_executed=True,
    ),
    _answer(
        range(400, 500),
        AttemptOutcome.FAILED,
        FailureKind.TOOL_ERROR,
        "{tool} refused the request ({status}).",
        fix="Read the tool's answer on this call and correct the arguments.",
        source="RFC 9110 §15.5: the client seems to have erred; effects.md: definite for this attempt",
    ),
    _not_executed(range(500, 600), FailureKind.SERVER_ERROR, Declaration.SERVER_ERROR_NOT_EXECUTED),
    _answer(
        range(500, 600),
        AttemptOutcome.UNKNOWN,
        FailureKind.SERVER_ERROR,
        "{tool} answered {status}; whether it acted is not known.",
        fix=_LOOK,
        source="RFC 9110 §15.6: the server failed on an apparently valid request, at an unknown point",
    ),
    _answer(
        range(1000),
        AttemptOutcome.UNKNOWN,
        FailureKind.SERVER_ERROR,
        "{tool} answered {status}, which is no final answer; whether it acted is not known.",
        fix=_LOOK,
        source="RFC 9110 §15.2 (1xx is interim), §15 (outside 100 to 599 is invalid)",
    ),
)


UNSENT = frozenset(row.seen for row in TABLE if row.outcome is AttemptOutcome.NOT_SENT)
"""Seen before any byte of the request left: by the sender's own testimony nothing happened at the tool."""
