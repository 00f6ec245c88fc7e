"""Remembering what was sent of a conversation says the same as reading and checking everything anew, and everything is
read and checked anew where the rows are not what was sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.domain import conversation, ids
from app.domain.conversation import ToolResult
from app.engine.conversations import Conversations, Place, Read
from app.store import messages
from app.store.database import Database
from tests.engine.conversing import agent, asks, text, use
from tests.engine.world import World, says, tool

PLACE: Place = (UUID(int=1), "a", 1)


def said(*uses: str, text: str = "I look.") -> bytes:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    content += [{"type": "tool_use", "id": name, "name": "look", "input": {}} for name in uses]
    return conversation.assistant_message({"content": content})


def results(*uses: str) -> bytes:
    return conversation.tool_results_message([ToolResult(tool_use_id=name, value="ok, ok") for name in uses])


def note(text: str = "Mind the gap.") -> bytes:
    return json.dumps({"role": "system", "content": text}).encode()


TASK = conversation.user_message("Go, ü.")
LONG = [TASK] + [body for n in range(50) for body in (said(f"t{n}"), results(f"t{n}"))]

_NAMES = st.sampled_from(["t1", "t2", "t3"])
_MESSAGES = st.one_of(
    st.just(TASK),
    st.builds(lambda names: said(*names), st.lists(_NAMES, max_size=2)),
    st.builds(lambda names: results(*names), st.lists(_NAMES, min_size=1, max_size=2)),
    st.just(note()),
    st.just(b'{"role":"assistant","content":[{"type":"server_tool_use","id":"s1","name":"x","input":{}}]}'),
    st.just(b'{"role":"user","content":[]}'),
)


class Rows:
    """The messages of one conversation in Postgres, and a process that reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.url = database.url

    def write(
        self, bodies: Sequence[bytes], *, place: Place = PLACE, since: int = 0, at: datetime | None = None
    ) -> None:
        """The conversation consists of these; its rows before `since` stay what they are. `at`: when they came."""
        with psycopg.connect(self.url) as connection:
            put(connection, bodies, place=place, since=since, at=at)

    def change(self, ordinal: int, body: bytes) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "UPDATE messages SET body = %s WHERE workflow_id = %s AND ordinal = %s", (body, PLACE[0], ordinal)
            )

    async def digest(self, *, place: Place, known: int) -> bytes | None:
        async with self._database.hot("messages") as connection:
            workflow, step, number = place
            digest, _ = await messages.rest(
                connection, workflow_id=workflow, step=step, conversation=number, known=known, count=known
            )
            return digest

    async def read(self, known: Conversations, count: int, *, place: Place = PLACE) -> Read:
        async with self._database.hot("messages") as connection:
            return await known.read(connection, place, count=count)

    async def send(self, known: Conversations, count: int, *, place: Place = PLACE) -> Read:
        """Read, and checked: it is known now."""
        read = await self.read(known, count, place=place)
        assert known.problems(place, read) == []
        return read


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[Rows]:
    database = Database(database_url, pool_size=1)
    yield Rows(database)
    await database.close()


def put(
    connection: psycopg.Connection[Any],
    bodies: Sequence[bytes],
    *,
    place: Place,
    since: int = 0,
    at: datetime | None = None,
) -> None:
    workflow, step, number = place
    key = {"workflow": workflow, "step": step, "number": number, "since": since}
    connection.execute(
        "DELETE FROM messages WHERE workflow_id = %(workflow)s AND conversation = %(number)s AND ordinal >= %(since)s",
        key,
    )
    more = {"tenant": ids.DEFAULT_TENANT, "at": at}
    connection.cursor().executemany(
        "INSERT INTO messages (workflow_id, step, conversation, ordinal, tenant_id, role, turn, body, created_at) "
        "VALUES (%(workflow)s, %(step)s, %(number)s, %(ordinal)s, %(tenant)s, 'user', 1, %(body)s, "
        "coalesce(%(at)s, now()))",
        [key | more | {"ordinal": since + n, "body": body} for n, body in enumerate(bodies[since:])],
    )


def new(read: Read) -> list[bytes]:
    return [row.body for row in read.new]


def after(known: Conversations, bodies: Sequence[bytes]) -> list[str]:
    """The check of a conversation that begins with what is known."""
    there = known.known(PLACE)
    added = [messages.Stored(body=body, mark=b"") for body in bodies[len(there.messages) :]]
    return known.problems(PLACE, Read(known=there, new=added, messages=tuple(bodies)))


