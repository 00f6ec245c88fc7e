"""Replies of MCP servers as bytes: odd ones are still replies, cut ones are none, and no byte is looked at for long."""

from __future__ import annotations

import pytest

from app.domain import mcp_replies

WHOLE = rb'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"a \"b\" [c"}],"isError":true}}'
DEEP = b'{"id":1,"result":{"x":' + b"[" * 20_000 + b"]" * 20_000 + b',"isError":true}}'
DIGITS = b'{"id":1,"result":{"n":' + b"9" * 5_000 + b',"isError":true}}'


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_message_that_was_cut_is_no_reply_wherever_it_was_cut(length: int) -> None:
    assert mcp_replies.read_reply(WHOLE[:length]) is None


@pytest.mark.parametrize("cut", [DEEP[:100], DEEP[:30_000], DEEP[:-1], DIGITS[:-1]])
def test_odd_message_that_was_cut_is_no_reply_either(cut: bytes) -> None:
    assert mcp_replies.read_reply(cut) is None


@pytest.mark.parametrize("raw", [WHOLE, DEEP, DIGITS], ids=["plain", "deep", "digits"])
def test_message_that_is_whole_is_a_reply_with_the_tools_own_word_however_odd_it_is(raw: bytes) -> None:
    reply = mcp_replies.read_reply(raw)

    assert reply is not None
    assert (reply.id, reply.is_error, reply.failed) == (1, True, False)


def test_string_that_never_ends_is_read_once_and_not_anew_from_each_of_its_quotes() -> None:
    endless = b'{"result":{"a":"' + b'\\"' * 500_000  # quadratic, it would take hours

    assert mcp_replies.read_reply(endless) is None
