"""Is a tool's declared effect class true? The laws of each class, tried on the tool itself.

    read_only     three requests, one without its answer: nothing is different afterwards
    idempotent    one request, then twice the same: what one changed, more do not change further
    keyed         three requests with one key are one effect; another key, its first answer lost, is one more
    checkable     absent before; sent, answer lost: found within settle_time; one effect
    at_most_once  nothing is sent: nothing is promised

A law that is broken was seen broken. One that holds was not broken by a few requests on a quiet day, which is less
than a proof and more than most declarations get.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.cli.tool_trying import Bench, KeyLost, Try
from app.cli.tool_witness import Seen
from app.domain.states import EffectClass


class Verdict(StrEnum):
    TRUE = "true"
    NOT_TRUE = "not_true"
    CANNOT_TELL = "cannot_tell"
    """What was tried shows neither; the law says what is missing."""
    UNCHECKED = "unchecked"
    """The class promises nothing that could be tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    says: str
    holds: bool | None
    """None: it cannot be told."""
    seen: str
    """What it was judged by, with the number that matters; or what is missing."""


Laws = list[Law]

_NO_WITNESS: Final = "Only its answers were compared; name a read_only tool that shows what it did: --probe TOOL"
_NOTHING_SEEN: Final = "the first request changed nothing that the probe sees; give arguments that change something"


def verdict(effect: EffectClass, laws: Laws) -> Verdict:
    if effect is EffectClass.AT_MOST_ONCE:
        return Verdict.UNCHECKED
    if any(law.holds is False for law in laws):
        return Verdict.NOT_TRUE
    return Verdict.TRUE if all(law.holds for law in laws) else Verdict.CANNOT_TELL


async def conform(bench: Bench) -> Laws:
    """Try the laws of the tool's class. Raises `Stop` where nothing can be learnt."""
    try:
        return await _BY_CLASS[bench.case.tool.effect](bench)
    except KeyLost as error:
        return [Law(says="the key reaches the tool", holds=False, seen=str(error))]


async def _read_only(bench: Bench) -> Laws:
    before = await bench.look()
    first = await bench.first()
    await bench.cut()
    again = await bench.answered()
    says = "it changes nothing"
    if before is None or again.seen is None:
        same = first.body == again.body
        seen = _NO_WITNESS if same else f"its answers differ, which the world may have done. {_NO_WITNESS}"
        return [Law(says=says, holds=True if same else None, seen=seen)]
    changed = [tried for tried in bench.tries if tried.seen is not None and not before.same(tried.seen)]
    seen = f"something is different after try {changed[0].number}" if changed else f"{len(bench.tries)} requests"
    return [Law(says=says, holds=not changed, seen=seen)]


async def _idempotent(bench: Bench) -> Laws:
    before = await bench.look()
    first = await bench.first()
    await bench.cut()
    again = await bench.answered()
    laws = [_answered_again(bench, again)]
    says = "twice is once"
    if before is None or first.seen is None or again.seen is None:
        same = first.body == again.body
        seen = _NO_WITNESS if same else f"its answers differ. {_NO_WITNESS}"
        return [*laws, Law(says=says, holds=True if same else None, seen=seen)]
    if not first.seen.same(again.seen):
        return [*laws, Law(says=says, holds=False, seen=f"the repeat changed more: {_change(first.seen, again.seen)}")]
    if before.same(first.seen):
        return [*laws, Law(says=says, holds=None, seen=_NOTHING_SEEN)]
    return [*laws, Law(says=says, holds=True, seen="3 requests changed what 1 did")]


async def _keyed(bench: Bench) -> Laws:
    key, other_key = f"check-{bench.case.run}-1", f"check-{bench.case.run}-2"
    before = await bench.look(key)
    first = await bench.first(key)
    await bench.cut(key)
    again = await bench.answered(key)
    before_other = await bench.look(other_key)
    await bench.cut(other_key)
    other = await bench.answered(other_key)
    laws = [_answered_again(bench, again)]
    if before is None or before_other is None:
        return [*laws, *_keyed_by_answers(first, again, other)]
    return [
        *laws,
        _one_key(before, first, again),
        _another_key(before_other, other),
        *await _found_with_key(bench, before, key),
    ]


def _keyed_by_answers(first: Try, again: Try, other: Try) -> Laws:
    """Without a witness: a tool that recognises a key gives what it gave before."""
    same = "one key, one effect"
    another = "another key, another effect"
    laws = [
        Law(says=same, holds=True, seen=_NO_WITNESS)
        if first.body == again.body
        else Law(says=same, holds=False, seen="the same key got two different answers")
    ]
    if not other.carried_out:
        return [*laws, _refused(another, other)]
    if other.body == first.body:
        return [*laws, Law(says=another, holds=None, seen=f"both keys got the same answer. {_NO_WITNESS}")]
    return [*laws, Law(says=another, holds=True, seen="another key got another answer")]


def _one_key(before: Seen, first: Try, again: Try) -> Law:
    says = "one key, one effect"
    if first.seen is None or again.seen is None or before.same(first.seen):
        return Law(says=says, holds=None, seen=_NOTHING_SEEN)
    if before.count is not None and again.seen.count is not None:
        made = again.seen.count - before.count
        return Law(says=says, holds=made == 1, seen=f"3 requests, {_effects(made)}")
    seen = "3 requests changed what 1 did" if first.seen.same(again.seen) else "the repeat changed something more"
    return Law(says=says, holds=first.seen.same(again.seen), seen=seen)


