"""What a check found: faults and warnings, each with a JSON pointer, the line if the source was text, and a fix.

Promises: everything is collected, nothing stops the check; the same place is not accused twice with the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.definition import vocabulary
from app.domain.definition.vocabulary import Place
from app.domain.durations import DurationError, milliseconds, parse_duration
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.schemas import escape

FAULTS_SHOWN: Final = 200
"""More than anybody corrects in one go; a hostile document could cause a million."""
SHOWN_LENGTH: Final = 60


@dataclass(kw_only=True, slots=True)
class Findings:
    lines: Mapping[str, int]
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    _seen: set[tuple[str, str, str]] = field(default_factory=set)

    def fault(self, code: str, pointer: str, detail: str, fix: str) -> None:
        self._add(self.faults, code, pointer, detail, fix)

    def warn(self, code: str, pointer: str, detail: str, fix: str) -> None:
        self._add(self.warnings, code, pointer, detail, fix)

    def line(self, pointer: str) -> int | None:
        """The line of a place, or of the nearest place around it that has one."""
        while True:
            if pointer in self.lines:
                return self.lines[pointer]
            if not pointer:
                return None
            pointer = pointer.rpartition("/")[0]

    def _add(self, kept: list[Fault], code: str, pointer: str, detail: str, fix: str) -> None:
        if len(kept) >= FAULTS_SHOWN or (code, pointer, detail) in self._seen:
            return
        self._seen.add((code, pointer, detail))
        kept.append(Fault(code=code, detail=detail, fix=fix, pointer=pointer, line=self.line(pointer)))

    # --- one value -------------------------------------------------------------------------------------------------

    def keys(self, value: JSON, place: Place, pointer: str) -> dict[str, Any]:
        """`value` as a map with its keys judged; what is not a map is a fault and reads as an empty one."""
        if not isinstance(value, dict):
            fix = f"Write its keys: {', '.join(place.known[:4])}, …"
            self.wrong_type(pointer, f"{place.name} is a map", value, fix)
            return {}
        for key in value:
            if key in place.known:
                continue
            where = f"{pointer}/{escape(key)}"
            if key in place.later:
                self.fault(
                    "unsupported", where, f"`{shown(key)}` is not carried out by this version.", place.later[key]
                )
                continue
            self._unknown_key(key, place, where)
        return value

    def _unknown_key(self, key: str, place: Place, where: str) -> None:
        word = vocabulary.meant(key, place)
        known = f"Known here: {', '.join(place.known)}."
        if word is None:
            self.fault("unknown_key", where, f"`{shown(key)}` is not a key of {place.name}.", known)
        elif word in place.later:
            detail = f"`{shown(key)}` is called `{word}`, which is not carried out by this version."
            self.fault("unsupported", where, detail, place.later[word])
        else:
            detail = f"`{shown(key)}` is not a key of {place.name}. Did you mean `{word}`?"
            self.fault("unknown_key", where, detail, f"Write `{word}`.")

    def wrong_type(self, pointer: str, wanted: str, value: JSON, fix: str) -> None:
        self.fault("wrong_type", pointer, f"{wanted[:1].upper()}{wanted[1:]}, not {kind_of(value)}.", fix)

    def text(self, owner: Mapping[str, JSON], key: str, pointer: str) -> str | None:
        value = owner.get(key)
        if value is None or isinstance(value, str):
            return value
        self.wrong_type(f"{pointer}/{escape(key)}", f"`{key}` is text", value, f'Write {key}: "…"')
        return None

    def whole(
        self, owner: Mapping[str, JSON], key: str, pointer: str, *, least: int = 1, most: int | None = None
    ) -> int | None:
        """A whole number within bounds; a fault and None if it is something else."""
        value = owner.get(key)
        if value is None:
            return None
        where = f"{pointer}/{escape(key)}"
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong_type(where, f"`{key}` is a whole number", value, f"Write {key}: {least}")
            return None
        if value < least or (most is not None and value > most):
            upper = "" if most is None else f" and at most {most}"
            self.fault("out_of_range", where, f"`{key}` is at least {least}{upper}.", f"Write {key}: {most or least}")
            return None
        return value

    def flag(self, owner: Mapping[str, JSON], key: str, pointer: str) -> bool:
        """True or false; what is absent, or neither, is false."""
        value = owner.get(key)
        if value is None or isinstance(value, bool):
            return value is True
        self.wrong_type(f"{pointer}/{escape(key)}", f"`{key}` is true or false", value, f"Write {key}: true")
        return False

    def duration(self, owner: Mapping[str, JSON], key: str, pointer: str) -> int | None:
        """A duration in milliseconds."""
        value = owner.get(key)
        if value is None:
            return None
        try:
            return milliseconds(parse_duration(value))
        except DurationError as error:
            self.fault("bad_duration", f"{pointer}/{escape(key)}", str(error), f"Write {key}: 30s")
            return None

    def choice(self, owner: Mapping[str, JSON], key: str, pointer: str, allowed: Iterable[str]) -> str | None:
        value = owner.get(key)
        words = tuple(allowed)
        if value is None:
            return None
        if isinstance(value, str) and value in words:
            return value
        like = vocabulary.nearest(value, words) if isinstance(value, str) else None
        hint = f" Did you mean `{like}`?" if like else ""
        self.fault(
            "unknown_value",
            f"{pointer}/{escape(key)}",
            f"{shown(value)} is not a value of `{key}`.{hint}",
            f"Write one of {', '.join(words)}.",
        )
        return None


def shown(value: JSON) -> str:
    """A value inside a sentence: short, on one line."""
    text = value if isinstance(value, str) else repr(value) if isinstance(value, int | float) else kind_of(value)
    text = "".join(letter if letter.isprintable() else "�" for letter in text[: SHOWN_LENGTH + 1])
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…"


def kind_of(value: JSON) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return f'the text "{shown(value)}"'
    return "a list" if isinstance(value, list) else "a map"
