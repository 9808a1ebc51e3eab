"""The REST API as a script wants it: problems become errors, lists come whole, operations end.

Exit statuses, for scripts:

    0  done                            5  not in this state, or locked (409, 412, 423)
    1  the operation failed            6  a limit, a quota, a bill (402, 429)
    2  wrong usage (click's)           7  the API is away or failed (no answer, 5xx)
    3  there is none (404)             8  it still runs after --timeout
    4  not allowed (401, 403)
"""

from __future__ import annotations

import random
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

FAILED, AWAY, STILL_RUNS = 1, 7, 8
EXITS: Mapping[int, int] = {
    401: 4, 402: 6, 403: 4, 404: 3, 409: 5, 412: 5, 423: 5, 429: 6,
}  # fmt: skip
# How often a request is sent, and for how long the API may ask us to wait before that.
TRIES = 4
PAUSE_S_MAX = 20.0
TIMEOUT_S = 30.0
POLL_S, POLL_S_MAX = 0.2, 2.0
PAGE = 200
ENDED = ("succeeded", "failed", "cancelled")


class WeftError(Exception):
    """What ends a command: a message for a person, an exit status for a script."""

    def __init__(self, message: str, exit_status: int = FAILED, problem: Any = None) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.problem = problem


class Api:
    """The API at an address, asked with one key, which is sent nowhere else."""

    def __init__(self, url: str, key: str, *, ca: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise WeftError(f"{url!r} is no address of an API: https://host[:port]", 2)
        try:
            verify = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise WeftError(f"the certificates in {ca}: {error}", 2) from error
        self.base = f"{parts.scheme}://{parts.netloc}/api/v1/"
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {key}", "User-Agent": "weft"},
            verify=verify,
            timeout=TIMEOUT_S,
        )

    def get(self, path: str, **query: Any) -> Any:
        """Return what is at an address."""
        return self.send("GET", path, query=query).json()

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """Do something once, however often it has to be sent."""
        return self.send("POST", path, body=body or {}, query=query).json()

    def patch(self, path: str, body: Mapping[str, Any], **query: Any) -> Any:
        """Change something."""
        return self.send("PATCH", path, body=body, query=query).json()

    def delete(self, path: str) -> Any:
        """Delete something; return the operation that does it, or None."""
        answer = self.send("DELETE", path)
        return answer.json() if answer.content else None

    def items(self, path: str, limit: int = 0, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield what a list holds, page after page; the first `limit` ones if that is not 0."""
        page = self.get(path, limit=min(limit or PAGE, PAGE), **query)
        count = 0
        while True:
            for item in page["items"]:
                yield item
                count += 1
                if count == limit:
                    return
            following = page.get("next")
            if not following:
                return
            page = self.get(following)

    def send(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """Send a request, again where that is safe; WeftError for whatever is no success."""
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        wanted = {name: value for name, value in (query or {}).items() if value is not None}
        for number in range(1, TRIES + 1):
            try:
                answer = self.client.request(
                    method, self.address(path), json=body, params=wanted or None, headers=headers
                )
            except httpx.TransportError as error:
                if number == TRIES:
                    raise WeftError(f"{self.base} does not answer: {error}", AWAY) from error
                time.sleep(_pause(number))
                continue
            if answer.is_success:
                return answer
            if answer.status_code not in (429, 503) or number == TRIES:
                raise refusal(answer)
            time.sleep(_asked_pause(answer, number))
        raise AssertionError

    def stream(self, path: str, write: Callable[[bytes], Any], **query: Any) -> None:
        """Hand on what an address holds piece by piece, however much that is."""
        wanted = {name: value for name, value in query.items() if value is not None}
        try:
            with self.client.stream("GET", self.address(path), params=wanted) as answer:
                if not answer.is_success:
                    answer.read()
                    raise refusal(answer)
                for piece in answer.iter_raw():
                    write(piece)
        except httpx.TransportError as error:
            raise WeftError(f"{self.base} broke off: {error}", AWAY) from error

    def address(self, path: str) -> str:
        """Return the whole address; a link that leads to another host is not followed."""
        found = urljoin(self.base, path)
        if not found.startswith(self.base):
            # A proxy in front may make the API see another name of itself: the path is what counts.
            parts = urlsplit(found)
            found = urljoin(self.base, f"{parts.path}?{parts.query}")
        return found

    def wait(
        self, path: str, *, timeout_s: float, told: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Return the operation at `path` when it has ended; `told` hears of each change."""
        ends_at, pause, heard = time.monotonic() + timeout_s, POLL_S, None
        while True:
            operation: dict[str, Any] = self.get(path)
            news = (operation["state"], operation["progress_done"], operation["bytes_done"])
            if news != heard:
                heard, pause = news, POLL_S
                told(operation)
            if operation["state"] in ENDED:
                return operation
            if time.monotonic() + pause > ends_at:
                raise WeftError(
                    f"still {operation['state']} after {timeout_s:g} s; it goes on:"
                    f" weft operations wait {operation['id']}",
                    STILL_RUNS,
                )
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_S_MAX)


def refusal(answer: httpx.Response) -> WeftError:
    """Return the error that a problem is: its detail, the fields, the id that finds the log."""
    status = answer.status_code
    exit_status = EXITS.get(status, AWAY if status >= 500 else FAILED)
    try:
        problem = answer.json()
        lines = [str(problem["detail"])]
    except (ValueError, KeyError, TypeError):
        return WeftError(f"{answer.url} answers {status}, and not as the API does", exit_status)
    lines += [f"  {name}: {_plain(texts)}" for name, texts in problem.get("errors", {}).items()]
    lines.append(f"  ({problem.get('code')}, request {problem.get('request_id')})")
    return WeftError("\n".join(lines), exit_status, problem)


def _plain(texts: Any) -> str:
    return " ".join(map(str, texts)) if isinstance(texts, list) else str(texts)


def _pause(number: int) -> float:
    return float(0.2 * 2**number * random.uniform(0.5, 1))


def _asked_pause(answer: httpx.Response, number: int) -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), PAUSE_S_MAX) if asked.isdigit() else _pause(number)