def _another_key(before: Seen, other: Try) -> Law:
    says = "another key, another effect"
    if other.seen is not None and before.same(other.seen) and not other.carried_out:
        return _refused(says, other)
    if other.seen is None or before.same(other.seen):
        seen = "it changed nothing: does the tool recognise something else than the key? Then it is idempotent"
        return Law(says=says, holds=False, seen=seen)
    if before.count is None or other.seen.count is None:
        return Law(says=says, holds=True, seen="it changed something more")
    made = other.seen.count - before.count
    return Law(says=says, holds=made == 1, seen=f"2 requests, the first answer lost: {_effects(made)}")


def _refused(says: str, other: Try) -> Law:
    """What can happen only once is refused under another key. That too shows that the key is what is recognised: the
    first key was answered as before."""
    if other.status is not None and 400 <= other.status < 500:
        return Law(says=says, holds=True, seen=f"another key is another request: it was refused ({other.said})")
    return Law(says=says, holds=None, seen=f"the other key was answered {other.said}")


async def _found_with_key(bench: Bench, before: Seen, key: str) -> Laws:
    if before.found is None:
        return []
    tool = bench.case.tool
    patience = tool.result_within if tool.on_202 == "wait" else tool.settle_time
    found, took = await bench.until_found(key, seconds=patience.total_seconds())
    seen = f"found after {took:.1f} s" if found else f"not found within {took:.0f} s"
    return [_absent_before(bench, before), Law(says="the probe finds it", holds=found, seen=seen)]


async def _checkable(bench: Bench) -> Laws:
    before = await bench.look()
    if before is None or before.found is None:
        return [Law(says="the probe finds it", holds=None, seen="there is no probe with `found`")]
    absent = _absent_before(bench, before)
    if not absent.holds:
        return [absent]
    settle = bench.case.tool.settle_time.total_seconds()
    await bench.cut()
    found, took = await bench.until_found(None, seconds=settle)
    if found:
        seen = f"found {took:.1f} s after a request whose answer was lost"
        return [absent, Law(says="the probe finds it", holds=True, seen=seen), await _one_effect(bench, before, sent=1)]
    # As the engine does when the quarantine is over and the probe says absent: it is sent again.
    again = await bench.first()
    found, _ = await bench.until_found(None, seconds=settle)
    if not found:
        seen = f"it answered {again.said}, and {settle:g} s later the probe does not find it"
        return [absent, Law(says="the probe finds it", holds=False, seen=seen)]
    return [
        absent,
        Law(says="the probe finds it", holds=True, seen="found once it was sent again"),
        await _one_effect(bench, before, sent=2),
    ]


async def _one_effect(bench: Bench, before: Seen, *, sent: int) -> Law:
    says = "what is absent after settle_time never happened"
    now = await bench.look()
    if now is None or before.count is None or now.count is None:
        if sent == 1:
            return Law(says=says, holds=True, seen="it was found in time")
        return Law(says=says, holds=None, seen="the probe gives no number; give --count 'size(output.…)'")
    made = now.count - before.count
    if made > 1:
        late = (
            "the lost request shows up only later: raise settle_time" if sent > 1 else "one request did more than one"
        )
        return Law(says=says, holds=False, seen=f"{_effects(made)}; {late}")
    seen = "it was found in time" if sent == 1 else "the lost request was not carried out, and the probe said so"
    return Law(says=says, holds=True, seen=seen)


def _absent_before(bench: Bench, before: Seen) -> Law:
    says = "absent before it is sent"
    if not before.found:
        return Law(says=says, holds=True, seen="the probe did not find it")
    if bench.case.unique:
        return Law(says=says, holds=False, seen="the probe finds what was never sent")
    seen = "the probe found it before; use arguments that nobody used: put ${{ run }} into a text"
    return Law(says=says, holds=None, seen=seen)


async def _at_most_once(bench: Bench) -> Laws:
    return []


def _answered_again(bench: Bench, again: Try) -> Law:
    """A repeat after a lost answer must not look like a failure of what was done."""
    says = "a repeat is answered as a success"
    if again.carried_out:
        return Law(says=says, holds=True, seen=again.said)
    declared = bench.case.tool.on_repeat_status.get(again.status or 0)
    if declared == "succeeded":
        return Law(says=says, holds=True, seen=f"{again.said}, declared in on_repeat_status")
    fix = f"declare on_repeat_status: {{{again.status}: succeeded}} if that means it is done already"
    if bench.case.tool.python is not None:
        fix = "let it return what it finds done already"
    return Law(says=says, holds=False, seen=f"{again.said} after {bench.tries[0].said}; {fix}")


def _change(one: Seen, other: Seen) -> str:
    if one.count is None or other.count is None or one.count == other.count:
        return "the probe's answer is another one (if only a time or a number of no meaning differs, give --count)"
    return f"{one.count} became {other.count}"


def _effects(number: int) -> str:
    return f"{number} effect{'' if number == 1 else 's'}"


_BY_CLASS: Final[dict[EffectClass, Callable[[Bench], Awaitable[Laws]]]] = {
    EffectClass.READ_ONLY: _read_only,
    EffectClass.IDEMPOTENT: _idempotent,
    EffectClass.KEYED: _keyed,
    EffectClass.CHECKABLE: _checkable,
    EffectClass.AT_MOST_ONCE: _at_most_once,
}
