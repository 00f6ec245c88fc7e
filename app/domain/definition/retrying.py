"""`retry`: from failure kind (or group) to policy; judged here, merged over the server's defaults here.

Promises: the most specific key of the definition wins for a kind and is merged over the default key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from app.domain.definition import agents, vocabulary
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings, shown
from app.domain.durations import milliseconds
from app.domain.outcomes import JSON
from app.domain.plan import RetryPolicy
from app.domain.recovery_defaults import FORMAT_REMINDER, GROUPS, RECOVERY_DEFAULTS, RETRYABLE, rules_for
from app.domain.recovery_table import TABLE
from app.domain.schemas import escape
from app.domain.states import FailureKind

MOST_RETRIES: Final = 10_000
LARGEST_FACTOR: Final = 100

LEAST_IN_A_ROW: Final = 2
"""Once is not in a row."""

_REPAIRABLE: Final = GROUPS["malformed_output"]
_SWITCHING: Final = frozenset(row.kind for row in TABLE.values() if row.switches)
_IN_A_ROW: Final = frozenset(row.kind for row in TABLE.values() if row.after is not None)
_ONLY: Final = {"repair": _REPAIRABLE, "after": _IN_A_ROW, "switch_model": _SWITCHING, "switch_alias": _SWITCHING}
"""Words of a policy → the kinds that know them."""
_WORDS: Final = tuple(dict.fromkeys([*(kind.value for kind in RECOVERY_DEFAULTS if kind in RETRYABLE), *GROUPS]))


def check_retry(
    value: JSON, pointer: str, findings: Findings, *, catalogue: Catalogue, agent: bool = True
) -> dict[str, Any]:
    """The `retry` of a step, or of `defaults` → key → normalised policy (only what was written, durations in ms, model
    aliases resolved, and its line). `agent`: whether there is a model that could be switched."""
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
            policies[key] = _policy(key, policy, where, findings, catalogue=catalogue, agent=agent)
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


def _policy(
    key: str, value: JSON, pointer: str, findings: Findings, *, catalogue: Catalogue, agent: bool
) -> dict[str, Any]:
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
        "after": _after(key, policy, pointer, kinds, findings),
        "line": findings.line(pointer),
        **_switch(key, policy, pointer, kinds, findings, catalogue=catalogue, agent=agent),
    }
    return {name: item for name, item in written.items() if item is not None}


def _after(
    key: str, policy: Mapping[str, JSON], pointer: str, kinds: frozenset[FailureKind], findings: Findings
) -> int | None:
    if policy.get("after") is not None and not kinds & _IN_A_ROW:
        findings.fault(
            "misplaced_key",
            f"{pointer}/after",
            f"`after` has no meaning for `{key}`: what is done about it is done at once.",
            f"Put it under {' or '.join(sorted(kind.value for kind in _IN_A_ROW))}.",
        )
    return findings.whole(policy, "after", pointer, least=LEAST_IN_A_ROW, most=MOST_RETRIES)


def _switch(
    key: str,
    policy: Mapping[str, JSON],
    pointer: str,
    kinds: frozenset[FailureKind],
    findings: Findings,
    *,
    catalogue: Catalogue,
    agent: bool,
) -> dict[str, Any]:
    """The model that goes on, resolved like an agent's: a later change of settings changes no accepted workflow."""
    where = f"{pointer}/switch_model"
    alias = findings.text(policy, "switch_model", pointer)
    if alias is None:
        return {}
    if not agent:
        detail = "`switch_model` is about a model; this step calls a tool."
        findings.fault("misplaced_key", where, detail, "Remove it.")
    elif not kinds & _SWITCHING:
        listed = ", ".join(sorted(kind.value for kind in _SWITCHING))
        detail = f"`switch_model` has no meaning for `{key}`: another model would not help."
        findings.fault("misplaced_key", where, detail, f"Put it under one of {listed}.")
    return {"switch_model": agents.model_id(alias, where, findings, catalogue), "switch_alias": alias}


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
            "after": policy.after,
        }
        for kind, policy in RECOVERY_DEFAULTS.items()
    }


def merge(
    defaults: Mapping[str, Mapping[str, Any]],
    written: Mapping[str, Mapping[str, Any]],
    *,
    under: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[FailureKind, RetryPolicy]:
    """Every kind's policy, key by key: the most specific of the step's over the most specific of the definition's
    `defaults` (`under`) over the pinned default of the server."""
    kinds = {FailureKind(name): policy for name, policy in defaults.items()}
    return {kind: _merged(kind, policy, written, under or {}) for kind, policy in kinds.items()}


def _merged(
    kind: FailureKind,
    default: Mapping[str, Any],
    written: Mapping[str, Mapping[str, Any]],
    under: Mapping[str, Mapping[str, Any]],
) -> RetryPolicy:
    own, general = _speaking(kind, written), _speaking(kind, under)
    rule, said = own or general or (None, {})
    policy = {**default, **_meant(kind, general), **_meant(kind, own)}
    return RetryPolicy(
        max_retries=policy["max_retries"],
        first=timedelta(milliseconds=policy["first_ms"]),
        factor=policy["factor"],
        cap=timedelta(milliseconds=policy["cap_ms"]),
        repair=policy["repair"],
        rule=rule or kind.value,
        source="definition" if rule else "default",
        line=said.get("line"),
        after=policy.get("after"),
        switch_model=policy.get("switch_model"),
        switch_alias=policy.get("switch_alias"),
    )


Spoken = tuple[str, Mapping[str, Any]]
"""The key under `retry` that speaks for a kind, and what it says."""


def _speaking(kind: FailureKind, written: Mapping[str, Mapping[str, Any]]) -> Spoken | None:
    rule = next((rule for rule in rules_for(kind) if rule in written), None)
    return None if rule is None else (rule, written[rule])


def _meant(kind: FailureKind, spoken: Spoken | None) -> dict[str, Any]:
    """What it says for that kind: under `any` or `transient` some words speak only of the kinds that know them."""
    deaf = {word for word, kinds in _ONLY.items() if kind not in kinds}
    return {} if spoken is None else {word: item for word, item in spoken[1].items() if word not in deaf}
