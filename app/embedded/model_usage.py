"""What the scripted model counts: the tokens of an answer, and what of a prompt came from the cache.

The cache works as the real one as far as usage shows it: a request that asks for it (`cache_control` at the top, not
on a block) reads the longest prefix that another request of the same model has written, and writes the rest. In memory,
without an end: nobody here runs for an hour.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.embedded.model_rules import CHARS_PER_TOKEN, ModelRequest, digest_of
from app.embedded.model_scenarios import Script


class PromptCache:
    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        """Digest of a prefix → its tokens."""

    def usage(self, request: ModelRequest) -> dict[str, int]:
        """Read, written and the rest, in the API's words. Writes the request's prefix if it asks for that."""
        whole = request.input_tokens
        if not request.body.get("cache_control"):
            return _counted(whole, read=0, written=0)
        digests = _prefixes(request.body)
        read = next((self._known[digest] for digest in reversed(digests) if digest in self._known), 0)
        self._known[digests[-1]] = whole
        return _counted(whole, read=min(read, whole), written=max(0, whole - read))


def written_tokens(script: Script) -> int:
    """Of an answer, what was cut of it not counted."""
    written = sum(len(json.dumps(block, ensure_ascii=False)) for block in script.content)
    return 1 + (written + len(script.half or "")) // CHARS_PER_TOKEN


def _counted(whole: int, *, read: int, written: int) -> dict[str, int]:
    return {
        "input_tokens": whole - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
    }


def _prefixes(body: Mapping[str, Any]) -> list[str]:
    """A digest for each prefix of the messages, the shortest first, each over the one before it."""
    found = [digest_of([body["model"], body.get("system"), body.get("tools")])]
    for message in body["messages"]:
        found.append(digest_of([found[-1], message]))
    return found
