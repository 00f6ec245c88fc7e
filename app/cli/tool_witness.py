"""Who tells what a tool did: its own probe, or a read_only tool named with `--probe`.

A witness is asked before and after each request. What it says is kept as `Seen`: whether the effect was found, how
many there are, and a fingerprint of the whole answer. How many: `--count`, an expression over `output`; else the
length of the answer, if it is a list, or of the only list in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from app.cli.exits import Stop
from app.domain import bodies, canonical
from app.domain.expressions import ExpressionError
from app.domain.outcomes import JSON, Outcome
from app.domain.plan import Expression, Template, Tool
from app.domain.states import AttemptOutcome

Ask = Callable[[Tool, Mapping[str, JSON]], Awaitable[Outcome]]
"""Send one request to a read_only tool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    found: bool | None
    """None: the witness has no `found`."""
    count: int | None
    print: str
    exact: bool
    """Whether `count` was asked for in so many words; then nothing else of the answer counts."""

    def same(self, other: Seen) -> bool:
        """Nothing has changed between the two, as far as the witness sees."""
        return self.count == other.count if self.exact else self.print == other.print

    @property
    def shown(self) -> str:
        said = [] if self.found is None else ["found" if self.found else "absent"]
        return " · ".join([*said, *([] if self.count is None else [f"{self.count} there"])]) or self.print[:8]


@dataclass(frozen=True, kw_only=True)
class Witness:
    tool: Tool
    arguments: Template
    found: Expression | None
    count: Expression | None
    input: JSON
    """What `input` is in the probe's expressions: the input of a workflow."""

    async def look(self, ask: Ask, *, arguments: Mapping[str, JSON], key: str | None) -> Seen:
        """Raises `Stop` if the witness does not answer or its expressions do not fit the answer."""
        bindings: dict[str, JSON] = {"arguments": arguments, "input": self.input, "key": key}
        try:
            outcome = await ask(self.tool, self.arguments.render(bindings))
            bindings["output"] = self._output(outcome)
            found = None if self.found is None else self._boolean(self.found.evaluate(bindings))
            count = _counted(bindings["output"]) if self.count is None else self._number(self.count.evaluate(bindings))
        except ExpressionError as error:
            raise Stop(f"The probe {self.tool.name}: {error.message}", fix=error.fix) from error
        fingerprint = canonical.sha256_hex(canonical.canonical_json(bindings["output"]))
        return Seen(found=found, count=count, print=fingerprint, exact=self.count is not None)

    def _output(self, outcome: Outcome) -> JSON:
        if outcome.certainty is not AttemptOutcome.SUCCEEDED or outcome.evidence is None:
            said = outcome.failure.message if outcome.failure is not None else "it did not answer"
            raise Stop(f"The probe {self.tool.name} does not tell: {said}", fix="Make it answer first.")
        evidence = outcome.evidence
        return bodies.read_body(evidence.body, evidence.media_type, truncated=evidence.truncated)

    def _boolean(self, value: JSON) -> bool:
        if not isinstance(value, bool):
            raise Stop(
                f"`found` of the probe {self.tool.name} is not true or false.", fix="Compare: size(output.x) > 0"
            )
        return value

    def _number(self, value: JSON) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Stop("--count is not a whole number.", fix="Write --count 'size(output.events)'")
        return value


def _counted(output: JSON) -> int | None:
    if isinstance(output, list):
        return len(output)
    lists = [value for value in output.values() if isinstance(value, list)] if isinstance(output, dict) else []
    return len(lists[0]) if len(lists) == 1 else None
