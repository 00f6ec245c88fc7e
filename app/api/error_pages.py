"""`/errors/{code}`: what the `type` of a problem leads to. Plain text, without a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from app.errors import NotFound, SurefootError

router = APIRouter(tags=["errors"])


def _catalogue(kind: type[SurefootError]) -> Iterator[type[SurefootError]]:
    for child in kind.__subclasses__():
        if "code" in vars(child):
            yield child
        yield from _catalogue(child)


CATALOGUE: Final = {error.code: error for error in _catalogue(SurefootError)}


@router.get(
    "/errors/{code}", operation_id="get_error", summary="What a problem means", response_class=PlainTextResponse
)
async def get_error(code: str) -> Response:
    error = CATALOGUE.get(code)
    if error is None:
        raise NotFound(f"There is no error {code[:64]}.", fix=f"Known are: {', '.join(sorted(CATALOGUE))}.")
    retry = "The same request may succeed later." if error.retryable else "Repeating the same request cannot help."
    text = f"{error.code} ({error.status})\n\n{error.title}.\n\nWhat to do: {error.fix}\n{retry}\n"
    return PlainTextResponse(text)
