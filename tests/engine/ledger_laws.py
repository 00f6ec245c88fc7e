"""What the rows of the effect ledger always say, whatever happened: asked for after every scenario.

Each law finds rows that break it.
"""

from __future__ import annotations

from typing import Final

from tests.engine.world import World

LAWS: Final = {
    "counters are the counted rows": """
        SELECT w.id, w.status, w.open_calls, w.held, w.doubts, c.* FROM workflows w, LATERAL (SELECT
            count(*) FILTER (WHERE state IN ('due', 'intended', 'probing')) AS open_,
            count(*) FILTER (WHERE state = 'held') AS held_,
            count(*) FILTER (WHERE state = 'in_doubt') AS doubts_ FROM calls WHERE workflow_id = w.id) c
        WHERE (w.open_calls, w.held, w.doubts) <> (c.open_, c.held_, c.doubts_)""",
    "steps are counted": """
        SELECT w.id, w.status, w.steps_open, s.n FROM workflows w, LATERAL (SELECT count(*) AS n FROM steps
          WHERE workflow_id = w.id AND parent IS NULL AND ended_at IS NULL) s
        WHERE w.status IN ('running', 'waiting', 'succeeded') AND w.steps_open <> s.n""",
    "a call is woken by what its state waits for, and by nothing else": """
        SELECT c.id, c.kind, c.state, c.held_reason, d.kinds FROM calls c LEFT JOIN LATERAL (
          SELECT array_agg(kind ORDER BY kind) AS kinds FROM dues WHERE ref = c.id) d ON true
        WHERE CASE
          WHEN c.state = 'due' THEN d.kinds IS DISTINCT FROM ARRAY['call']
          WHEN c.state = 'intended' THEN
            d.kinds IS NULL OR d.kinds NOT IN (ARRAY['call'], ARRAY['attempt'], ARRAY['result'])
          WHEN c.held_reason = 'attached' THEN d.kinds IS DISTINCT FROM ARRAY['attached']
          WHEN c.held_reason = 'operator' THEN d.kinds IS DISTINCT FROM ARRAY['switch']
          WHEN c.held_reason IN ('breaker', 'quota') THEN d.kinds IS DISTINCT FROM ARRAY['dependency']
          WHEN c.held_reason = 'budget' THEN d.kinds IS DISTINCT FROM ARRAY['budget']
          ELSE d.kinds IS NOT NULL END""",
    "what is probing has one open probe, and only that has": """
        SELECT c.id, c.state, p.id AS probe, p.state AS probe_state FROM calls c
        FULL JOIN calls p ON p.target = c.id AND p.kind = 'probe' AND p.ended_at IS NULL
        WHERE (c.state = 'probing' AND (p.id IS NULL OR p.id <> c.probe_id))
          OR (p.kind = 'probe' AND p.ended_at IS NULL AND c.state IS DISTINCT FROM 'probing')""",
    "what is attached waits for somebody, and sent nothing": """
        SELECT id, target, attempts FROM calls WHERE held_reason = 'attached' AND (target IS NULL OR attempts > 0)""",
    "every decision was made": "SELECT * FROM dues WHERE kind = 'apply'",
    "waiting means that nothing is to be called": """
        SELECT id, status, open_calls FROM workflows
        WHERE status = 'waiting' AND open_calls > 0 OR status = 'running' AND open_calls = 0""",
    "what is final is settled": """
        SELECT w.id, w.status FROM workflows w WHERE w.ended_at IS NOT NULL AND (
          EXISTS (SELECT FROM calls c WHERE c.workflow_id = w.id AND c.ended_at IS NULL)
          OR EXISTS (SELECT FROM steps s WHERE s.workflow_id = w.id AND s.ended_at IS NULL)
          OR EXISTS (SELECT FROM approvals a WHERE a.workflow_id = w.id AND a.status = 'open')
          OR EXISTS (SELECT FROM dues d WHERE d.workflow_id = w.id AND d.kind <> 'delivery'))""",
    "a step that ended has nothing open behind it": """
        SELECT s.path, s.state, c.state AS call FROM steps s JOIN calls c ON c.workflow_id = s.workflow_id
          AND (c.step = s.path OR c.step LIKE s.path || '.%') AND c.kind <> 'compensation'
        WHERE s.ended_at IS NOT NULL AND c.ended_at IS NULL""",
    "events have no gaps": """
        SELECT w.id, w.last_seq, e.* FROM workflows w, LATERAL (SELECT count(*) AS n, max(seq) AS last FROM events
          WHERE workflow_id = w.id) e WHERE (w.last_seq, w.last_seq) <> (e.n, e.last)""",
    "a business key in use has its call, which did it or may yet": """
        SELECT k.key, k.call_id, c.state, c.undo FROM effect_keys k LEFT JOIN calls c ON c.id = k.call_id
        WHERE k.released_at IS NULL AND (c.id IS NULL OR c.state IN ('failed', 'cancelled') OR c.undo = 'done')""",
    "a drain sends nothing that was never sent": """
        SELECT c.id, c.state FROM calls c JOIN workflows w ON w.id = c.workflow_id
        WHERE w.status IN ('failing', 'cancelling') AND c.state = 'due' AND c.attempts = 0 AND c.kind <> 'probe'""",
}


async def check_laws(world: World) -> None:
    for law, breaches in LAWS.items():
        assert await world.rows(breaches) == [], law
