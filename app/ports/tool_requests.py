"""A tool call made into one HTTP request: the declaration's templates rendered with the arguments and the secrets.

`render(request, secrets)` is deterministic, so that a repeated attempt sends the same bytes: JSON with sorted keys and
no spaces, query parameters in sorted order. The rules:

- url: arguments inside it are percent-encoded *before* the expression sees them, so that no argument can leave its
  path segment; dot segments and empty arguments in the path are refused. `{name}` in it is filled from `path`.
- arguments go into the JSON body (GET, HEAD and DELETE: into the query) unless `query` or `body` map them; those
  named in `path` are not sent twice.
- a null header, or a null query parameter, is left out; a list in the query repeats its name.
- `Content-Type: application/x-www-form-urlencoded` sends a map as a form; another type sends a text as it is.
- what a header may hold is decided here: one line of printable ASCII. Framing headers and ours are not the author's.
- the key of a keyed call travels verbatim, in its header or as the argument it is declared to be; a request that does
  not carry it is refused, because the tool could not recognise its repetition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlencode

from app.domain.certainty import Observation
from app.domain.expressions import ExpressionError
from app.domain.outcomes import JSON
from app.domain.plan import HttpTool, Template
from app.domain.states import EffectClass
from app.ports.secrets import SecretBindings, Secrets
from app.ports.world import ToolRequest

_IN_QUERY: Final = frozenset({"GET", "HEAD", "DELETE"})
"""Methods whose body has no meaning (RFC 9110 §9.3.1, §9.3.2, §9.3.5)."""

RESERVED_HEADERS: Final = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "traceparent",
        "tracestate",
    }
)
"""Headers that frame or route the message, or are the engine's: a definition may not set them."""
_RESERVED_PREFIXES: Final = ("surefoot-", "proxy-")

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|")
"""RFC 9110 §5.5 without obs-text: receivers disagree about bytes beyond ASCII."""

_EMPTY: Final = "%00"
"""Stands for an empty argument while the url is rendered; a NUL itself is never meant either."""

RESULT_URL: Final = "Surefoot-Result-Url"
RESULT_TOKEN: Final = "Surefoot-Result-Token"

_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...]
    content: bytes | None


class Unrenderable(Exception):
    """No request could be made of the call; nothing was sent."""

    def __init__(self, observation: Observation, detail: str) -> None:
        super().__init__(detail)
        self.observation = observation
        self.detail = detail


def render(request: ToolRequest, secrets: Secrets) -> HttpRequest:
    """Raises `Unrenderable`. The message may hold values of arguments or secrets: mask it."""
    tool = request.tool
    arguments = dict(request.arguments)
    if tool.effect is EffectClass.KEYED:
        if request.key is None or (tool.key_header is None and tool.key_argument is None):
            raise Unrenderable(Observation.REQUEST_INVALID, "a keyed call without its key would not be safe to repeat")
        if tool.key_argument is not None:
            arguments[tool.key_argument] = request.key
    if tool.http is None:
        raise ValueError(f"{tool.name} is no HTTP tool")
    bound = secrets.bindings()
    try:
        rendered = _render(tool.http, request, arguments, bound)
        if tool.effect is EffectClass.KEYED and tool.key_header is None:
            _check_that_key_travels(tool.http, rendered, request, arguments, bound)
        return rendered
    except ExpressionError as error:
        if bound.missing:
            name = bound.missing[0]
            raise Unrenderable(Observation.SECRET_MISSING, f"the secret `{name}` is not set") from error
        raise Unrenderable(Observation.EXPRESSION_FAILED, str(error).rstrip(".")) from error
    except UnicodeError as error:
        raise Unrenderable(Observation.REQUEST_INVALID, "a value of its url holds a lone surrogate") from error


def _check_that_key_travels(
    http: HttpTool,
    rendered: HttpRequest,
    request: ToolRequest,
    arguments: Mapping[str, JSON],
    secrets: SecretBindings,
) -> None:
    """A `path`, `query` or `body` that maps the arguments may leave the key out. Known by what is made of another key,
    since an expression may put it anywhere: the same bytes mean that it is nowhere in them."""
    tool = request.tool
    sent_whole = http.body is None and http.query is None and tool.key_argument not in (http.path or {})
    if tool.key_argument is None or sent_whole:
        return
    other = {**arguments, tool.key_argument: f"{request.key}~"}
    if _render(http, request, other, secrets) == rendered:
        detail = f"its `http` sends no `{tool.key_argument}`, so the key would not reach the tool"
        raise Unrenderable(Observation.REQUEST_INVALID, detail)


def _render(
    http: HttpTool, request: ToolRequest, arguments: Mapping[str, JSON], secrets: SecretBindings
) -> HttpRequest:
    bindings = {"arguments": arguments, "secrets": secrets}
    method = http.method.upper()
    url = _url(http, bindings)
    headers = _headers(http.headers, request, bindings)
    rest = {name: value for name, value in arguments.items() if name not in (http.path or {})}
    query: JSON = None
    content: bytes | None = None
    if http.query is not None:
        query = http.query.render(bindings)
    elif method in _IN_QUERY and http.body is None:
        query = rest
    if http.body is not None:
        content = _content(http.body.render(bindings), headers)
    elif method not in _IN_QUERY:
        content = _content(rest, headers)
    return HttpRequest(
        method=method,
        url=_with_query(url, query),
        headers=tuple((name.encode("ascii"), value.encode("ascii")) for name, value in headers.values()),
        content=content,
    )


