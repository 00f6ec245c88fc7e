"""The table from the provider's errors to failure kinds has no gap."""

from __future__ import annotations

from datetime import timedelta
from types import ModuleType
from typing import get_args

import anthropic
import httpx2
import pytest
from anthropic._error_classes import ERROR_CLASSES
from anthropic.lib import credentials
from anthropic.types.shared.error_type import ErrorType

from app.domain.states import FailureKind
from app.ports import model_failures

NOT_MESSAGES = {"memory_precondition_failed_error", "memory_path_conflict_error", "conflict_error"}
"""Error types of other parts of the provider's API."""


def _exceptions(module: ModuleType) -> set[type[BaseException]]:
    found = [getattr(module, name) for name in dir(module)]
    return {cls for cls in found if isinstance(cls, type) and issubclass(cls, BaseException)}


@pytest.mark.parametrize("module", [httpx2, anthropic, anthropic._exceptions, credentials], ids=lambda m: m.__name__)
def test_table_names_every_exception_class_of_the_library(module: ModuleType) -> None:
    unmapped = {
        cls
        for cls in _exceptions(module)
        if cls not in model_failures.TRANSPORT and not issubclass(cls, anthropic.APIStatusError)
    }

    assert unmapped == set()


def test_table_names_every_status_the_sdk_has_a_class_for() -> None:
    assert {status for status, _ in ERROR_CLASSES} <= set(model_failures.STATUS)


def test_table_names_every_code_that_is_about_money_limits_or_load() -> None:
    codes = {code for status, code in ERROR_CLASSES if code and status in (402, 429, 529)}

    assert codes <= set(model_failures.CODES)


def test_table_names_every_error_type_of_the_messages_api() -> None:
    assert set(get_args(ErrorType)) - NOT_MESSAGES <= set(model_failures.TYPES)


def test_every_kind_of_the_table_has_a_fix() -> None:
    tables = (model_failures.TRANSPORT, model_failures.STATUS, model_failures.CODES, model_failures.TYPES)

    kinds = {kind for table in tables for kind in table.values()}

    assert kinds == set(model_failures.FIXES)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "3"}, timedelta(seconds=3)),
        ({"retry-after": "0.5"}, timedelta(seconds=0.5)),
        ({"retry-after-ms": "1500", "retry-after": "9"}, timedelta(seconds=1.5)),
        (
            {"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"},
            timedelta(seconds=30),
        ),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_retry_after_is_read_as_seconds_or_date_when_it_is_one(headers: dict[str, str], wait: timedelta | None) -> None:
    assert model_failures.retry_after(httpx2.Headers(headers)) == wait


def test_exception_of_nobody_is_a_broken_network_when_something_was_sent() -> None:
    class Odd(Exception):
        pass

    failure = model_failures.of_exception(Odd(), sent=True)

    assert failure.kind is FailureKind.NETWORK
    assert failure.detail == {"error": "Odd"}


def test_exception_before_sending_is_the_requests_own_fault_when_it_could_not_be_built() -> None:
    failure = model_failures.of_exception(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), sent=False)

    assert failure.kind is FailureKind.INVALID_REQUEST
