"""How steps hang together: unknown steps, fields that cannot be there, cycles.

Promises: a cycle is named once, by its path (`a → b → a`); a thousand steps in a row need no recursion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.domain.definition import seen, vocabulary
from app.domain.definition.findings import Findings, shown
from app.domain.definition.seen import Reference
from app.domain.definition.steps import Judged
from app.domain.outcomes import JSON


def check_references(
    references: Sequence[Reference],
    steps: Mapping[str, Judged],
    *,
    known: frozenset[str],
    roots: Mapping[str, Mapping[str, JSON] | None],
    findings: Findings,
    owner: str | None,
) -> set[str]:
    """Judges what `owner` (None: the workflow's output) reads; gives the steps it thereby waits for."""
    waits = set()
    for reference in references:
        if reference.path[0] != "steps":
            seen.check_fields(reference, roots, findings)
            continue
        name = str(reference.path[1])
        if name == owner:
            detail = f"`{name}` reads its own result."
            findings.fault("cycle", reference.pointer, detail, "Read the result in a later step.")
        elif name not in known:
            unknown_step(name, reference.pointer, known, findings)
        elif name in steps:
            waits.add(name)
            _fields(reference, steps[name], findings)
    return waits


def _fields(reference: Reference, step: Judged, findings: Findings) -> None:
    if len(reference.path) == 2:
        return
    field = reference.path[2]
    if field == "output":
        if step.output:
            seen.follow(reference, 3, step.output, findings)
    elif field not in seen.STEP_FIELDS:
        part = str(field)
        like = vocabulary.nearest(part, seen.STEP_FIELDS)
        fix = f"Write steps.{step.id}.{like}" if like else f"Write steps.{step.id}.output.{shown(part)}"
        detail = f"A step has {', '.join(seen.STEP_FIELDS)}; it has no `{shown(part)}`."
        findings.fault("unknown_field", reference.pointer, detail, fix)


def check_needs(step: Judged, *, known: frozenset[str], steps: Mapping[str, Judged], findings: Findings) -> set[str]:
    """Judges declared needs; gives those that exist."""
    waits = set()
    for name, pointer in step.needs:
        if name == step.id:
            findings.fault("cycle", pointer, f"`{name}` needs itself.", "Remove it.")
        elif name not in known:
            unknown_step(name, pointer, known, findings)
        elif name in steps:
            waits.add(name)
    return waits


def unknown_step(name: str, pointer: str, known: frozenset[str], findings: Findings) -> None:
    like = vocabulary.nearest(name, sorted(known))
    hint = f" Did you mean `{like}`?" if like else ""
    listed = ", ".join(sorted(known)[:12])
    findings.fault("unknown_step", pointer, f"There is no step `{shown(name)}`.{hint}", f"The steps are {listed}.")


def check_cycles(needs: Mapping[str, set[str]], steps: Mapping[str, Judged], findings: Findings) -> None:
    """One fault for each cycle found by one walk; breaking it may uncover another, as always with cycles."""
    done: set[str] = set()
    for start in needs:
        path: list[str] = []
        on_path: set[str] = set()
        pending: list[tuple[str, bool]] = [(start, False)]
        while pending:
            name, leaving = pending.pop()
            if leaving:
                on_path.discard(path.pop())
                done.add(name)
                continue
            if name in on_path:
                cycle = [*path[path.index(name) :], name]
                _accuse(list(reversed(cycle)), steps, findings)
                continue
            if name in done:
                continue
            path.append(name)
            on_path.add(name)
            pending.append((name, True))
            # Sorted: which cycle is named must not depend on the order of a set.
            pending.extend((need, False) for need in sorted(needs.get(name, ()), reverse=True))


def _accuse(cycle: list[str], steps: Mapping[str, Judged], findings: Findings) -> None:
    # Begin with the step that stands first in the document: that is where a reader begins.
    names = cycle[:-1]
    order = {name: index for index, name in enumerate(steps)}
    first = min(range(len(names)), key=lambda index: order.get(names[index], 0))
    names = [*names[first:], *names[:first]]
    shown_path = " → ".join([*names[:12], *(["…"] if len(names) > 12 else []), names[0]])
    findings.fault(
        "cycle",
        steps[names[0]].pointer,
        f"These steps wait for each other: {shown_path}.",
        "Remove one of the needs or references; an arrow points at a step that waits for the one before it.",
    )
