"""Three Python tools: one that computes, one that changes something, and the one that undoes it.

`examples/python-tools.yaml` uses them. Functions that only wait are best `async`; those that block, as these two that
write files, are run in a thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from surefoot import NotExecuted, ToolContext, ToolFailed


async def shout(text: str) -> dict[str, str]:
    """Changes nothing: declared `read_only`."""
    return {"text": text.upper()}


def write_note(folder: str, title: str, text: str, context: ToolContext) -> dict[str, str]:
    """Write a note, or the same note once more: declared `idempotent`, because the file is replaced as a whole."""
    note = _place(folder, title)
    draft = note.with_suffix(f".{context.call_id}.{context.attempt}")
    try:
        draft.write_text(text, encoding="utf-8")
    except OSError as error:
        # Nothing is there yet under the note's name: it is certain that nothing was done.
        raise NotExecuted(f"the note could not be written: {error.strerror}") from error
    os.replace(draft, note)
    return {"path": str(note)}


def remove_note(path: str) -> None:
    """Undo it: what is gone already is fine, or the second attempt would fail where the first succeeded."""
    Path(path).unlink(missing_ok=True)


def _place(folder: str, title: str) -> Path:
    if not title.isidentifier():
        raise ToolFailed(f"{title!r} is no title for a note: use letters, digits and _")
    if not Path(folder).is_dir():
        raise ToolFailed("the folder is not there")
    return Path(folder) / f"{title}.txt"
