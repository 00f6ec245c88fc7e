"""Which programs may be started as MCP servers: the operator's word, `SUREFOOT_MCP_COMMANDS`.

What a tenant writes must not decide what runs on a worker; so a program has to be named here, exactly as `mcp.command`
names it. Whoever allows an interpreter, or `*`, allows everything.
"""

from __future__ import annotations


def allowed_commands(setting: str) -> frozenset[str]:
    return frozenset(word.strip() for word in setting.split(",") if word.strip())
