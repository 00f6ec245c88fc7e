"""Content codings, undone under a cap: a bomb of a thousand to one must not become memory.

`decoder_for` answers what a response's headers call for. httpx's own decoders expand each chunk whole, before anybody
can count it; these never make more bytes than they are given room for. What cannot be undone is said, never raised.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence


def decoder_for(headers: Sequence[tuple[bytes, bytes]]) -> Inflate | None:
    """One of the two codings we asked for. Any other stays as it came: opaque, but kept."""
    codings = [value.strip().lower() for key, value in headers if key.lower() == b"content-encoding"]
    if not codings or codings == [b"identity"] or codings == [b""]:
        return None
    return Inflate(known=codings in ([b"gzip"], [b"x-gzip"], [b"deflate"]))


class Inflate:
    """gzip and zlib with a cap: never more than `room` bytes come out, whatever goes in (RFC 9110 §8.4.1)."""

    def __init__(self, *, known: bool) -> None:
        self._known = known
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, as the header says
        self._fed = False
        self._members = 0
        """gzip members read to their end (RFC 1952 §2.2)."""

    @property
    def finished(self) -> bool:
        return self._known and (not self._fed or self._inflate.eof or self._members > 0)

    def feed(self, data: bytes, room: int) -> tuple[bytes, bool]:
        """(plain bytes, is that all of them)."""
        if not self._known:
            return data[:room], len(data) <= room
        plain = bytearray()
        while data:
            try:
                plain += self._inflate.decompress(data, room - len(plain) + 1)
            except zlib.error:
                if self._members:
                    break  # padding after the last member, which gzip itself ignores
                if self._fed:
                    return bytes(plain[:room]), False
                # Some servers send bare deflate under that name.
                self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
                self._fed = True
                continue
            self._fed = True
            if len(plain) > room:
                return bytes(plain[:room]), False
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                data = self._inflate.unused_data
                self._members += 1
                self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        return bytes(plain), True
