"""What a tool's owner knows about its answers: statuses that mean "not executed", repeats, and answers that come later.

Promises: the certainty table stays as it is unless a key here says otherwise; a key that could change nothing is a
fault, because its writer believes that it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from app.domain.definition.findings import Findings, shown
from app.domain.outcomes import JSON
from app.domain.schemas import escape
from app.domain.states import EffectClass

STATUSES: Final = ("unknown", "not_executed")
ON_202: Final = ("succeeded", "wait")
REPEATED: Final = ("succeeded", "failed")
RESULT_WITHIN_MS: Final = 10 * 60 * 1000
"""What a queue behind a 202 usually needs; longer work says so."""

_STATUS: Final = re.compile(r"[1-5][0-9]{2}", re.ASCII)


def check_answers(tool: Mapping[str, Any], *, effect: str | None, pointer: str, findings: Findings) -> dict[str, Any]:
    """`on_5xx`, `on_3xx`, `on_408`, `on_repeat_status`, `on_202`, `result_within` in the plan's form."""
    statuses = {
        key: findings.choice(tool, key, pointer, STATUSES) or "unknown" for key in ("on_5xx", "on_3xx", "on_408")
    }
    repeated = _repeated(tool.get("on_repeat_status"), f"{pointer}/on_repeat_status", findings)
    if tool.get("on_repeat_status") is not None and effect == EffectClass.READ_ONLY.value:
        detail = "`on_repeat_status` judges the repeat of an effect; this tool is read_only."
        findings.fault("misplaced_key", f"{pointer}/on_repeat_status", detail, "Remove it.")
    accepted = findings.choice(tool, "on_202", pointer, ON_202) or "succeeded"
    if accepted == "wait" and effect == EffectClass.READ_ONLY.value:
        detail = "`on_202: wait` waits for an effect to happen; this tool is read_only."
        findings.fault("misplaced_key", f"{pointer}/on_202", detail, "Remove it, or declare the tool's effect.")
    if tool.get("result_within") is not None and tool.get("on_202") in (None, "succeeded"):
        detail = "`result_within` without `on_202: wait`: nothing is waited for."
        findings.fault("misplaced_key", f"{pointer}/result_within", detail, "Add on_202: wait, or remove it.")
    within = findings.duration(tool, "result_within", pointer) or RESULT_WITHIN_MS
    return {**statuses, "on_repeat_status": repeated, "on_202": accepted, "result_within_ms": within}


def _repeated(value: JSON, pointer: str, findings: Findings) -> dict[str, str]:
    """Status → what it means. Text in a plan: the keys of JSON are."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        fix = "Write on_repeat_status: {404: succeeded}"
        findings.wrong_type(pointer, "`on_repeat_status` is a map from status to meaning", value, fix)
        return {}
    repeated = {}
    for status in value:
        if not _STATUS.fullmatch(status):
            fix = "Write the number of one status, from 100 to 599: {404: succeeded}"
            detail = f"`{shown(status)}` is not a status of HTTP."
            findings.fault("out_of_range", f"{pointer}/{escape(status)}", detail, fix)
            continue
        if value[status] is None:
            fix = f"Write {{{status}: succeeded}} or {{{status}: failed}}."
            findings.wrong_type(f"{pointer}/{status}", "a meaning is succeeded or failed", None, fix)
        repeated[status] = findings.choice(value, status, pointer, REPEATED) or "failed"
    return dict(sorted(repeated.items()))
