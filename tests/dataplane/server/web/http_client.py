"""A raw HTTP client for tests: bytes out, answers in, nothing hidden."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import dataclass, field
from typing import Any

from engines.kit.records import Credential, InstanceRecord
from tests.dataplane.plane import ANSWER_SECONDS_MAX, Plane


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls, plane: Plane, *, tls: ssl.SSLContext | None = None, server_name: str = ""
    ) -> RawClient:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", plane.port, ssl=tls, server_hostname=server_name or None, limit=2**20
        )
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, has_body: bool = True) -> Answer:
        """Return the next answer."""
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            status = int(first.split(" ")[1])
            body = b""
            if not has_body or status == 100:
                pass
            elif headers.get("transfer-encoding") == "chunked":
                while size := int((await self.reader.readline()).strip(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readexactly(2)
            else:
                body = await self.reader.readexactly(int(headers["content-length"]))
            return Answer(status, headers, body)

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def is_over(self) -> bool:
        """Say whether the server closes, and has nothing more to say."""
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


class Caller:
    """Makes the requests of one credential."""

    def __init__(self, credential: Credential, password: str) -> None:
        self.authorization = f"authorization: {credential.username} {password}\r\n"

    def request(
        self,
        target: str,
        body: bytes = b"",
        *,
        method: str = "POST",
        headers: str = "",
        version: str = "1.1",
        length: int | None = None,
    ) -> bytes:
        length = len(body) if length is None else length
        return (
            f"{method} {target} HTTP/{version}\r\nHost: localhost\r\n{self.authorization}"
            f"content-length: {length}\r\n{headers}\r\n"
        ).encode() + body


@dataclass
class Front:
    """A plane with the whole engine, and one signed-in caller."""

    plane: Plane
    record: InstanceRecord
    caller: Caller
    clients: list[RawClient] = field(default_factory=list)

    async def open(self, **how: object) -> RawClient:
        client = await RawClient.open(self.plane, **how)  # type: ignore[arg-type]
        self.clients.append(client)
        return client

    async def close(self) -> None:
        while self.clients:
            await self.clients.pop().close()
