"""`check`: everything wrong with a definition in one pass, and the plan body if nothing is.

The plan body is the document made explicit: registered tools, model aliases and server defaults filled in, so that
nothing published or configured later changes a workflow that was accepted. `compiling.compile_plan` reads it.

Promises: never raises, whatever JSON comes in; the same document and catalogue give the same body and digests.
Never: resolves names, connects, or judges addresses (that is done at each send).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from app.domain.canonical import document_digest
from app.domain.definition import (
    agents,
    budgeting,
    defaulting,
    graph,
    limits,
    linking,
    retrying,
    seen,
    servers,
    steps,
    tools,
    vocabulary,
)
from app.domain.definition.catalogue import Catalogue, Checked
from app.domain.definition.defaulting import Defaults
from app.domain.definition.findings import Findings, shown
from app.domain.definition.kinds import Context
from app.domain.definition.steps import Judged
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.schemas import check_schema, escape, expand

BODY_FORMAT: Final = 2
"""The form of the plan body; a plan is stored for as long as its workflows."""
MOST_LABELS: Final = 64
LABEL_LENGTH: Final = 256
COMPENSATE_ON: Final = ("failure", "cancel")
ON_FAILURE: Final = ("compensate", "hold")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check(
    document: JSON, *, lines: Mapping[str, int] | None = None, source_name: str | None = None, catalogue: Catalogue
) -> Checked:
    """Checks a definition. `lines`: pointer → line, if the source was text (`source.read_text`)."""
    shape = limits.shape_faults(document, size_limit=catalogue.definition_limit)
    findings = Findings(lines=lines or {})
    if shape:
        found = tuple(replace(fault, line=findings.line(fault.pointer)) for fault in shape[:10])
        return Checked(plan_body=None, digest="", plan_digest=None, faults=found, warnings=())
    body = _Check(document, findings, catalogue).run()
    digest = document_digest(document)
    faults, warnings = _sorted(findings.faults), _sorted(findings.warnings)
    if faults:
        return Checked(plan_body=None, digest=digest, plan_digest=None, faults=faults, warnings=warnings)
    body = {"format": BODY_FORMAT, "definition_digest": digest, "source_name": source_name, **body}
    return Checked(plan_body=body, digest=digest, plan_digest=document_digest(body), faults=(), warnings=warnings)


def check_declaration(name: str, declaration: JSON, *, catalogue: Catalogue) -> tuple[Fault, ...]:
    """The faults of a tool's declaration by itself, for registering it; pointers are relative to the declaration.

    Tools that it names are looked up when a definition uses it: they may be registered later, or by the definition.
    """
    shape = limits.shape_faults(declaration, size_limit=catalogue.definition_limit)
    if shape:
        return tuple(shape[:10])
    findings = Findings(lines={})
    if servers.is_server(declaration):
        servers.check_server(name, declaration, "", findings=findings, catalogue=catalogue)
    else:
        tools.check_tool(name, declaration, "", findings=findings, catalogue=catalogue)
    return _sorted(findings.faults)


def _sorted(found: list[Fault]) -> tuple[Fault, ...]:
    """In the order of the text, where there are lines."""
    return tuple(sorted(found, key=_line))


def _line(fault: Fault) -> int:
    return fault.line or 0


class _Check:
    """One pass over one document."""

    def __init__(self, document: JSON, findings: Findings, catalogue: Catalogue) -> None:
        self.findings = findings
        self.catalogue = catalogue
        self.document = findings.keys(document, vocabulary.DEFINITION, "")

    def run(self) -> dict[str, Any]:
        name = self._name()
        input_schema = self._input()
        usable, own, unlisted = self._tools()
        defaults = defaulting.check_defaults(
            self.document.get("defaults"),
            tools=usable,
            servers=unlisted,
            findings=self.findings,
            catalogue=self.catalogue,
        )
        context = Context(
            findings=self.findings,
            catalogue=self.catalogue,
            tools=usable,
            agents=self._agents(usable, unlisted, defaults),
            servers=unlisted,
            defaults=defaults,
        )
        judged, needs = self._steps(context, input_schema)
        output = self._output(judged, input_schema)
        budget = budgeting.check_budget(self.document.get("budget"), "/budget", self.findings, whole=True)
        rates = budgeting.check_rates(budget, judged.values(), defaults.retry, self.findings, self.catalogue)
        asked = servers.carried(judged.values(), unlisted, known=usable)  # notes on each step which it needs
        return {
            "name": name,
            "description": self.findings.text(self.document, "description", ""),
            "labels": self._labels(),
            "input_schema": input_schema,
            "deadline_ms": round(self.catalogue.deadline * 1000),
            "tool_timeout_ms": round(self.catalogue.tool_timeout * 1000),
            "model_timeout_ms": round(self.catalogue.model_timeout * 1000),
            "recovery": retrying.defaults_body(),
            "retry_defaults": dict(defaults.retry),
            "compensate_on": self._compensate_on(),
            "on_failure": self.findings.choice(self.document, "on_failure", "", ON_FAILURE) or "compensate",
            "tools": linking.carried_tools(judged.values(), own, usable, input_schema, self.findings),
            "steps": [{**step.body, "needs": sorted(needs[step.id])} for step in judged.values()],
            "output": output,
            "budget": budget,
            "rates": rates,
            **asked,
        }

    def _name(self) -> str | None:
        name = self.findings.text(self.document, "name", "")
        if self.document.get("name") is None:
            self.findings.fault("missing_key", "", "The definition has no name.", "Add name: meeting-scheduler")
        elif name is not None and not _NAME.fullmatch(name):
            fix = "Use up to 100 letters, digits, - _ and dots."
            self.findings.fault("bad_name", "/name", f"`{shown(name)}` is not a name for a definition.", fix)
        return name

    def _labels(self) -> dict[str, str]:
        labels = self.document.get("labels")
        if labels is None:
            return {}
        if not isinstance(labels, dict):
            self.findings.wrong_type("/labels", "`labels` is a map of text to text", labels, "Write labels: {team: a}")
            return {}
        if len(labels) > MOST_LABELS:
            self.findings.fault("out_of_range", "/labels", f"At most {MOST_LABELS} labels.", "Remove some.")
        for key, value in labels.items():
            where = f"/labels/{escape(key)}"
            if not isinstance(value, str):
                self.findings.wrong_type(where, "a label is text", value, "Put it in quotes.")
            elif max(len(key), len(value)) > LABEL_LENGTH:
                self.findings.fault("out_of_range", where, f"At most {LABEL_LENGTH} characters.", "Shorten it.")
        return labels

    def _compensate_on(self) -> list[str]:
        """When effects are undone; an empty list: never."""
        value = self.document.get("compensate_on")
        if value is None:
            return list(COMPENSATE_ON)
        if not isinstance(value, list):
            fix = "Write compensate_on: [failure, cancel], or [] for never."
            self.findings.wrong_type("/compensate_on", "`compensate_on` is a list", value, fix)
            return []
        for index, word in enumerate(value):
            if word not in COMPENSATE_ON:
                like = vocabulary.nearest(word, COMPENSATE_ON) if isinstance(word, str) else None
                hint = f" Did you mean `{like}`?" if like else ""
                detail = f"{shown(word)} is not something after which effects are undone.{hint}"
                fix = f"Write one of {', '.join(COMPENSATE_ON)}."
                self.findings.fault("unknown_value", f"/compensate_on/{index}", detail, fix)
        return [word for word in COMPENSATE_ON if word in value]

    def _input(self) -> dict[str, Any] | None:
        schema = self.document.get("input")
        if schema is None:
            return None
        faults = check_schema(schema)
        for fault in faults:
            self.findings.fault(fault.code, f"/input{fault.pointer}", fault.detail, fault.fix)
        return None if faults else expand(schema)

    def _tools(self) -> tuple[dict[str, dict[str, Any]], list[str], dict[str, dict[str, Any]]]:
        """Every usable tool; the names of those declared here (they hide registered ones), in their order; and the MCP
        servers whose tools are not known before they are asked."""
        declared = self.document.get("tools")
        own: dict[str, dict[str, Any]] = {}
        found: dict[str, dict[str, Any]] = {}
        if isinstance(declared, dict):
            for name, value in declared.items():
                pointer, catalogue = f"/tools/{escape(name)}", self.catalogue
                if servers.is_server(value):
                    found[name] = servers.check_server(
                        name, value, pointer, findings=self.findings, catalogue=catalogue
                    )
                else:
                    own[name] = tools.check_tool(name, value, pointer, findings=self.findings, catalogue=catalogue)
        elif declared is not None:
            fix = "Write tools: {calendar.free_busy: {…}}"
            self.findings.wrong_type("/tools", "`tools` is a map from name to declaration", declared, fix)
        registered: dict[str, dict[str, Any]] = {}
        for name, value in self.catalogue.tools.items():
            if name not in own and name not in found:
                self._registered(name, value, registered, found)
        listed = [] if self.findings.faults else [each for each in found.values() if each["listed"] is not None]
        of_servers = {name: tool for server in listed for name, tool in servers.expand(server).items()}
        unlisted = {name: server for name, server in found.items() if server["listed"] is None}
        return {**registered, **of_servers, **own}, list(own), unlisted

    def _registered(
        self, name: str, declaration: JSON, plain: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]
    ) -> None:
        """A registered tool in the plan's form; left out if this version cannot carry it out (nobody can use it)."""
        findings = Findings(lines={})
        is_server = servers.is_server(declaration)
        judge = servers.check_server if is_server else tools.check_tool
        tool = judge(name, declaration, "", findings=findings, catalogue=self.catalogue)
        if not findings.faults:
            (found if is_server else plain)[name] = tool

    def _agents(
        self, usable: Mapping[str, JSON], unlisted: Mapping[str, dict[str, Any]], defaults: Defaults
    ) -> dict[str, dict[str, Any]]:
        declared = self.document.get("agents")
        if declared is None:
            return {}
        if not isinstance(declared, dict):
            fix = "Write agents: {writer: {model: fast}}"
            self.findings.wrong_type("/agents", "`agents` is a map from name to agent", declared, fix)
            return {}
        return {
            name: agents.check_agent(
                name,
                value,
                f"/agents/{escape(name)}",
                tools=usable,
                servers=unlisted,
                findings=self.findings,
                catalogue=self.catalogue,
                defaults=defaults.agent,
            )
            for name, value in declared.items()
        }

    def _steps(
        self, context: Context, input_schema: dict[str, Any] | None
    ) -> tuple[dict[str, Judged], dict[str, set[str]]]:
        if "steps" not in self.document:
            if not any(vocabulary.meant(key, vocabulary.DEFINITION) == "steps" for key in self.document):
                self.findings.fault("missing_key", "", "The definition has no steps.", "Add steps: {…}")
            return {}, {}
        written = steps.read_steps(self.document["steps"], self.findings, limit=self.catalogue.steps_limit)
        judged = {step.id: steps.judge(step, context) for step in written}
        known = frozenset(judged) | _ids(self.document["steps"])
        needs = {}
        for step in judged.values():
            reads = graph.check_references(
                step.references,
                judged,
                known=known,
                roots=_roots(input_schema),
                findings=self.findings,
                owner=step.id,
            )
            step.body["reads"] = sorted(reads)
            needs[step.id] = reads | graph.check_needs(step, known=known, steps=judged, findings=self.findings)
        graph.check_cycles(needs, judged, self.findings)
        return judged, needs

    def _output(self, judged: Mapping[str, Judged], input_schema: dict[str, Any] | None) -> JSON:
        output = self.document.get("output")
        if output is None:
            return None
        references = seen.in_template(output, seen.WORKFLOW_SEES, "/output", self.findings)
        graph.check_references(
            references,
            judged,
            known=frozenset(judged) | _ids(self.document.get("steps")),
            roots=_roots(input_schema),
            findings=self.findings,
            owner=None,
        )
        return output


def _roots(input_schema: dict[str, Any] | None) -> dict[str, Mapping[str, JSON] | None]:
    return {"input": input_schema, "workflow": seen.WORKFLOW_SCHEMA}


def _ids(written: JSON) -> frozenset[str]:
    """Ids of steps that were accused as a whole: a reference to one of them is not another fault."""
    if isinstance(written, dict):
        return frozenset(written)
    if isinstance(written, list):
        named = [item for item in written if isinstance(item, dict)]
        return frozenset(
            name for item in named for name in ([item["id"]] if isinstance(item.get("id"), str) else list(item))
        )
    return frozenset()
