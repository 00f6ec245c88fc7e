"""`retry`: from failure kind (or group) to policy; judged here, merged over the server's defaults here.

Promises: the most specific key of the definition wins for a kind and is merged over the default key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from app.domain.definition import vocabulary
from app.domain.definition.findings import Findings, shown
from app.domain.durations import milliseconds
from app.domain.outcomes import JSON
from app.domain.plan import RetryPolicy
from app.domain.recovery_defaults import FORMAT_REMINDER, GROUPS, RECOVERY_DEFAULTS, RETRYABLE, rules_for
from app.domain.schemas import escape
from app.domain.states import FailureKind

MOST_RETRIES: Final = 10_000
LARGEST_FACTOR: Final = 100

_REPAIRABLE: Final = GROUPS["malformed_output"]
_WORDS: Final = tuple(dict.fromkeys([*(kind.value for kind in RECOVERY_DEFAULTS if kind in RETRYABLE), *GROUPS]))


def check_retry(value: JSON, pointer: str, findings: Findings) -> dict[str, Any]:
    """The `retry` of a step → key → normalised policy (only what was written, durations in ms, and its line)."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        fix = "Write retry: {transient: {max_retries: 3}}"
        findings.wrong_type(pointer, "`retry` is a map from failure kind to policy", value, fix)
        return {}
    policies = {}
    for key, policy in value.items():
        where = f"{pointer}/{escape(key)}"
        if _known(key, where, findings):
            policies[key] = _policy(key, policy, where, findings)
    return policies


def _known(key: str, where: str, findings: Findings) -> bool:
    if key in _WORDS:
        return True
    if key in {kind.value for kind in FailureKind}:
        findings.fault(
            "not_retryable",
            where,
            f"`{key}` is never retried: repeating cannot help, or the tool's effect class decides.",
            "Leave it out; use on_error: continue to go on without the step.",
        )
        return False
    if key in vocabulary.POLICY.known or key in vocabulary.POLICY.typed:
        word = vocabulary.POLICY.typed.get(key, key)
        findings.fault(
            "unknown_failure_kind",
            where,
            f"`{key}` stands directly under `retry`; there stand failure kinds.",
            f"Write retry: {{any: {{{word.split('.')[0]}: …}}}}",
        )
        return False
    like = vocabulary.nearest(key, _WORDS)
    hint = f" Did you mean `{like}`?" if like else ""
    fix = f"Write one of {', '.join(_WORDS)}."
    findings.fault("unknown_failure_kind", where, f"`{shown(key)}` is not a failure kind.{hint}", fix)
    return False


def _policy(key: str, value: JSON, pointer: str, findings: Findings) -> dict[str, Any]:
    policy = findings.keys(value, vocabulary.POLICY, pointer)
    backoff: dict[str, Any] = {}
    if policy.get("backoff") is not None:
        backoff = findings.keys(policy["backoff"], vocabulary.BACKOFF, f"{pointer}/backoff")
    kinds = GROUPS.get(key) or frozenset({FailureKind(key)})
    repair = findings.choice(policy, "repair", pointer, (FORMAT_REMINDER,))
    if repair is not None and not kinds & _REPAIRABLE:
        findings.fault(
            "misplaced_key",
            f"{pointer}/repair",
            f"`repair: {repair}` has no meaning for `{key}`: the same request is sent again.",
            "Put it under malformed_output.",
        )
    written = {
        "max_retries": findings.whole(policy, "max_retries", pointer, least=0, most=MOST_RETRIES),
        "first_ms": findings.duration(backoff, "first", f"{pointer}/backoff"),
        "factor": _factor(backoff, f"{pointer}/backoff", findings),
        "cap_ms": findings.duration(backoff, "max", f"{pointer}/backoff"),
        "repair": repair,
        "line": findings.line(pointer),
    }
    return {name: item for name, item in written.items() if item is not None}


def _factor(backoff: Mapping[str, JSON], pointer: str, findings: Findings) -> float | None:
    value = backoff.get("factor")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= LARGEST_FACTOR:
        detail = f"`factor` is a number from 1 to {LARGEST_FACTOR}."
        findings.fault("out_of_range", f"{pointer}/factor", detail, "Write factor: 2")
        return None
    return float(value)


# --- merging -------------------------------------------------------------------------------------------------------


def defaults_body() -> dict[str, Any]:
    """The server's defaults as they are pinned in a plan body."""
    return {
        kind.value: {
            "max_retries": policy.max_retries,
            "first_ms": milliseconds(policy.first),
            "factor": policy.factor,
            "cap_ms": milliseconds(policy.cap),
            "repair": policy.repair,
        }
        for kind, policy in RECOVERY_DEFAULTS.items()
    }


def merge(
    defaults: Mapping[str, Mapping[str, Any]], written: Mapping[str, Mapping[str, Any]]
) -> dict[FailureKind, RetryPolicy]:
    """Every kind's policy: the definition's most specific over the pinned default, key by key."""
    merged = {}
    for name, default in defaults.items():
        kind = FailureKind(name)
        rule = next((rule for rule in rules_for(kind) if rule in written), None)
        own = written[rule] if rule is not None else {}
        # `repair` under `any` or `transient` speaks only of the kinds it can mend.
        policy = {**default, **{key: item for key, item in own.items() if key != "repair" or kind in _REPAIRABLE}}
        merged[kind] = RetryPolicy(
            max_retries=policy["max_retries"],
            first=timedelta(milliseconds=policy["first_ms"]),
            factor=policy["factor"],
            cap=timedelta(milliseconds=policy["cap_ms"]),
            repair=policy["repair"],
            rule=rule or name,
            source="definition" if rule else "default",
            line=own.get("line"),
        )
    return merged
