"""`compile_plan`: plan body → `Plan`, with every expression compiled and every policy merged.

Trusts the body: it was made by `checking.check` and stored. A body this version cannot read is `UnknownPlanFormat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.domain.canonical import digest, document_digest
from app.domain.definition import budgeting, retrying, seen
from app.domain.definition.checking import BODY_FORMAT
from app.domain.definition.tools import ANSWER_SEES
from app.domain.expressions import compile_expression
from app.domain.outcomes import JSON
from app.domain.plan import Agent, Approval, Compensation, HttpTool, Plan, Probe, PythonTool, RetryPolicy, Step, Tool
from app.domain.rates import Rate
from app.domain.servers import McpServer, McpTool
from app.domain.states import EffectClass, FailureKind, StepKind
from app.domain.templates import Template, compile_template

_CONFIGURED = frozenset({"arguments", "secrets"})
_SECRETS = frozenset({"secrets"})


class UnknownPlanFormat(ValueError):
    """The stored plan was written by another release: this worker must not touch its workflows."""


def compile_plan(body: Mapping[str, JSON]) -> Plan:
    """The plan of a checked body. The same body gives an equal plan in every process."""
    if body.get("format") != BODY_FORMAT:
        raise UnknownPlanFormat(f"plan format {body.get('format')!r}, this release reads {BODY_FORMAT}")
    known: dict[str, McpServer] = {}
    tools = {name: _tool(tool, known) for name, tool in body["tools"].items()}
    servers = {name: server_of(name, server["place"], server["timeout_ms"]) for name, server in _waiting(body).items()}
    dependents: dict[str, list[str]] = {step["id"]: [] for step in body["steps"]}
    for step in body["steps"]:
        for need in step["needs"]:
            dependents[need].append(step["id"])
    # Most steps say nothing about retries: they share one table.
    plain = retrying.merge(body["recovery"], {}, under=body.get("retry_defaults"))
    return Plan(
        digest=document_digest(body),
        name=body["name"],
        description=body["description"],
        source_name=body["source_name"],
        labels=body["labels"],
        input_schema=body["input_schema"],
        tools=tools,
        steps={
            step["id"]: _step(
                step,
                body,
                tools,
                after=tuple(dependents[step["id"]]),
                retry=retrying.merge(body["recovery"], step["retry"], under=body.get("retry_defaults"))
                if step["retry"]
                else plain,
            )
            for step in body["steps"]
        },
        output=_template(body["output"], seen.WORKFLOW_SEES),
        deadline=_duration(body["deadline_ms"]),
        compensate_on=frozenset(body["compensate_on"]),
        on_failure=body["on_failure"],
        servers=servers,
        body=body if servers else None,
        budget=budgeting.limits_of(body.get("budget")),
        rates={model: Rate.from_json(rate) for model, rate in (body.get("rates") or {}).items()},
    )


def _waiting(body: Mapping[str, JSON]) -> Mapping[str, Any]:
    """MCP servers whose lists are not known yet."""
    return body.get("servers") or {}


def _step(
    step: dict[str, Any],
    body: Mapping[str, JSON],
    tools: Mapping[str, Tool],
    *,
    after: tuple[str, ...],
    retry: Mapping[FailureKind, RetryPolicy],
) -> Step:
    kind = StepKind(step["kind"])
    names = seen.ITEM_SEES if step["for_each"] is not None else seen.WORKFLOW_SEES
    # None while the list of its MCP server is not known.
    tool = tools.get(step["tool"]) if kind is StepKind.TOOL else None
    own_undo = _compensation(step.get("compensate"))
    return Step(
        id=step["id"],
        kind=kind,
        line=step["line"],
        title=_template(step["title"], names),
        needs=frozenset(step["needs"]),
        dependents=after,
        reads=frozenset(step["reads"]),
        condition=None if step["if"] is None else compile_expression(step["if"], names=seen.WORKFLOW_SEES),
        for_each=_template(step["for_each"], seen.WORKFLOW_SEES),
        max_parallel=step["max_parallel"],
        timeout=None if step["timeout_ms"] is None else _duration(step["timeout_ms"]),
        call_timeout=_call_timeout(kind, tool, body),
        retry=retry,
        on_error=step["on_error"],
        tool=tool,
        arguments=_template(step.get("with"), names),
        key=_template(step.get("key"), names),
        agent=_agent(step["agent"]) if kind is StepKind.AGENT else None,
        prompt=_template(step.get("prompt"), names),
        output_schema=step.get("output_schema"),
        values=_template(step.get("values"), names),
        approval=_approval(step["approval"], names) if kind is StepKind.APPROVAL else None,
        on_unknown_outcome=step.get("on_unknown_outcome"),
        compensate=tool.compensate if tool is not None and own_undo is None else own_undo,
        pivot=step["pivot"],
        servers=tuple(step.get("servers") or ()),
        missing=tuple(step.get("missing") or ()),
        budget=budgeting.limits_of(step.get("budget")),
    )


def _call_timeout(kind: StepKind, tool: Tool | None, body: Mapping[str, JSON]) -> timedelta:
    """Of one attempt."""
    if tool is not None:
        return tool.timeout
    return _duration(body["model_timeout_ms" if kind is StepKind.AGENT else "tool_timeout_ms"])


def _tool(tool: dict[str, Any], known: dict[str, McpServer]) -> Tool:
    """`known`: MCP servers of tools before it, so that those of one share it."""
    return Tool(
        name=tool["name"],
        description=tool["description"],
        input_schema=tool["input_schema"],
        http=_http(tool.get("http")),
        python=None if tool.get("python") is None else PythonTool(**tool["python"]),
        mcp=None if tool.get("mcp") is None else _mcp(tool["mcp"], known),
        max_output=tool.get("max_output"),
        effect=EffectClass(tool["effect"]),
        key_header=tool["key_header"],
        key_argument=tool["key_argument"],
        key_ttl=None if tool["key_ttl_ms"] is None else _duration(tool["key_ttl_ms"]),
        timeout=_duration(tool["timeout_ms"]),
        settle_time=_duration(tool["settle_ms"]),
        on_repeat=tool["on_repeat"],
        digest=digest(tool),
        probe=_probe(tool["probe"]),
        on_5xx=tool["on_5xx"],
        on_3xx=tool["on_3xx"],
        on_408=tool["on_408"],
        on_repeat_status={int(status): meaning for status, meaning in tool["on_repeat_status"].items()},
        on_202=tool["on_202"],
        result_within=_duration(tool["result_within_ms"]),
        approve=tool["approve"],
        approver=tool["approver"],
        approval_expires=_duration(tool["approval_expires_ms"]),
        trusted_output=tool["trusted_output"],
        compensate=_compensation(tool["compensate"]),
    )


def _http(http: dict[str, Any] | None) -> HttpTool | None:
    if http is None:
        return None
    path = http["path"]
    return HttpTool(
        method=http["method"],
        url=_required(http["url"], _CONFIGURED),
        headers={name: _required(value, _CONFIGURED) for name, value in http["headers"].items()},
        path=None if path is None else {name: _required(value, _CONFIGURED) for name, value in path.items()},
        query=_template(http["query"], _CONFIGURED),
        body=_template(http["body"], _CONFIGURED),
        output=_template(http.get("output"), ANSWER_SEES),
    )


def _mcp(mcp: dict[str, Any], known: dict[str, McpServer]) -> McpTool:
    name = mcp["server"]
    if name not in known:
        known[name] = server_of(name, mcp, mcp["timeout_ms"])
    return McpTool(server=known[name], definition=mcp["definition"], sha256=mcp["sha256"])


def server_of(name: str, place: dict[str, Any], timeout_ms: int) -> McpServer:
    """Where an MCP server is, of the checked form of its declaration."""
    command, url = place.get("command"), place.get("url")
    return McpServer(
        name=name,
        timeout=_duration(timeout_ms),
        command=None if command is None else tuple(command),
        environment={key: _required(value, _SECRETS) for key, value in (place.get("env") or {}).items()},
        url=_template(url, _SECRETS),
        headers={key: _required(value, _SECRETS) for key, value in (place.get("headers") or {}).items()},
    )


def _probe(probe: dict[str, Any] | None) -> Probe | None:
    if probe is None:
        return None
    return Probe(
        tool=probe["tool"],
        arguments=_required(probe["with"], seen.PROBE_SEES),
        found=compile_expression(probe["found"], names=seen.FOUND_SEES),
        result=_template(probe["result"], seen.FOUND_SEES),
        deadline=_duration(probe["deadline_ms"]),
    )


def _compensation(undo: dict[str, Any] | None) -> Compensation | None:
    if undo is None:
        return None
    return Compensation(tool=undo["tool"], arguments=_required(undo["with"], seen.UNDO_SEES))


def _agent(agent: dict[str, Any]) -> Agent:
    return Agent(
        name=agent["name"],
        model=agent["model"],
        alias=agent["alias"],
        instructions=agent["instructions"],
        tools=tuple(agent["tools"]),
        max_tokens=agent["max_tokens"],
        effort=agent["effort"],
        max_turns=agent["max_turns"],
        finish=agent.get("finish") or "fail",
    )


def _approval(approval: dict[str, Any], names: frozenset[str]) -> Approval:
    return Approval(
        title=_required(approval["title"], names),
        show=_template(approval["show"], names),
        allow=tuple(approval["allow"]),
        expires=None if approval["expires_ms"] is None else _duration(approval["expires_ms"]),
        on_expire=approval["on_expire"],
        on_reject=approval["on_reject"],
        approver=approval["approver"],
    )


def _template(value: JSON, names: frozenset[str]) -> Template | None:
    return None if value is None else compile_template(value, names=names)


def _required(value: JSON, names: frozenset[str]) -> Template:
    return compile_template(value, names=names)


def _duration(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)
