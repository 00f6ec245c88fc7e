"""The pages of docs/ that are written from code: `make docs` writes them, tests/house compares them.

    docs/settings.md        from app/settings.py           every knob, its default, its sentence
    docs/errors.md          from app/errors.py             every problem the API answers with
    docs/events.md          from app/domain/events.py      every event and the fields of its data
    docs/state_machine.md   from app/domain/legal.py       every fact that may meet a state, and where it leads
    docs/recovery.md        from app/domain/recovery_table.py   what is done about each failure kind, and how often

A page is a function that returns its text; nothing here depends on the machine, the clock or the environment.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app import errors
from app.domain import events, legal, recovery_table
from app.settings import Settings

FOLDER: Final = Path(__file__).parent
NOTICE: Final = "<!-- Written by `make docs` from {source}; change it there. -->"
SECTION: Final = re.compile(r"^    # --- (?P<title>.+) ---$")
KNOB: Final = re.compile(r"^    (?P<name>[a-z_]+): ")


def settings_page() -> str:
    lines = _head(
        "Settings",
        source="app/settings.py",
        says="Everything is set by environment variables; each has a default that works on one machine. Times are "
        "seconds and sizes are bytes unless the sentence says otherwise.",
    )
    for title, names in _knobs():
        lines += ["", f"## {title[:1].upper()}{title[1:]}", "", "| variable | default | what it is |", "|---|---|---|"]
        for name in names:
            knob = Settings.model_fields[name]
            lines.append(f"| `{_variable(name, knob)}` | {_default(knob)} | {_cell(knob.description or '')} |")
    return _text(lines)


def errors_page() -> str:
    lines = _head(
        "Errors",
        source="app/errors.py",
        says="Every answer that says no is a problem document (RFC 9457) with one of these codes. `detail` says what "
        "it was this time, `fix` what to do, `errors` every place that is wrong, `retryable` whether the same request "
        "may succeed later without a change. Repeating any POST with its Idempotency-Key is always safe.",
    )
    for family, members in _families():
        lines += ["", f"## {family.__name__}: {_said_in_the_tree(family)}"]
        for member in members:
            retry = " · retryable" if member.retryable else ""
            lines += ["", f"### `{member.code}`", "", f"HTTP {member.status}{retry}", ""]
            lines += [f"**{member.title}.** {member.fix}"]
    return _text(lines)


def events_page() -> str:
    lines = _head(
        "Events",
        source="app/domain/events.py",
        says="What happened to a workflow, numbered per workflow without gaps (`seq`), written in the same transaction "
        "as the state it reports. The same events go to webhooks.",
    )
    for family, names in groupby(events.CATALOGUE, key=lambda name: name.partition(".")[0]):
        lines += ["", f"## {family}", "", "| event | what it says | `data` |", "|---|---|---|"]
        for name in names:
            kind = events.CATALOGUE[name]
            fields = "<br>".join(f"`{key}`: {meaning}" for key, meaning in kind.fields.items())
            lines.append(f"| `{name}` | {_cell(kind.description)} | {_cell(fields) or '—'} |")
    return _text(lines)


def state_machine_page() -> str:
    lines = _head(
        "The state machines",
        source="app/domain/legal.py",
        says="What may happen in which state, and where it leads. A fact that is not listed for a state is refused "
        "(`IllegalTransition`): it would be a defect of ours, never input.",
    )
    for machine, rows in groupby(legal.table(), key=lambda row: row.machine):
        lines += ["", f"## {machine[:1].upper()}{machine[1:]}", "", "| in state | when | then |", "|---|---|---|"]
        alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for row in rows:
            alike.setdefault((row.state, row.leads_to), []).append(row.fact)
        for (state, leads_to), facts in alike.items():
            lines.append(f"| `{state}` | {', '.join(facts)} | {', '.join(f'`{to}`' for to in leads_to)} |")
    return _text(lines)


def recovery_page() -> str:
    lines = _head(
        "Recovery",
        source="app/domain/recovery_table.py",
        says="What is done about each failure kind, and how often. Every decision leaves a recovery record on the call "
        "it caused (the kind, the rule and its line in the definition, what was changed as a diff, how long was "
        "waited, what came of it) and an event. Whatever *changes* the request is a new call; attempts of one call "
        "send identical bytes. Whether an effect may be repeated at all is decided before, by its class "
        "([effects.md](effects.md)).",
    )
    for title, written in (("What `retry:` may change", True), ("What it may not", False)):
        lines += ["", f"## {title}", ""]
        lines += ["| kind | seen as | what is done | how often |" if written else "| kind | seen as | what is done |"]
        lines += ["|---|---|---|---|" if written else "|---|---|---|"]
        for row in recovery_table.TABLE.values():
            if row.written != written:
                continue
            cells = [f"`{row.kind}`", _cell(row.seen), f"*{', '.join(row.actions)}.* {_cell(row.done)}"]
            lines.append(f"| {' | '.join([*cells, _often(row)] if written else cells)} |")
    lines += ["", "## Groups", "", "Names under `retry:` that stand for several kinds; the most specific key wins.", ""]
    for name, kinds in recovery_table.GROUPS.items():
        listed = [f"`{row.kind}`" for row in recovery_table.TABLE.values() if row.kind in kinds]
        said = "everything in the first table" if name == "any" else ", ".join(listed)
        lines.append(f"* `{name}`: {said}")
    return _text(lines)


def _often(row: recovery_table.Row) -> str:
    often = "until the deadline" if row.budget >= recovery_table.UNTIL_DEADLINE else str(row.budget)
    return often if row.after is None else f"{often}, after {row.after} in a row"


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "state_machine.md": state_machine_page,
    "recovery.md": recovery_page,
}


def main() -> int:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
    return 0


def _head(title: str, *, source: str, says: str) -> list[str]:
    return [f"# {title}", "", NOTICE.format(source=source), "", says]


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _knobs() -> Iterator[tuple[str, list[str]]]:
    """The sections of the settings' source and the fields under each, in order."""
    title, names = "", list[str]()
    for line in inspect.getsource(Settings).splitlines():
        if section := SECTION.match(line):
            if names:
                yield title, names
            title, names = section["title"], []
        elif (knob := KNOB.match(line)) and knob["name"] in Settings.model_fields:
            names.append(knob["name"])
    yield title, names


