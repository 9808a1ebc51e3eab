"""The floor below `keyvalue`: its statements on fixed prepared connections, and nothing else.

    python -m tests.benchmarks.keyvalue_floor PORT DSN TABLE COMMAND

A bare httptools handler on uvloop: no signature, no routing, no metering, no checks. COMMAND is
`get` or `put`. The key of a request is looked for in its body, and its columns in a table made at
the start.
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import httptools
import uvloop

CONNECTIONS = 8
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: %d\r\n\r\n"


class Floor:
    """Connections to PostgreSQL, and the statement."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.free: asyncio.Queue[asyncpg.prepared_stmt.PreparedStatement] = asyncio.Queue()
        self.rows: dict[bytes, tuple[object, ...]] = {}

    async def open(self, dsn: str, table: str) -> None:
        reader = await asyncpg.connect(dsn)
        rows = await reader.fetch(f"SELECT * FROM {table}")
        columns = list(rows[0].keys())
        for row in rows:
            self.rows[bytes(row["pk"])] = tuple(row.values())
        await reader.close()
        key = "sk = $1 AND pk = $2 AND rk = $3"
        values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        replaced = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns[3:])
        text = {
            "get": f"SELECT item, size_bytes FROM {table} WHERE {key}",
            "put": f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) "
            f"ON CONFLICT (sk, pk, rk) DO UPDATE SET {replaced}",
        }[self.command]
        for _ in range(CONNECTIONS):
            connection = await asyncpg.connect(dsn)
            self.free.put_nowait(await connection.prepare(text))

    async def answer(self, body: bytes) -> bytes:
        row = self.rows[body[(start := body.index(b"key-")) : start + 12]]
        statement = await self.free.get()
        try:
            if self.command == "get":
                found = await statement.fetch(*row[:3])
                return b'{"Item":%s}' % found[0][0]
            await statement.fetch(*row)
            return b"{}"
        finally:
            self.free.put_nowait(statement)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        self.task = asyncio.get_running_loop().create_task(self.serve(body))

    async def serve(self, body: bytes) -> None:
        answer = await self.floor.answer(body)
        self.transport.write(_HEAD % len(answer) + answer)  # type: ignore[attr-defined]


async def main() -> None:
    port, dsn, table, command = sys.argv[1:]
    floor = Floor(command)
    await floor.open(dsn, table)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(floor), "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
