"""What a model call does not do again each time: it would be a fifth of its CPU."""

from __future__ import annotations

import gc
import json
import weakref

import pytest

from app.domain import conversation
from tests.ports.model_provider import asks, send, serving

pytestmark = pytest.mark.anyio


async def test_model_keeps_the_class_of_the_sdks_messages_when_the_collector_runs() -> None:
    from anthropic.types.parsed_message import ParsedMessage

    async with serving() as (_, model):
        await send(model, asks())
        gc.collect()
        made = [weakref.ref(kind) for kind in ParsedMessage.__subclasses__() if "ResponseFormatT" in kind.__name__]
        await send(model, asks())
        gc.collect()
        living = {id(kind) for kind in ParsedMessage.__subclasses__() if "ResponseFormatT" in kind.__name__}

        assert len(made) == 1
        assert living == {id(made[0]())}


def test_conversation_is_read_as_its_messages_were_when_they_are_many() -> None:
    bodies = [conversation.user_message(f'He said "{n}", [ok]\u2028 {{}}') for n in range(3)]

    assert conversation.parsed(bodies) == [json.loads(body) for body in bodies]
    assert conversation.parsed([]) == []


def test_conversation_is_refused_when_a_message_is_two_values() -> None:
    with pytest.raises(ValueError, match="2 messages are 3 values"):
        conversation.parsed([b'{"role": "user", "content": "a"}', b'{"role": "user"}, {"role": "user"}'])
