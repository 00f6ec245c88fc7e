"""A request's body: strictly JSON, strictly known fields, every fault at once.

415 for another Content-Type, 400 for what is no JSON, 422 with pointers for duplicate keys, NaN, NUL, lone
surrogates, deep nesting, long integers, unknown fields and wrong types. Never a 500, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from app.api.faults import faults_of
from app.api.shapes.values import JSON
from app.domain import bodies
from app.domain.faults import Fault
from app.errors import InvalidValue, MalformedJson, Unsupported, UnsupportedMediaType

Model = TypeVar("Model", bound=BaseModel)

_UTF8: Final = ("utf-8", "utf8")


class Body(BaseModel):
    """What a client sends: closed, and nothing is coerced (`"1"` is not 1)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


async def read_object(request: Request, *, required: bool = True) -> dict[str, JSON]:
    """The JSON object in the body; `{}` if there is no body and none is required."""
    if not required and not await request.body():
        return {}
    _check_content_type(request)
    body = await request.body()
    if not body.strip():
        raise MalformedJson("The body is empty.")
    parsed = bodies.parse_strict_json(body)
    if parsed.malformed is not None:
        raise MalformedJson(f"The body is not JSON: {parsed.malformed}.")
    if parsed.faults:
        raise InvalidValue("The body holds values that are not read here.", faults=parsed.faults)
    if not isinstance(parsed.value, dict):
        fault = Fault(code="invalid_value", pointer="", detail="The body is not a JSON object.", fix="Send {…}.")
        raise InvalidValue(fault.detail, faults=[fault])
    return parsed.value


def check(model: type[Model], value: Mapping[str, JSON], *, unbuilt: Mapping[str, str] | None = None) -> Model:
    """The body as a model, or every fault. `unbuilt`: fields that are known but not built yet, and the fix for each."""
    unbuilt = unbuilt or {}
    later = [
        Fault(code="unsupported", pointer=f"/{name}", detail=f"{name} is not built yet.", fix=unbuilt[name])
        for name in value
        if name in unbuilt
    ]
    try:
        checked = model.model_validate({name: part for name, part in value.items() if name not in unbuilt})
    except ValidationError as error:
        faults = faults_of(error.errors(include_url=False, include_context=False), known=list(model.model_fields))
        raise InvalidValue(_summary(faults), faults=[*faults, *later]) from error
    if later:
        raise Unsupported(_summary(later), faults=later)
    return checked


def _summary(faults: list[Fault]) -> str:
    more = f" ({len(faults)} faults)" if len(faults) > 1 else ""
    return f"{faults[0].detail}{more}"


def _check_content_type(request: Request) -> None:
    header = request.headers.get("content-type", "")
    essence, *parameters = (part.strip() for part in header.split(";"))
    if essence.lower() != "application/json":
        raise UnsupportedMediaType(f"This reads application/json, not {essence[:80] or 'a body without a type'}.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            raise UnsupportedMediaType(f"JSON is UTF-8 here, not {value[:40]}.")
