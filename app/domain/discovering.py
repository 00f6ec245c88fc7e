"""The first step that uses an MCP server asks it what tools it has; the answer is pinned for the whole workflow.

    begin_or_fail(draft, row, step, …)  a `discover` call before the step's first own call
    listed(draft, row, call, result)    its answer: pinned, and the step goes on
    again(draft, row, call)             of a reopened step whose servers were never listed

What is pinned is a plan: the one the workflow has, with the server's tools in it, under a digest of its own. So every
later request offers the same bytes, after any crash, and nothing else has to know where a tool came from. Who lists
first pins: the answer to a discovery under way in another step or item is put aside. A discovery changes nothing: it
is repeated like any read, and fails its step when that is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.domain import calling, ending, fitting, gating
from app.domain.aggregate import Call, StepRow
from app.domain.definition import compiling, servers
from app.domain.definition.agents import MOST_TOOLS
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step
from app.domain.servers import Definition, McpServer
from app.domain.states import CallKind, CallState, EffectClass, FailureKind, StepKind, WorkflowStatus
from app.domain.transition import Draft, KeyWanted

_NAMED: Final = 12
"""Tools named in a message."""


def begin_or_fail(draft: Draft, row: StepRow, step: Step, *, key: str | None) -> None:
    """A step that needs servers asked, or names tools that they turned out not to have. `key`: its business key,
    rendered already: its inputs are frozen now, and not read again after the answer."""
    refused = _lacking(draft, step)
    if refused is not None:
        ending.fail_step(draft, row, refused)
    else:
        _ask(draft, row, draft.plan.servers[step.servers[0]], key=key, arguments=row.input)


def _ask(
    draft: Draft,
    row: StepRow,
    server: McpServer,
    *,
    key: str | None,
    arguments: JSON,
    retry_of: Call | None = None,
) -> Call:
    """`arguments`: of a tool step, as they were frozen; they stand in its row, which is not read again for them."""
    n, call_id = calling.next_number(draft, row)
    frozen = {"key": key, "arguments": arguments if row.kind == StepKind.TOOL else {}}
    request: dict[str, JSON] = {"server": server.name, "tool": server.name, "business_key": None, **frozen}
    call = Call(
        workflow_id=draft.workflow.id,
        id=call_id,
        tenant_id=draft.workflow.tenant_id,
        step=row.path,
        n=n,
        kind=CallKind.DISCOVER,
        tool=server.name,
        turn=row.turn,
        args_sha256=calling.hash_of(request),
        effect=EffectClass.READ_ONLY,
        state=CallState.DUE,
        request=request,
        timeout_ms=int(server.timeout.total_seconds() * 1000),
        settle_ms=0,
        retry_of=None if retry_of is None else retry_of.id,
        change=None if retry_of is None else {"change": "reopened", "diff": None},
        engine_version=draft.workflow.engine_version,
        created_at=draft.now,
    )
    return draft.add_call(call)


def again(draft: Draft, row: StepRow, call: Call) -> None:
    """`call`: the last discovery of a step that was reopened before it could begin."""
    server = draft.plan.servers.get(call.request["server"])
    if server is None:  # another step has listed it since
        _go_on(draft, row, call)
    else:
        frozen = call.request
        _ask(draft, row, server, key=frozen["key"], arguments=frozen["arguments"], retry_of=call)


def listed(draft: Draft, row: StepRow, call: Call, result: JSON) -> None:
    """The server answered. `result` is what its port made of the answer: `{"tools": [definition, …]}`."""
    draft.move_call(call, CallState.SUCCEEDED)
    call.recovery = [{**r, "result": r["result"] or "succeeded"} for r in call.recovery]
    if WorkflowStatus(draft.workflow.status).ending or row.counters.get("timed_out"):
        ending.call_gone(draft, row)
        return
    server = call.request["server"]
    if server in draft.plan.servers:
        definitions = _definitions(result)
        if definitions is None:
            ending.fail_step(draft, row, _unreadable(server, result), call=call)
            return
        _pin(draft, call, server, definitions)
    _go_on(draft, row, call)


def _definitions(result: JSON) -> list[Definition] | None:
    found = result.get("tools") if isinstance(result, Mapping) else None
    if not isinstance(found, list):
        return None
    return [each for each in found if isinstance(each, Mapping) and isinstance(each.get("name"), str)]


def _unreadable(server: str, result: JSON) -> Failure:
    why = result.get("reason") if isinstance(result, Mapping) else None
    return Failure(
        kind=FailureKind.TOOL_ERROR,
        message=f"The list of tools of the MCP server {server} cannot be used: {why or 'it is no list'}.",
        fix="Name the tools that are needed under `include`, or register the server with surefoot tool register.",
    )


def _pin(draft: Draft, call: Call, server: str, definitions: Sequence[Definition]) -> None:
    body, left_out = resolved(draft.plan.body or {}, server, definitions)
    draft.plan = compiling.compile_plan(body)
    draft.workflow.plan_digest = draft.plan.digest
    draft.transition.plan_body = body
    made = [name for name, tool in draft.plan.tools.items() if tool.mcp is not None and tool.mcp.server.name == server]
    data = {"server": server, "plan": draft.plan.digest, "tools": made, "left_out": left_out}
    draft.event("agent.tools.listed", call=call, data=data)


def resolved(
    body: Mapping[str, JSON], server: str, definitions: Sequence[Definition]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """(the plan body with that server's tools in it, what of the list cannot be used and why)."""
    made, left_out = servers.tools_of(body["servers"][server], definitions)
    tools = {**made, **body["tools"]}
    waiting = {name: each for name, each in body["servers"].items() if name != server}
    steps = [_resolved_step(step, server, made) for step in body["steps"]]
    changed = {**body, "tools": {name: tools[name] for name in sorted(tools)}, "steps": steps, "servers": waiting}
    return changed, left_out


def _resolved_step(step: dict[str, Any], server: str, made: Mapping[str, Any]) -> dict[str, Any]:
    if server not in (step.get("servers") or ()):
        return step
    step = {**step, "servers": [name for name in step["servers"] if name != server]}
    missing = list(step.get("missing") or ())
    if step["kind"] == StepKind.TOOL:
        return step if step["tool"] in made else {**step, "missing": [*missing, step["tool"]]}
    names: list[str] = []
    for entry in step["agent"]["tools"]:
        if not entry.startswith(f"{server}."):
            found = [entry]
        elif entry == f"{server}.*":
            found = sorted(made)
        else:
            found = [entry] if entry in made else []
            missing += [] if found else [entry]
        names += [name for name in found if name not in names]
    return {**step, "agent": {**step["agent"], "tools": names}, "missing": missing}


# --- the step goes on ----------------------------------------------------------------------------------------------


def _go_on(draft: Draft, row: StepRow, call: Call) -> None:
    """`call`: the discovery, which has the step's frozen input."""
    step, frozen = draft.plan.steps[row.name], call.request
    refused = _lacking(draft, step)
    if refused is not None:
        ending.fail_step(draft, row, refused)
    elif step.servers:
        server = draft.plan.servers[step.servers[0]]
        _ask(draft, row, server, key=frozen["key"], arguments=frozen["arguments"])
    elif step.agent is not None:
        calling.model_call(draft, row, step)
    else:
        _call_tool(draft, row, step, key=frozen["key"], arguments=frozen["arguments"])


def _lacking(draft: Draft, step: Step) -> Failure | None:
    offered = step.agent.tools if step.agent is not None else ()
    if len(offered) > MOST_TOOLS:
        return Failure(
            kind=FailureKind.INVALID_REQUEST,
            message=f"The step's MCP servers have {len(offered)} tools; a model is offered at most {MOST_TOOLS}.",
            fix="Name the ones it needs under the server's `include`.",
        )
    if not step.missing:
        return None
    has = [name for name, tool in draft.plan.tools.items() if tool.mcp is not None]
    more = f" and {len(has) - _NAMED} more" if len(has) > _NAMED else ""
    return Failure(
        kind=FailureKind.TOOL_UNKNOWN,
        message=f"There is no tool {', '.join(step.missing)}: its MCP server has {', '.join(has[:_NAMED])}{more}."
        if has
        else f"There is no tool {', '.join(step.missing)}: its MCP server lists none that can be used.",
        fix="Correct the name in the definition, or the server's `include`.",
    )


def _call_tool(draft: Draft, row: StepRow, step: Step, *, key: str | None, arguments: JSON) -> None:
    tool = step.tool
    if tool is None:
        raise ValueError(f"{step.id} has no tool although every server was listed")
    row.input = arguments
    unfit = fitting.misfit(tool, arguments)
    if unfit is not None:
        ending.fail_step(draft, row, unfit)
    elif key is not None and tool.effect is EffectClass.KEYED:
        wanted = KeyWanted(
            step=row.path,
            call_id=calling.call_id(draft, row, row.calls + 1),
            tool=tool.name,
            key=key,
            args_sha256=calling.hash_of(row.input),
        )
        draft.transition.keys_wanted.append(wanted)
    else:
        call = calling.tool_call(draft, row, tool, row.input)
        if gating.gated(draft, row, tool):
            gating.hold(draft, row, tool, call)