def well_formed(draw: st.DrawFn) -> list[bytes]:
    """A conversation that may be sent."""
    messages = [TASK]
    for n in range(draw(st.integers(0, 4))):
        uses = [f"u{n}.{k}" for k in range(draw(st.integers(1, 2)))]
        messages += [said(*uses), results(*uses)]
        if draw(st.booleans()):
            messages.append(draw(st.sampled_from([note(), TASK])))
    return messages


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_check_of_what_is_new_agrees_with_the_check_of_everything(data: st.DataObject) -> None:
    sent = well_formed(data.draw)
    longer = sent + data.draw(st.lists(_MESSAGES, max_size=4))
    again = st.sampled_from([said("u0.0"), results("u0.0"), said("t9"), results("t9"), TASK])
    longer += data.draw(st.lists(again, max_size=3))
    known = Conversations()
    assert after(known, sent) == []

    found = after(known, longer)

    assert bool(found) == bool(conversation.check(longer)), found


def test_tool_use_of_long_ago_that_comes_again_is_found_and_named() -> None:
    known = Conversations()
    assert after(known, LONG) == []

    found = after(known, [*LONG, said("t0"), results("t0")])

    assert found == ["messages.101: tool use t0 occurs twice"]


def test_tool_use_that_comes_again_is_found_however_often_was_checked_since() -> None:
    known = Conversations()
    longer = [*LONG, said("new"), results("new")]
    assert after(known, LONG) == after(known, longer) == []

    assert after(known, [*longer, said("t0"), results("t0")]) != []


def test_note_behind_a_note_is_found_where_the_first_was_checked_before() -> None:
    known = Conversations()
    assert after(known, [*LONG, note()]) == []

    assert after(known, [*LONG, note(), note()]) == ["messages.102: a system message follows a user message"]


def test_conversation_that_is_broken_stays_broken() -> None:
    known = Conversations()
    broken = [TASK, said("t1"), TASK]

    assert after(known, broken) == after(known, broken) != []


async def test_process_fetches_only_what_is_new_when_it_has_sent_the_rest(rows: Rows) -> None:
    rows.write(LONG)
    known = Conversations()
    first = await rows.send(known, 99)

    second = await rows.send(known, 101)

    assert (new(second), list(second.messages)) == (LONG[99:], LONG)
    assert all(a is b for a, b in zip(first.messages, second.messages, strict=False))


async def test_process_fetches_nothing_when_a_call_is_attempted_again(rows: Rows) -> None:
    rows.write(LONG)
    known = Conversations()
    await rows.send(known, 101)

    again = await rows.send(known, 101)

    assert (new(again), list(again.messages)) == ([], LONG)


@pytest.mark.parametrize("place", [0, 50, 98], ids=["the first", "one in the middle", "the last that is known"])
async def test_what_the_rows_say_is_sent_when_a_message_was_changed_by_hand(rows: Rows, place: int) -> None:
    rows.write(LONG)
    known = Conversations()
    await rows.send(known, 99)
    changed = list(LONG)
    changed[place] = LONG[place].replace(b"I look", b"I see").replace(b"ok, ok", b"ok").replace(b"Go", b"Do")
    rows.change(place, changed[place])

    with capture_logs() as logs:
        read = await rows.send(known, 101)

    assert list(read.messages) == changed != LONG
    assert [entry["event"] for entry in logs] == ["conversation.rows_changed"]
    assert new(await rows.send(known, 101)) == []


async def test_other_past_of_a_restored_database_is_sent_when_its_last_message_is_the_same(rows: Rows) -> None:
    rows.write(LONG)
    known = Conversations()
    await rows.send(known, 99)
    other = [*LONG[:11], *LONG[13:15], *LONG[11:13], *LONG[15:]]
    assert (other[98], conversation.check(other)) == (LONG[98], [])
    rows.write(other, since=11)

    read = await rows.send(known, 101)

    assert list(read.messages) == other


async def test_conversation_is_checked_as_a_whole_when_rows_were_changed_by_hand(rows: Rows) -> None:
    rows.write(LONG)
    known = Conversations()
    await rows.send(known, 99)
    rows.change(4, results("another"))

    read = await rows.read(known, 101)

    assert known.problems(PLACE, read) == conversation.check(read.messages) != []


