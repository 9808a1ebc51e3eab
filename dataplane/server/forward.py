"""Tokens that stand for something in one worker and can be presented at any (cancel keys).

A token has a half that its protocol shows anyway, and a half that cannot be guessed:

    bit 63 .............. 32    31 ............ 8    7 ................. 0
    given by the engine         random               worker's number, masked

The mask is a keyed hash of all that stands before it, so to anybody without the key all 32 bits
of the lower half look random.

Whoever is shown a token of another worker asks it over `<run>/workers/<number>.sock`: eight bytes
and a wish there, and back the instance's UUID and the payload, or nothing. What a token stands for
may change all the time (a pooled client's session): then there is no payload, and the owner itself
does what is wished.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

from dataplane.observe import metrics
from dataplane.observe.log import get_logger

_NUMBER_BITS = 8
_RANDOM_BITS = 24
_TOKEN_BYTES = 8
_PURPOSE = b"weftkit dataplane tokens"
_UUID_BYTES = 16
_REDEEM, _PERFORM = b"r", b"p"

# Does what a token stands for.
Perform = Callable[[], Awaitable[None]]
PAYLOAD_BYTES_MAX = 4096
FORWARD_SECONDS_MAX = 1.0
# Guessed tokens cost their senders a connection each, and us no more than this many at once.
FORWARDS_MAX = 64


def socket_path(run_dir: Path, number: int) -> Path:
    """Return where the worker with this number listens for the others."""
    return run_dir / "workers" / f"{number}.sock"


class TokenBook:
    """The tokens of this worker, and the way to those of the others."""

    def __init__(self, run_dir: Path, number: int, master_key: bytes) -> None:
        assert 0 <= number < 1 << _NUMBER_BITS
        self._key = hmac.digest(master_key, _PURPOSE, "sha256")
        self._run_dir = run_dir
        self._number = number
        self._owned: dict[int, tuple[str, bytes]] = {}
        self._redeemed: set[int] = set()
        self._performers: dict[int, Perform] = {}
        self._forwards = asyncio.Semaphore(FORWARDS_MAX)
        self._server: asyncio.Server | None = None
        self._log = get_logger("forward")

    def issue(self, instance_id: str, payload: bytes, upper: int) -> int:
        """Return a new token that stands for `payload` until it is withdrawn."""
        assert len(payload) <= PAYLOAD_BYTES_MAX
        while True:
            start = upper << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
            token = start << _NUMBER_BITS | self._number ^ self._mask(start)
            if token not in self._owned:
                self._owned[token] = (instance_id, payload)
                return token

    def answers(self, token: int, perform: Perform) -> None:
        """Have `perform` done here, at the owner, when somebody asks for it."""
        self._performers[token] = perform

    async def perform(self, token: int) -> None:
        """Do what a redeemed token without a payload stands for, wherever it was issued."""
        number = self.owner(token)
        if number != self._number:
            await self._ask(number, token, _PERFORM)
        elif (perform := self._performers.get(token)) is not None:
            await perform()

    def withdraw(self, token: int) -> bool:
        """End the token's life; say whether it was ever redeemed."""
        self._owned.pop(token, None)
        self._performers.pop(token, None)
        was_redeemed = token in self._redeemed
        self._redeemed.discard(token)
        return was_redeemed

    async def redeem(self, token: int) -> tuple[str, bytes] | None:
        """Return (instance id, payload) of a token, wherever it was issued."""
        if not 0 <= token < 1 << 8 * _TOKEN_BYTES:
            return None
        number = self.owner(token)
        if number == self._number:
            return self._redeem(token)
        if self._forwards.locked():
            return None
        async with self._forwards:
            found = await self._ask(number, token, _REDEEM)
        metrics.FORWARDED.labels("found" if found else "unknown").inc()
        return found

    async def start(self) -> None:
        """Listen for the other workers."""
        path = socket_path(self._run_dir, self._number)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Left by the worker that had this number before.
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._answer, str(path), limit=_TOKEN_BYTES * 2
        )

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def _redeem(self, token: int) -> tuple[str, bytes] | None:
        owned = self._owned.get(token)
        if owned is not None:
            self._redeemed.add(token)
        return owned

    def _mask(self, start: int) -> int:
        return hmac.digest(self._key, start.to_bytes(_TOKEN_BYTES, "big"), "sha256")[0]

    def owner(self, token: int) -> int:
        """Return the number of the worker that would have issued `token`."""
        return token & (1 << _NUMBER_BITS) - 1 ^ self._mask(token >> _NUMBER_BITS)

    async def _ask(self, number: int, token: int, wish: bytes) -> tuple[str, bytes] | None:
        path = socket_path(self._run_dir, number)
        try:
            async with asyncio.timeout(FORWARD_SECONDS_MAX):
                reader, writer = await asyncio.open_unix_connection(
                    str(path), limit=_UUID_BYTES + PAYLOAD_BYTES_MAX
                )
                with contextlib.closing(writer):
                    writer.write(token.to_bytes(_TOKEN_BYTES, "big") + wish)
                    answer = await reader.read(-1)
        except (OSError, TimeoutError) as error:
            self._log.info("worker_not_asked", worker=number, error=str(error))
            return None
        if len(answer) < _UUID_BYTES:
            return None
        return str(UUID(bytes=answer[:_UUID_BYTES])), answer[_UUID_BYTES:]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(FORWARD_SECONDS_MAX):
                token = int.from_bytes(await reader.readexactly(_TOKEN_BYTES), "big")
                wish = await reader.readexactly(1)
            if wish == _PERFORM:
                if token in self._performers:
                    await self._performers[token]()
                return
            owned = self._redeem(token)
            if owned is not None:
                writer.write(UUID(owned[0]).bytes + owned[1])
