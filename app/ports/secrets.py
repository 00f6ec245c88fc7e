"""The secrets that tools may name: handed to templates, and masked in everything that comes back.

They live in the worker's memory only. What is rendered with them goes on the wire and nowhere else; evidence and
messages pass `mask` first, which replaces each secret in the spellings a server may echo: as it is, inside JSON,
percent-encoded, in base64. A secret shorter than `MIN_MASKED` is not masked: it would tear ordinary text apart.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

MASK: Final = "***"
MIN_MASKED: Final = 6
"""Characters. A shorter value is no secret that anybody should rely on, and occurs in innocent text."""


class SecretBindings(dict[str, str]):
    """`secrets` as templates see it; remembers which names were asked for in vain, so that the message can say it."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.missing: list[str] = []

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        self.missing.append(str(name))
        return False


class Secrets:
    def __init__(self, values: Mapping[str, SecretStr]) -> None:
        self._values = {name: value.get_secret_value() for name, value in values.items()}
        self._masking(spelling for value in self._values.values() for spelling in _spellings(value))

    def _masking(self, spellings: Iterable[str]) -> None:
        self._spellings = sorted(set(spellings), key=len, reverse=True)  # a secret may be part of a longer one
        self._bytes = [spelling.encode("utf-8", "surrogatepass") for spelling in self._spellings]

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)} values)"

    @property
    def longest(self) -> int:
        """Bytes of the longest spelling: a cut closer than this could leave the beginning of a secret."""
        return max(map(len, self._bytes), default=0)

    def and_of_request(self, value: str | None) -> Secrets:
        """These, and one that belongs to a single request: masked like them, never handed to a template."""
        if value is None:
            return self
        both = Secrets({})
        both._values = self._values
        both._masking((*self._spellings, *_spellings(value)))
        return both

    def bindings(self) -> SecretBindings:
        return SecretBindings(self._values)

    def mask(self, data: bytes) -> bytes:
        for spelling in self._bytes:
            if spelling in data:
                data = data.replace(spelling, MASK.encode())
        return data

    def mask_text(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, MASK)
        return text


def _spellings(value: str) -> Iterator[str]:
    if len(value) < MIN_MASKED:
        return
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    raw = value.encode("utf-8", "surrogatepass")
    yield quote(raw, safe="")
    yield quote_plus(raw, safe="")
    # Inside `Basic base64(user:secret)` the secret starts at any of three offsets; the characters that hold bits of
    # the neighbours are left out.
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw).decode("ascii").rstrip("=")
        whole = (offset + len(raw)) * 8 // 6
        inner = encoded[(offset * 8 + 5) // 6 : whole]
        if len(inner) >= MIN_MASKED:
            yield inner
