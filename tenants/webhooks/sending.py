"""One request to one endpoint: signed after Standard Webhooks, bounded in time and size.

Nothing here touches the database. An attempt gets WEBHOOK_TIMEOUT_S from the name to the last byte;
of the answer's body the first kibibyte is kept and no more is read.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache

import httpx
from django.conf import settings
from standardwebhooks import Webhook

from tenants.webhooks.targets import Target, TargetError, resolve

EXCERPT_CHARACTERS = 1000
EXCERPT_BYTES = 1024
AGENT = "WeftKit-Webhooks/1"


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: `secrets` are the one or two that sign it."""

    url: str
    message_id: str
    body: str
    secrets: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: `status` None where no answer came; `retry_after_s` if it was asked for."""

    status: int | None
    error: str
    duration_ms: int
    excerpt: str = ""
    retry_after_s: float | None = None

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def signed_headers(message: Message, *, now: datetime) -> dict[str, str]:
    """Return the headers of Standard Webhooks; while secrets rotate there are two signatures."""
    signatures = [
        Webhook(secret).sign(message.message_id, now, message.body) for secret in message.secrets
    ]
    return {
        "webhook-id": message.message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
        "content-type": "application/json",
        "user-agent": AGENT,
        "accept-encoding": "identity",
    }


async def send_all(messages: Sequence[Message]) -> list[Outcome]:
    """Send messages side by side: one slow receiver keeps no other waiting."""
    return await asyncio.gather(*(send(message) for message in messages))


async def send(message: Message) -> Outcome:
    """Make one attempt; what goes wrong is in the outcome."""
    started = time.monotonic()

    def failed(reason: str) -> Outcome:
        return Outcome(None, reason[:300], _since_ms(started))

    try:
        async with asyncio.timeout(settings.WEBHOOK_TIMEOUT_S):
            return await _post(await resolve(message.url), message, started)
    except TargetError as error:
        return failed(str(error))
    except TimeoutError:
        return failed(f"no answer within {settings.WEBHOOK_TIMEOUT_S:g} seconds")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, UnicodeError) as error:
        return failed(f"{type(error).__name__}: {error}".strip(": "))


async def _post(target: Target, message: Message, started: float) -> Outcome:
    headers = signed_headers(message, now=datetime.now(UTC))
    headers["host"] = target.url.netloc
    refusal: httpx.ConnectError | None = None
    # No proxy of the environment: the connection goes to the address that was checked.
    async with httpx.AsyncClient(
        verify=trusted(),
        trust_env=False,
        timeout=settings.WEBHOOK_TIMEOUT_S,
        follow_redirects=False,
    ) as client:
        for address in target.addresses:
            url = httpx.URL(message.url).copy_with(host=str(address), port=target.port)
            extensions = {"sni_hostname": target.host}
            try:
                async with client.stream(
                    "POST", url, content=message.body, headers=headers, extensions=extensions
                ) as answer:
                    excerpt = await _excerpt(answer)
                    return _outcome(answer, excerpt, started)
            except httpx.ConnectError as error:
                refusal = error
    raise refusal or httpx.ConnectError("the name has no address")


async def _excerpt(answer: httpx.Response) -> str:
    seen = b""
    async for chunk in answer.aiter_raw(EXCERPT_BYTES):
        seen += chunk
        if len(seen) >= EXCERPT_BYTES:
            break
    text = seen[:EXCERPT_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")
    return text[:EXCERPT_CHARACTERS]


def _outcome(answer: httpx.Response, excerpt: str, started: float) -> Outcome:
    status = answer.status_code
    error = "" if 200 <= status < 300 else f"answered {status}"
    if 300 <= status < 400:
        error += "; redirects are not followed"
    wait = retry_after(answer.headers)
    return Outcome(status, error, _since_ms(started), excerpt, wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for: a number, or until a date."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit() and len(given) < 10:
        return float(given)
    try:
        until = parsedate_to_datetime(given)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _since_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


@cache
def trusted() -> ssl.SSLContext:
    return ssl.create_default_context()
