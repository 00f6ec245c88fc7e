"""How a declaration and its arguments become one HTTP request, and which requests are refused instead."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.domain.certainty import Observation
from app.domain.plan import HttpTool
from app.domain.states import EffectClass
from app.ports.addresses import parse_target
from app.ports.secrets import Secrets
from app.ports.tool_requests import HttpRequest, Unrenderable, render
from tests.ports.tool_calls import call, http

SECRETS = Secrets({"calendar": SecretStr("s3cret"), "room": SecretStr("a/b")})
BASE = "https://calendar.example.com"


def rendered(declared: Any, arguments: dict[str, Any] | None = None, **more: Any) -> HttpRequest:
    return render(call(declared, arguments, **more), SECRETS)


def refused(declared: Any, arguments: dict[str, Any] | None = None, **more: Any) -> Unrenderable:
    with pytest.raises(Unrenderable) as raised:
        rendered(declared, arguments, **more)
    return raised.value


# --- url and query -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_arguments_are_the_query_when_the_method_has_no_body(method: str) -> None:
    request = rendered(
        http(f"{BASE}/e?v=1", method=method),
        {"b": True, "a": "x y&z=ü", "n": 1.5, "none": None, "many": ["p", 2], "map": {"k": 1}},
    )

    assert request.content is None
    assert request.url == f"{BASE}/e?v=1&a=x%20y%26z%3D%C3%BC&b=true&many=p&many=2&map=%7B%22k%22%3A1%7D&n=1.5"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_arguments_are_the_json_body_when_the_method_has_one(method: str) -> None:
    request = rendered(http(f"{BASE}/e", method=method), {"b": None, "a": ["ü"]})

    assert request.url == f"{BASE}/e"
    assert request.content == b'{"a":["\\u00fc"],"b":null}'


def test_path_query_and_body_are_mapped_when_declared() -> None:
    declared = http(
        f"{BASE}/calendars/{{calendar}}/events",
        path={"calendar": "${{ arguments.calendar }}"},
        query={"notify": "${{ arguments.notify }}"},
        body={"summary": "${{ arguments.title }}", "fixed": 1},
    )

    request = rendered(declared, {"calendar": "a/b c", "notify": False, "title": "T"})

    assert request.url == f"{BASE}/calendars/a%2Fb%20c/events?notify=false"
    assert request.content == b'{"fixed":1,"summary":"T"}'


def test_argument_named_in_the_path_is_not_sent_twice() -> None:
    declared = http(f"{BASE}/events/{{id}}", method="DELETE", path={"id": "${{ arguments.id }}"})

    assert rendered(declared, {"id": 7, "why": "x"}).url == f"{BASE}/events/7?why=x"


@pytest.mark.parametrize(
    "value", ["../admin", "a/b", "x?y=1", "x#y", "x@evil.com", "x%2Fy", "a\\b", "x y", "x\r\nHost: evil", "ü", "a;b:c"]
)
def test_argument_in_the_url_stays_in_its_segment(value: str) -> None:
    request = rendered(http(f"{BASE}/events/${{{{ arguments.id }}}}/details", method="PUT"), {"id": value})

    target = parse_target(request.url)
    assert target.host == "calendar.example.com"
    assert target.path.startswith(b"/events/")
    assert target.path.endswith(b"/details")
    assert target.path.count(b"/") == 3
    assert b"?" not in target.path


@pytest.mark.parametrize("value", ["..", "."])
@pytest.mark.parametrize("mapped", [True, False])
def test_argument_that_would_climb_out_of_its_path_is_refused(value: str, mapped: bool) -> None:
    url = f"{BASE}/events/{{id}}" if mapped else f"{BASE}/events/${{{{ arguments.id }}}}"
    path = {"id": "${{ arguments.id }}"} if mapped else None

    error = refused(http(url, method="DELETE", path=path), {"id": value})

    assert error.observation is Observation.REQUEST_INVALID


@pytest.mark.parametrize("value", ["", None, [], {}])
def test_argument_in_the_path_is_refused_when_it_is_empty(value: Any) -> None:
    """DELETE /events/ is another request than DELETE /events/7."""
    declared = http(f"{BASE}/events/{{id}}", method="DELETE", path={"id": "${{ arguments.id }}"})

    assert refused(declared, {"id": value}).observation is Observation.REQUEST_INVALID


def test_empty_argument_is_refused_in_the_url_s_path_but_not_in_its_query() -> None:
    error = refused(http(f"{BASE}/events/${{{{ arguments.id }}}}", method="PUT"), {"id": ""})
    request = rendered(http(f"{BASE}/events?q=${{{{ arguments.q }}}}", method="PUT"), {"q": ""})

    assert "empty" in error.detail
    assert request.url == f"{BASE}/events?q="


def test_secret_in_the_url_is_the_operators_own_text() -> None:
    request = rendered(http(f"{BASE}/rooms/${{{{ secrets.room }}}}/x"))

    assert request.url == f"{BASE}/rooms/a/b/x"


@given(value=st.text(min_size=1))
def test_no_text_at_all_leaves_its_segment(value: str) -> None:
    declared = http(f"{BASE}/events/${{{{ arguments.id }}}}", method="PUT")
    try:
        url = rendered(declared, {"id": value}).url
    except Unrenderable:
        return  # dots, NUL: refused is as good

    target = parse_target(url)

    assert target.host == "calendar.example.com"
    assert target.path.count(b"/") == 2


# --- headers -------------------------------------------------------------------------------------------------------


def header(request: HttpRequest, name: bytes) -> bytes | None:
    return {key.lower(): value for key, value in request.headers}.get(name)


def test_header_takes_text_numbers_and_secrets_and_is_left_out_when_null() -> None:
    declared = http(
        BASE,
        headers={
            "Authorization": "Bearer ${{ secrets.calendar }}",
            "X-Count": "${{ arguments.n }}",
            "X-None": "${{ arguments.none }}",
        },
    )

    request = rendered(declared, {"n": 3, "none": None})

    assert header(request, b"authorization") == b"Bearer s3cret"
    assert header(request, b"x-count") == b"3"
    assert header(request, b"x-none") is None


@pytest.mark.parametrize(
    "value", ["a\r\nX-Admin: 1", "a\nb", "a\rb", "a\x00b", "é", " padded ", "\x7f", ["a"], {"a": 1}]
)
def test_header_is_refused_when_its_value_is_not_one_line_of_ascii(value: Any) -> None:
    error = refused(http(BASE, headers={"X-Title": "${{ arguments.title }}"}), {"title": value})

    assert error.observation is Observation.REQUEST_INVALID
    assert "`X-Title`" in error.detail


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Surefoot-Call",
        "Proxy-Authorization",
        "traceparent",
    ],
)
def test_header_that_frames_or_identifies_the_request_is_not_the_definitions(name: str) -> None:
    assert f"`{name}`" in refused(http(BASE, headers={name: "x"})).detail


def test_header_name_that_would_split_the_message_is_refused() -> None:
    assert refused(http(BASE, headers={"X: y\r\nZ": "x"})).observation is Observation.REQUEST_INVALID


# --- the key -------------------------------------------------------------------------------------------------------


def test_key_is_sent_verbatim_in_the_declared_header() -> None:
    request = rendered(http(BASE), effect=EffectClass.KEYED, key="meeting:42#2", key_header="X-Dedup")

    assert header(request, b"x-dedup") == b"meeting:42#2"


def test_key_is_sent_verbatim_in_the_declared_argument() -> None:
    request = rendered(http(BASE), {"a": 1}, effect=EffectClass.KEYED, key="meeting:42", key_argument="request_id")

    assert request.content == b'{"a":1,"request_id":"meeting:42"}'


KEY = 'meeting:42/"ü" &#2'
"""What a business key may be, on the wire with its generation: nothing of it is trimmed, cased or normalised."""
TEMPLATED = "${{ arguments.request_id }}"


def with_key_argument(declared: Any, arguments: dict[str, Any] | None = None) -> HttpRequest:
    return rendered(declared, arguments, effect=EffectClass.KEYED, key=KEY, key_argument="request_id")


def test_key_argument_is_in_the_query_when_the_method_has_no_body() -> None:
    request = with_key_argument(http(f"{BASE}/e", method="DELETE"), {"a": 1})

    assert parse_qs(urlsplit(request.url).query) == {"a": ["1"], "request_id": [KEY]}


def test_key_argument_is_where_a_templated_body_puts_it() -> None:
    declared = http(BASE, body={"meta": {"dedup": [TEMPLATED]}, "title": "${{ arguments.title }}"})

    request = with_key_argument(declared, {"title": "T"})

    assert json.loads(request.content or b"") == {"meta": {"dedup": [KEY]}, "title": "T"}


def test_key_argument_is_where_a_templated_query_puts_it() -> None:
    declared = http(BASE, method="DELETE", query={"dedup": TEMPLATED})

    assert parse_qs(urlsplit(with_key_argument(declared, {"a": 1}).url).query) == {"dedup": [KEY]}


@pytest.mark.parametrize("mapped", [True, False])
def test_key_argument_is_one_segment_where_the_path_holds_it(mapped: bool) -> None:
    url = f"{BASE}/e/{{request_id}}" if mapped else f"{BASE}/e/{TEMPLATED}"
    declared = http(url, method="PUT", path={"request_id": TEMPLATED} if mapped else None, body={"a": 1})

    request = with_key_argument(declared)

    assert [unquote(segment) for segment in urlsplit(request.url).path.split("/")] == ["", "e", KEY]


def test_key_argument_is_the_key_even_when_the_caller_wrote_another() -> None:
    request = with_key_argument(http(BASE), {"request_id": "forged"})

    assert json.loads(request.content or b"") == {"request_id": KEY}


@pytest.mark.parametrize(
    "declared",
    [
        http(BASE, body={"title": "fixed"}),
        http(BASE, method="DELETE", query={"title": "fixed"}),
        http(BASE, method="DELETE", body={"title": "fixed"}),
        http(f"{BASE}/{{request_id}}", path={"request_id": "fixed"}),
    ],
    ids=["body", "query", "body instead of query", "path"],
)
def test_keyed_call_is_refused_when_its_mapping_leaves_the_key_out(declared: HttpTool) -> None:
    error = refused(declared, {"a": 1}, effect=EffectClass.KEYED, key=KEY, key_argument="request_id")

    assert error.observation is Observation.REQUEST_INVALID
    assert "`request_id`" in error.detail


def test_key_argument_may_be_left_out_of_the_mapping_when_a_header_carries_the_key() -> None:
    request = rendered(
        http(BASE, body={"title": "fixed"}),
        effect=EffectClass.KEYED,
        key="k",
        key_header="X-Dedup",
        key_argument="request_id",
    )

    assert header(request, b"x-dedup") == b"k"


def test_key_argument_of_a_call_without_key_stays_the_caller_s() -> None:
    request = rendered(http(BASE), {"request_id": "mine"}, effect=EffectClass.IDEMPOTENT, key_argument="request_id")

    assert request.content == b'{"request_id":"mine"}'


# --- where a result may come later ---------------------------------------------------------------------------------


def test_request_says_where_its_result_may_be_posted_and_with_which_token() -> None:
    request = rendered(http(BASE), result_url="https://surefoot.example.com/v1/calls/call_1/result", result_token="t0k")

    assert header(request, b"surefoot-result-url") == b"https://surefoot.example.com/v1/calls/call_1/result"
    assert header(request, b"surefoot-result-token") == b"t0k"


def test_request_says_nothing_of_results_when_none_is_waited_for() -> None:
    names = {name.lower() for name, _ in rendered(http(BASE)).headers}

    assert not [name for name in names if name.startswith(b"surefoot-result")]


# --- bodies --------------------------------------------------------------------------------------------------------


def test_form_is_sent_when_the_definition_says_so() -> None:
    declared = http(BASE, headers={"Content-Type": "application/x-www-form-urlencoded"})

    request = rendered(declared, {"to": "+41 79", "body": "a&b"})

    assert request.content == b"body=a%26b&to=%2B41%2079"
    assert header(request, b"content-type") == b"application/x-www-form-urlencoded"


def test_text_is_sent_as_it_is_when_the_type_is_not_json() -> None:
    declared = http(BASE, headers={"Content-Type": "text/plain; charset=utf-8"}, body="${{ arguments.text }}")

    assert rendered(declared, {"text": "grüezi"}).content == "grüezi".encode()


def test_text_is_a_json_string_when_the_type_is_json() -> None:
    assert rendered(http(BASE, body="${{ arguments.text }}"), {"text": "x"}).content == b'"x"'


@pytest.mark.parametrize("value", ["\ud800", "\x00", 10**3000])
def test_odd_values_are_sent_as_json_can_say_them(value: Any) -> None:
    assert rendered(http(BASE), {"x": value}).content


def test_lone_surrogate_is_refused_where_no_spelling_exists_for_it() -> None:
    assert refused(http(BASE, method="GET"), {"q": "\ud800"}).observation is Observation.REQUEST_INVALID


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_json_does_not_know_is_refused(value: float) -> None:
    assert refused(http(BASE), {"x": value}).observation is Observation.REQUEST_INVALID


# --- expressions ---------------------------------------------------------------------------------------------------


def test_expression_without_a_value_is_told_and_nothing_is_made() -> None:
    error = refused(http(f"{BASE}/${{{{ arguments.nope }}}}"), {"id": 1})

    assert error.observation is Observation.EXPRESSION_FAILED
    assert "nope" in error.detail


def test_missing_secret_is_told_by_its_name_and_no_other_is_mentioned() -> None:
    error = refused(http(BASE, headers={"Authorization": "Bearer ${{ secrets.mail }}"}))

    assert error.observation is Observation.SECRET_MISSING
    assert error.detail == "the secret `mail` is not set"


@given(arguments=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=6))
def test_rendering_is_the_same_bytes_whatever_the_order_of_the_arguments(arguments: dict[str, Any]) -> None:
    turned = dict(reversed(arguments.items()))

    assert rendered(http(BASE), arguments) == rendered(http(BASE), turned)
