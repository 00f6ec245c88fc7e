"""The past of an agent step whose conversation is to begin anew, read for the decision that writes its first message.

    load    task, latest input and effects of each step that asks for them, into its snapshot

Bounded however long the step has run. Reads only; nothing of it is locked, because messages never change and the
step's effects are settled before its model is asked anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.aggregate import Snapshot
from app.domain.histories import EFFECTS_READ, LATEST_READ, RESULT_READ, EffectDone, History
from app.domain.reads import Reads

Connection = psycopg.AsyncConnection[dict[str, Any]]

_MESSAGES: Final = """
WITH r AS (
  SELECT s.workflow_id, s.path, s.conversation, s.messages
  FROM unnest(%(workflows)s::uuid[], %(paths)s::text[]) AS r(workflow_id, path)
  JOIN steps s ON s.workflow_id = r.workflow_id AND s.path = r.path)
SELECT m.workflow_id, m.step, true AS task, m.ordinal, m.role, m.body
FROM r JOIN messages m ON m.workflow_id = r.workflow_id AND m.step = r.path AND m.conversation = 1 AND m.ordinal = 0
UNION ALL
SELECT m.workflow_id, m.step, false, m.ordinal, m.role, m.body
FROM r JOIN messages m ON m.workflow_id = r.workflow_id AND m.step = r.path AND m.conversation = r.conversation
  AND m.ordinal >= greatest(1, r.messages - %(latest)s)
ORDER BY workflow_id, step, task DESC, ordinal"""

_EFFECTS: Final = """
SELECT r.workflow_id, r.path, c.*
FROM unnest(%(workflows)s::uuid[], %(paths)s::text[]) AS r(workflow_id, path)
CROSS JOIN LATERAL (
  SELECT id, n, tool, request -> 'arguments' AS arguments, state, undo, count(*) OVER () AS total,
    CASE WHEN octet_length(result::text) <= %(result)s THEN result END AS result,
    CASE WHEN octet_length(result::text) > %(result)s THEN octet_length(result::text) END AS result_bytes
  FROM calls
  WHERE workflow_id = r.workflow_id AND step = r.path AND kind = 'tool' AND effect <> 'read_only'
    AND state IN ('succeeded', 'abandoned', 'in_doubt', 'probing')
  ORDER BY n DESC LIMIT %(effects)s) c
ORDER BY r.workflow_id, r.path, c.n"""


async def load(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    places = [(workflow, path) for workflow, (_, reads) in wanted.items() for path in sorted(reads.histories)]
    if not places:
        return
    asked: dict[str, Any] = {"workflows": [p[0] for p in places], "paths": [p[1] for p in places]}
    said = await (await connection.execute(_MESSAGES, {**asked, "latest": LATEST_READ})).fetchall()
    bounds = {"effects": EFFECTS_READ, "result": RESULT_READ}
    done = await (await connection.execute(_EFFECTS, {**asked, **bounds})).fetchall()
    for workflow, path in places:
        messages = [row for row in said if (row["workflow_id"], row["step"]) == (workflow, path)]
        effects = [row for row in done if (row["workflow_id"], row["path"]) == (workflow, path)]
        wanted[workflow][0].histories[path] = _history(messages, effects)


def _history(messages: Sequence[Mapping[str, Any]], effects: Sequence[Mapping[str, Any]]) -> History:
    task = next(bytes(row["body"]) for row in messages if row["task"])
    latest: list[bytes] = []
    for row in messages:
        if row["role"] == "assistant":
            latest.clear()
        elif not row["task"]:
            latest.append(bytes(row["body"]))
    return History(
        task=task,
        latest=tuple(latest),
        effects=tuple(
            EffectDone(
                call_id=row["id"],
                tool=row["tool"],
                arguments=row["arguments"],
                result=row["result"],
                result_bytes=row["result_bytes"],
                state=row["state"],
                undo=row["undo"],
            )
            for row in effects
        ),
        more_effects=effects[0]["total"] - len(effects) if effects else 0,
    )
