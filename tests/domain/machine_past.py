"""What is read of an agent step's past before its conversation begins anew, out of the machine's rows.

It mirrors `app/store/histories.py`, and is held against it by `tests/engine/test_machine_on_postgres.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

from app.domain.histories import EFFECTS_READ, LATEST_READ, RESULT_READ, EffectDone, History

if TYPE_CHECKING:
    from tests.domain.machine_store import Store

_STATES = ("succeeded", "abandoned", "in_doubt", "probing")


def past(store: Store, workflow_id: UUID, path: str) -> History:
    row = store.steps[workflow_id][path]
    latest: list[bytes] = []
    for ordinal in range(max(1, row.messages - LATEST_READ), row.messages):
        message = store.messages[(workflow_id, path, row.conversation, ordinal)]
        latest = [] if message.role == "assistant" else [*latest, message.body]
    effects = sorted(
        (
            call
            for call in store.calls[workflow_id].values()
            if call.step == path and call.kind == "tool" and call.effect != "read_only" and call.state in _STATES
        ),
        key=lambda call: call.n,
    )
    read = effects[-EFFECTS_READ:]
    sizes = [len(json.dumps(call.result)) if call.result is not None else 0 for call in read]
    return History(
        task=store.messages[(workflow_id, path, 1, 0)].body,
        latest=tuple(latest),
        effects=tuple(
            EffectDone(
                call_id=call.id,
                tool=call.tool or "",
                arguments=call.request["arguments"],
                result=call.result if size <= RESULT_READ else None,
                result_bytes=size if size > RESULT_READ else None,
                state=call.state,
                undo=call.undo,
            )
            for call, size in zip(read, sizes, strict=True)
        ),
        more_effects=len(effects) - len(read),
    )
