"""The command line's HTTP client: one method per verb, answers as JSON, problems as `Problem`.

Thin: no retries (every command may be repeated by hand; a POST that may not carries an Idempotency-Key), no caching.
An unreachable server and a 502, 503 or 504 raise `Stop` with exit code 5; any other refusal raises `Problem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from app.cli.exits import UNREACHABLE, Stop
from app.cli.target import START, Target
from app.domain.outcomes import JSON

if TYPE_CHECKING:
    import httpx

TIMEOUT: Final = 15.0
"""Seconds for one answer, beyond what `Prefer: wait` asks for."""
AWAY: Final = frozenset({502, 503, 504})
_WITH_BODY: Final = frozenset({"POST", "PUT"})


class Problem(Exception):
    """The server said no, in `application/problem+json` or otherwise."""

    def __init__(self, status: int, document: Mapping[str, JSON]) -> None:
        super().__init__(str(document.get("title") or f"HTTP {status}"))
        self.status = status
        self.document = document

    @property
    def code(self) -> str:
        return str(self.document.get("code") or "")


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Client:
    def __init__(self, target: Target) -> None:
        import httpx  # a quarter of a second, which `surefoot --help` need not pay

        self.target = target
        self._http = httpx.Client(
            base_url=target.url,
            headers={"Authorization": f"Bearer {target.key}", "User-Agent": "surefoot-cli"},
            timeout=TIMEOUT,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, *, query: Mapping[str, Any] | None = None, wait: int | None = None) -> JSON:
        """The body. `wait` is `Prefer: wait`, seconds: held until it ends or needs a person."""
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        return self._send("GET", path, query=query, headers=headers, patience=float(wait or 0)).body

    def post(self, path: str, body: JSON, *, key: str | None = None, patience: float = 0.0) -> Answer:
        """`patience`: seconds more than usual that the answer may take."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self._send("POST", path, body=body, headers=headers, patience=patience)

    def put(self, path: str, body: JSON) -> JSON:
        return self._send("PUT", path, body=body, headers={}).body

    def delete(self, path: str) -> JSON:
        return self._send("DELETE", path, headers={}).body

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: JSON = None,
        headers: Mapping[str, str],
        patience: float = 0.0,
    ) -> Answer:
        import httpx

        try:
            answer = self._http.request(
                method,
                path,
                params=None if query is None else {name: value for name, value in query.items() if value is not None},
                json=body if method in _WITH_BODY else None,
                headers=dict(headers),
                timeout=TIMEOUT + patience,
            )
        except httpx.InvalidURL as error:
            raise Stop(f"{self.target.url} is not a URL: {error}.") from error
        except httpx.HTTPError as error:
            what = f"{self.target.url} does not answer: {error or type(error).__name__}."
            raise Stop(what, fix=START, code=UNREACHABLE) from error
        document = _json(answer)
        if answer.status_code < 400:
            return Answer(status=answer.status_code, body=document, headers=dict(answer.headers))
        if not isinstance(document, Mapping):
            document = {"title": f"HTTP {answer.status_code} from {self.target.url}", "detail": answer.text[:300]}
        raise Problem(answer.status_code, document)


def _json(answer: httpx.Response) -> JSON:
    if "json" not in answer.headers.get("content-type", ""):
        return answer.text
    try:
        return answer.json()
    except ValueError as error:
        raise Stop(f"{answer.url} answered with something that is not JSON: {error}.", code=UNREACHABLE) from error