# --- url -----------------------------------------------------------------------------------------------------------


def _url(http: HttpTool, bindings: Mapping[str, JSON]) -> str:
    url = http.url.render({} if http.url.literal else {**bindings, "arguments": _quoted(bindings["arguments"])})
    if not isinstance(url, str):
        raise Unrenderable(Observation.REQUEST_INVALID, "its url is not text")
    for name, template in (http.path or {}).items():
        if f"{{{name}}}" not in url:
            raise Unrenderable(Observation.REQUEST_INVALID, f"its url has no {{{name}}} for `path`")
        url = url.replace(f"{{{name}}}", _segment(name, template, bindings))
    url = url.partition("#")[0]
    path, question, query = url.partition("?")
    segments = path.split("://", 1)[-1].split("/")[1:]
    if any(unquote(segment) in (".", "..") for segment in segments):
        raise Unrenderable(Observation.REQUEST_INVALID, "its url would leave its path (a `.` or `..` segment)")
    if _EMPTY in path:
        raise Unrenderable(Observation.REQUEST_INVALID, "an argument in the path of its url is empty")
    return path + question + query.replace(_EMPTY, "")


def _segment(name: str, template: Template, bindings: Mapping[str, JSON]) -> str:
    value = _scalar_text(template.render(bindings))
    if not value:
        raise Unrenderable(Observation.REQUEST_INVALID, f"`{name}` in the path of its url is empty, null, or no scalar")
    return quote(value, safe="")


def _quoted(value: JSON) -> JSON:
    """Arguments as the url sees them. Depth is bounded: they were stored."""
    if isinstance(value, str):
        # All arguments pass here, those that the url does not use, too: so a lone surrogate is let through.
        return quote(value, safe="", errors="surrogatepass") if value else _EMPTY
    if isinstance(value, dict):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return value


def _with_query(url: str, query: JSON) -> str:
    if query is None:
        return url
    if not isinstance(query, Mapping):
        raise Unrenderable(Observation.REQUEST_INVALID, "its `query` is not a map")
    pairs: list[tuple[str, str]] = []
    for name in sorted(query):
        value = query[name]
        items = value if isinstance(value, list) else [value]
        pairs.extend((name, _text(item)) for item in items if item is not None)
    if not pairs:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs, quote_via=quote, safe='')}"


# --- headers -------------------------------------------------------------------------------------------------------


def _headers(
    templates: Mapping[str, Template], request: ToolRequest, bindings: Mapping[str, JSON]
) -> dict[str, tuple[str, str]]:
    """By lower-case name: (name as written, value)."""
    headers: dict[str, tuple[str, str]] = {"accept": ("Accept", "application/json, text/*;q=0.8, */*;q=0.5")}
    for name, template in templates.items():
        lower = name.lower()
        if lower in RESERVED_HEADERS or lower.startswith(_RESERVED_PREFIXES):
            raise Unrenderable(Observation.REQUEST_INVALID, f"the header `{name}` is not the definition's to set")
        rendered = template.render(bindings)
        if rendered is None:
            continue
        value = _scalar_text(rendered)
        if value is None:
            raise Unrenderable(Observation.REQUEST_INVALID, f"the header `{name}` is neither text nor a number")
        headers[lower] = (name, value)
    if request.key is not None and request.tool.key_header is not None:
        headers[request.tool.key_header.lower()] = (request.tool.key_header, request.key)
    ours = {**request.headers, RESULT_URL: request.result_url, RESULT_TOKEN: request.result_token}
    headers.update({name.lower(): (name, value) for name, value in ours.items() if value is not None})
    for name, value in headers.values():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            detail = f"the header `{name}` is not one line of printable ASCII"
            raise Unrenderable(Observation.REQUEST_INVALID, detail)
    return headers


# --- body ----------------------------------------------------------------------------------------------------------


def _content(value: JSON, headers: dict[str, tuple[str, str]]) -> bytes:
    """The body's bytes; says its type in `headers` if the definition did not."""
    declared = headers.get("content-type")
    if declared is None:
        headers["content-type"] = ("Content-Type", "application/json")
        return _json(value)
    essence = declared[1].partition(";")[0].strip().lower()
    if essence == _FORM and isinstance(value, Mapping):
        return _with_query("", value).removeprefix("?").encode("ascii")
    if essence != "application/json" and not essence.endswith("+json") and isinstance(value, str):
        return value.encode("utf-8")
    return _json(value)


def _json(value: JSON) -> bytes:
    """Escaped to ASCII: a lone surrogate in an argument stays what it was."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        raise Unrenderable(Observation.REQUEST_INVALID, "its body cannot be written as JSON") from error


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _scalar_text(value: JSON) -> str | None:
    return None if value is None or isinstance(value, (dict, list)) else _text(value)
