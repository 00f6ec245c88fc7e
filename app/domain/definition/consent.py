"""Who must agree before a tool is called, and whether what it answers may be believed.

Promises: without a word here nobody is asked and the output counts as foreign (`trusted_output: false`): what reads it
is tainted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.domain.definition.findings import Findings

APPROVE: Final = ("never", "always", "when_tainted")
APPROVER: Final = ("anyone", "other_than_submitter")
EXPIRES_MS: Final = 24 * 60 * 60 * 1000
"""A day: whoever is asked in the evening may answer in the morning, and what was read is still what happens."""


def check_consent(tool: Mapping[str, Any], *, pointer: str, findings: Findings) -> dict[str, Any]:
    """`approve`, `approver`, `approval_expires`, `trusted_output` in the plan's form."""
    approve = findings.choice(tool, "approve", pointer, APPROVE) or "never"
    if tool.get("approve") in (None, "never"):
        for key in ("approver", "approval_expires"):
            if tool.get(key) is not None:
                detail = f"`{key}` without `approve`: nobody is asked."
                fix = "Add approve: always or approve: when_tainted, or remove it."
                findings.fault("misplaced_key", f"{pointer}/{key}", detail, fix)
    return {
        "approve": approve,
        "approver": findings.choice(tool, "approver", pointer, APPROVER) or "anyone",
        "approval_expires_ms": findings.duration(tool, "approval_expires", pointer) or EXPIRES_MS,
        "trusted_output": findings.flag(tool, "trusted_output", pointer),
    }
