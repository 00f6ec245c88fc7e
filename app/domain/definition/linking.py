"""Tools that name other tools: every `probe` and `compensate` looked up, and which tools a plan thereby carries.

A plan holds the tools its steps and agents name, the probes and compensations of those, and the probes of these
compensations. A compensation's own `compensate` is not carried: an undo is not undone.

Promises: a tool of the document is accused at its own place, a registered one where it is used (its declaration is not
in the document); each tool is judged once, however many steps use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.definition import agents, arguments, compensations, seen
from app.domain.definition.findings import Findings, shown
from app.domain.definition.steps import Judged
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.schemas import escape
from app.domain.states import EffectClass


def carried_tools(
    steps: Iterable[Judged],
    own: Iterable[str],
    tools: Mapping[str, dict[str, Any]],
    input_schema: Mapping[str, JSON] | None,
    findings: Findings,
) -> dict[str, dict[str, Any]]:
    """The tools of the plan by name, sorted. `own`: declared in the document; `tools`: every usable one."""
    linking = _Linking(frozenset(own), tools, input_schema, findings)
    undone_by: list[tuple[str, str]] = []
    for name in own:
        linking.follow(name, f"/tools/{escape(name)}")
    for step in steps:
        for name, pointer in _named(step):
            linking.follow(name, pointer)
        if step.body.get("compensate") is not None:
            undone_by.append((step.body["compensate"]["tool"], f"{step.pointer}/compensate/tool"))
    # Only now: a tool that a step names as well keeps its own compensation.
    for name, pointer in [*undone_by, *linking.undone_by]:
        linking.follow_undo(name, pointer)
    return {name: linking.carried[name] for name in sorted(linking.carried)}


def _named(step: Judged) -> list[tuple[str, str]]:
    if isinstance(step.body.get("tool"), str):
        return [(step.body["tool"], f"{step.pointer}/tool")]
    agent = step.body.get("agent")
    return [(name, f"{step.pointer}/agent") for name in agent["tools"]] if agent else []


class _Linking:
    def __init__(
        self,
        own: frozenset[str],
        tools: Mapping[str, dict[str, Any]],
        input_schema: Mapping[str, JSON] | None,
        findings: Findings,
    ) -> None:
        self.own = own
        self.tools = tools
        self.roots = {"input": input_schema}
        self.findings = findings
        self.carried: dict[str, dict[str, Any]] = {}
        self.undone_by: list[tuple[str, str]] = []
        """(compensation tool, where the tool that names it stands)."""

    def follow(self, name: str, pointer: str) -> None:
        """A tool that is used by itself: its probe and its compensation come along."""
        tool = self.tools.get(name)
        if tool is None or name in self.carried:
            return
        self.carried[name] = tool
        self._probe(name, tool, pointer)
        undo = tool["compensate"]
        if undo is not None:
            found = Findings(lines={})
            references = seen.in_template(undo["with"], seen.UNDO_SEES, "/compensate/with", found)
            for reference in references:
                seen.check_fields(reference, self.roots, found)
            if not self._accused(undo["tool"]):
                compensations.check_undoing(undo, "/compensate", self.tools, found)
            self._report(name, pointer, found)
            self.undone_by.append((undo["tool"], pointer))

    def follow_undo(self, name: str, pointer: str) -> None:
        """A tool that undoes another: only its probe comes along."""
        tool = self.tools.get(name)
        if tool is None or name in self.carried:
            return
        self.carried[name] = {**tool, "compensate": None}
        self._probe(name, tool, pointer)

    def _probe(self, name: str, tool: Mapping[str, Any], pointer: str) -> None:
        probe = tool["probe"]
        if probe is None or probe["tool"] is None:
            return
        found = Findings(lines={})
        references = [
            *seen.in_template(probe["with"], seen.PROBE_SEES, "/probe/with", found),
            *seen.in_template(probe["result"], seen.FOUND_SEES, "/probe/result", found),
        ]
        if probe["found"] is not None:
            references += seen.in_expression(probe["found"], seen.FOUND_SEES, "/probe/found", found) or []
        for reference in references:
            seen.check_fields(reference, self.roots, found)
        if not self._accused(probe["tool"]):
            self._check_probing(name, probe, found)
        self._report(name, pointer, found)
        asked = self.tools.get(probe["tool"])
        if asked is not None:
            self.carried.setdefault(probe["tool"], asked)

    def _check_probing(self, name: str, probe: Mapping[str, Any], found: Findings) -> None:
        where, asked = "/probe/tool", self.tools.get(probe["tool"])
        if asked is None:
            agents.unknown_tool(probe["tool"], where, self.tools, found)
            return
        if asked["effect"] != EffectClass.READ_ONLY.value:
            what = "itself" if probe["tool"] == name else f"`{shown(probe['tool'])}`, which is {asked['effect']}"
            detail = f"The probe asks {what}: asking must change nothing."
            found.fault("probe_not_read_only", where, detail, "Name a tool with effect: read_only.")
            return
        if asked["approve"] != "never":
            detail = f"`{shown(probe['tool'])}` needs an approval; a probe is asked by the engine."
            found.fault("probe_needs_approval", where, detail, "Name a tool with approve: never.")
        arguments.check_arguments(
            probe["with"],
            asked["input_schema"],
            key_argument=None,
            pointer="/probe/with" if probe["with"] else "/probe",
            findings=found,
        )

    def _accused(self, name: str) -> bool:
        """A tool of the document that has faults already: what it is cannot be judged by what was left of it."""
        place = f"/tools/{escape(name)}"
        return name in self.own and any(
            fault.pointer == place or fault.pointer.startswith(f"{place}/") for fault in self.findings.faults
        )

    def _report(self, name: str, pointer: str, found: Findings) -> None:
        for faults, tell in ((found.faults, self.findings.fault), (found.warnings, self.findings.warn)):
            for fault in faults:
                where, detail = self._placed(name, pointer, fault)
                tell(fault.code, where, detail, fault.fix)

    def _placed(self, name: str, pointer: str, fault: Fault) -> tuple[str, str]:
        if name in self.own:
            return f"/tools/{escape(name)}{fault.pointer}", fault.detail
        detail = f"Registered tool `{shown(name)}`, {fault.pointer[1:].replace('/', '.')}: {fault.detail}"
        return pointer, detail
