"""What a test has ordered the scripted model to do to the next requests: `POST /behave`.

    {"fail": {"status": 529}, "times": 3, "where": {"model": "haiku", "workflow": "wf_…", "says": "words"}}

`times` is 1 unless told; null lasts until DELETE /behave. `where` may name letters of the model's id, the workflow that
asks (its header), and words of the request's body; without it any request is meant. Orders are carried out in the
order they came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from app.embedded.wire import Request

_WHERE: Final = frozenset({"model", "workflow", "says"})


class Orders:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def post(self, told: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what is no order."""
        times, where = told.get("times", 1), dict(told.get("where") or {})
        if set(where) - _WHERE:
            raise ValueError(f"`where` knows {', '.join(sorted(_WHERE))}")
        self.told.append({"fail": dict(told["fail"]), "times": None if times is None else int(times), "where": where})

    def clear(self) -> None:
        self.told.clear()

    def next_for(self, request: Request, *, model: str) -> dict[str, Any] | None:
        """What this request is to suffer, and one time less is left of it; None if nothing was ordered for it."""
        for order in self.told:
            if not _meant(order["where"], request, model=model):
                continue
            if order["times"] is not None:
                order["times"] -= 1
                if order["times"] <= 0:
                    self.told.remove(order)
            return dict(order["fail"])
        return None


def _meant(where: Mapping[str, str], request: Request, *, model: str) -> bool:
    words = where.get("says")
    return (
        where.get("model", "") in model
        and where.get("workflow") in (None, request.headers.get("surefoot-workflow"))
        and (words is None or json.dumps(words)[1:-1].encode() in request.body or words.encode() in request.body)
    )