def _variable(name: str, knob: FieldInfo) -> str:
    alias = knob.validation_alias
    return alias if isinstance(alias, str) else f"{Settings.model_config.get('env_prefix', '')}{name}".upper()


def _default(knob: FieldInfo) -> str:
    value = knob.default
    if value is None or value == "" or value == {} or isinstance(value, SecretStr):
        return "—"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`"
    return f"`{_cell(value if isinstance(value, str) else json.dumps(value))}`"


def _families() -> Iterator[tuple[type[errors.SurefootError], list[type[errors.SurefootError]]]]:
    """The direct children of SurefootError, each with the members that have a code of their own."""
    for family in errors.SurefootError.__subclasses__():
        members = [member for member in (family, *_below(family)) if "code" in vars(member)]
        if members:
            yield family, sorted(members, key=lambda member: member.status)


def _said_in_the_tree(family: type[errors.SurefootError]) -> str:
    """What the tree in the module's docstring says beside the family's name."""
    found = re.search(rf"── {family.__name__}(?: \d+)? {{2,}}(.+)", errors.__doc__ or "")
    if found is None:
        raise LookupError(
            f"{family.__name__} is not in the tree at the top of app/errors.py, or nothing is said of it."
        )
    return found[1]


def _below(family: type[errors.SurefootError]) -> Iterator[type[errors.SurefootError]]:
    for child in family.__subclasses__():
        yield child
        yield from _below(child)


if __name__ == "__main__":
    raise SystemExit(main())
