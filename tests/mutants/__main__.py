"""`python -m tests.mutants`: each protection of the product removed, one at a time. Every one must be caught.

    --list                    what there is, in words; run nothing
    --only NAME               mutants with that name, or whose name begins so (may be given again)
    --layers domain,engine    only these layers of tests, in their order
    --suspects                only the tests that a patch names, not whole layers
    --thorough                whole layers from the first on: which is the first to see it?
    --every-layer             do not stop at the first layer that sees it
    --jobs 2                  so many side by side
    --keep                    leave the patched copies where they are

Exit code 0: all were caught, by tests that pass on the tree as it is; 1: one survived; 2: something could not be said.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence

from tests.mutants import patches, report
from tests.mutants.laboratory import Laboratory
from tests.mutants.layers import LAYERS
from tests.mutants.report import say
from tests.mutants.running import Campaign, Done

CAUGHT, SURVIVED, UNSAID = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    told = _parser().parse_args(arguments)
    mutants = [each for each in patches.every() if not told.only or each.name.startswith(tuple(told.only))]
    if not mutants:
        say("No mutant has such a name; see --list.")
        return UNSAID
    if told.list:
        for text in report.listed(mutants):
            say(text)
        return CAUGHT
    chosen = [layer for layer in LAYERS if layer in told.layers]
    laboratory = Laboratory()
    how = "suspects only" if told.suspects else "suspects first" if not told.thorough else "whole layers"
    say(f"{len(mutants)} mutants, {how}, layers {', '.join(chosen)}; {told.jobs} at a time, in {laboratory.folder}")
    campaign = Campaign(
        laboratory=laboratory,
        chosen=chosen,
        jobs=told.jobs,
        suspects_only=told.suspects,
        thorough=told.thorough,
        every_layer=told.every_layer,
        keep=told.keep,
    )
    began, every = time.monotonic(), list[Done]()

    def ended(done: Done) -> None:
        every.append(done)
        say(report.line(done, ended=len(every), planned=len(mutants)))

    campaign.ended = ended
    try:
        done, false = asyncio.run(_run(campaign, mutants))
    except asyncio.CancelledError:
        say(f"Ended before its end; what was said is in {laboratory.folder}.")
        return UNSAID
    return _conclude(done, false, laboratory=laboratory, seconds=time.monotonic() - began, keep=told.keep)


async def _run(campaign: Campaign, mutants: Sequence[patches.Mutant]) -> tuple[list[Done], list[str]]:
    task = asyncio.current_task()
    if task is not None:  # handled and not ignored, so that what we start may be interrupted, too
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    done = await campaign.run(mutants)
    if not any(each.caught_by for each in done):
        return done, []
    say("Once more without any patch: the tests that caught something.")
    return done, await campaign.control(done)


def _conclude(done: Sequence[Done], false: Sequence[str], *, laboratory: Laboratory, seconds: float, keep: bool) -> int:
    say()
    for text in (*report.table(done), "", *report.sums(done, seconds=seconds), *report.trouble(done, false)):
        say(text)
    if any(each.survived for each in done):
        return SURVIVED
    if false or any(each.void for each in done):
        return UNSAID
    if not keep:
        laboratory.close()
    return CAUGHT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Each protection removed, one by one.")
    parser.add_argument("--only", action="append", default=[], help="a mutant, or the beginning of its name")
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    parser.add_argument("--layers", type=_layers, default=[*LAYERS], help=f"of {', '.join(LAYERS)}; default: all")
    parser.add_argument("--suspects", action="store_true", help="only the tests that a patch names")
    parser.add_argument("--thorough", action="store_true", help="whole layers from the first on")
    parser.add_argument("--every-layer", action="store_true", help="do not stop at the first layer that sees it")
    parser.add_argument("--jobs", type=int, default=1, help="so many side by side")
    parser.add_argument("--keep", action="store_true", help="leave the patched copies where they are")
    return parser


def _layers(text: str) -> list[str]:
    named = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in named if name not in LAYERS]
    if unknown or not named:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is no layer; there are {', '.join(LAYERS)}"
        )
    return named


if __name__ == "__main__":
    sys.exit(main())