async def test_row_written_anew_has_another_mark_when_its_transaction_has_the_same_number(rows: Rows) -> None:
    """As after a restore: numbers of transactions are given again, but not the time."""
    one, other = (UUID(int=1), "a", 1), (UUID(int=2), "a", 1)
    first, later = datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 23, microsecond=1, tzinfo=UTC)
    with psycopg.connect(rows.url) as connection:
        put(connection, LONG[:3], place=one, at=first)
        put(connection, LONG[:3], place=other, since=0, at=first)
        put(connection, LONG[:3], place=other, since=2, at=later)

    assert await rows.digest(place=one, known=2) == await rows.digest(place=other, known=2)
    assert await rows.digest(place=one, known=3) != await rows.digest(place=other, known=3)


async def test_row_written_anew_has_another_mark_when_its_time_is_the_same(rows: Rows) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    rows.write(LONG[:3], at=at)
    before = await rows.digest(place=PLACE, known=3)

    rows.write(LONG[:3], since=2, at=at)

    assert before != await rows.digest(place=PLACE, known=3)


@pytest.mark.parametrize("left", [97, 100], ids=["of what is known", "of what is new"])
async def test_conversation_that_lost_its_end_is_not_sent(rows: Rows, left: int) -> None:
    rows.write(LONG)
    known = Conversations()
    await rows.send(known, 99)
    rows.write(LONG[:left], since=left)

    with pytest.raises(LookupError, match=f"101 messages were expected, {left} are there"):
        await rows.read(known, 101)


async def test_next_conversation_of_a_step_is_another_one(rows: Rows) -> None:
    rows.write(LONG)
    known = Conversations()
    await rows.send(known, 101)
    following: Place = (PLACE[0], PLACE[1], 2)
    rows.write([TASK, said("t0"), results("t0")], place=following)

    read = await rows.send(known, 3, place=following)

    assert new(read) == [TASK, said("t0"), results("t0")]
    assert new(await rows.send(known, 101)) == []


async def test_shorter_request_of_a_longer_conversation_is_read_and_checked_too(rows: Rows) -> None:
    rows.write(LONG)
    known = Conversations()
    await rows.send(known, 101)

    assert list((await rows.send(known, 3)).messages) == LONG[:3]
    assert known.problems(PLACE, await rows.read(known, 2)) != []


async def test_memory_is_bounded_and_what_fell_out_is_read_and_checked_as_a_whole(rows: Rows) -> None:
    places: list[Place] = [(UUID(int=number), "a", 1) for number in range(1, 6)]
    for place in places:
        rows.write(LONG, place=place)
    known = Conversations(most=100_000, largest=100_000)
    for place in places:
        await rows.send(known, 101, place=place)

    sizes = [known.known(place).size for place in places]

    assert sizes[0] == 0
    assert sizes[-1] > sum(map(len, LONG))
    assert sum(sizes) <= 100_000
    assert new(await rows.read(known, 101, place=places[0])) == LONG
    rows.write([*LONG[:3], *LONG[4:]], place=places[0])
    assert known.problems(places[0], await rows.read(known, 100, place=places[0])) != []


async def test_conversation_that_is_larger_than_its_share_puts_nobody_out_of_memory(rows: Rows) -> None:
    large: Place = (UUID(int=2), "a", 1)
    rows.write(LONG)
    rows.write([conversation.user_message("x" * 60_000)], place=large)
    known = Conversations(most=100_000, largest=50_000)
    await rows.send(known, 101)

    await rows.send(known, 1, place=large)

    assert known.known(large).size == 0
    assert new(await rows.send(known, 101)) == []


async def test_workers_that_take_turns_send_the_bytes_that_are_stored(small_world: World) -> None:
    turns = 6
    small_world.model.answers = [asks(text("I look."), use("look", {"n": n})) for n in range(turns)] + [says("done")]
    workers = [await small_world.worker(f"worker.{n}") for n in range(2)]
    workflow_id = await small_world.submit(agent(tools={"look": tool("read_only")}), input={"who": "kim"})

    for n in range(2 * turns + 1):
        [due] = await small_world.due_calls()
        await workers[n // 2 % 2].run(due)

    found = await small_world.rows("SELECT body FROM messages WHERE workflow_id = %s ORDER BY ordinal", workflow_id)
    stored = [bytes(row["body"]) for row in found]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert [list(request.messages) for request in small_world.model.requests] == [
        stored[:count] for count in range(1, 2 * turns + 2, 2)
    ]
    known = [worker.services.conversations.known((workflow_id, "a", 1)) for worker in workers]
    assert [len(each.messages) for each in known] == [2 * turns + 1, 2 * turns - 1]
