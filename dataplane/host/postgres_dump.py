"""A logical export: `pg_dump` writes to us, and its bytes pass into the depot.

It reads as superuser, because an owner may not read all that its readers and writers own (large
objects). That runs nothing of the tenant's: pg_dump empties the search path and reads no views.
Owners and grants stay behind, as they name roles that only an instance has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataplane.host import template
from dataplane.host.postgres_program import ProgramError, connection_arguments, running
from dataplane.host.postgres_task import AWAY, connect, demand_awake, door_of, parameters, site_of
from dataplane.host.work import Order, TaskError

LOCK_SECONDS_MAX = 60
FORMATS: Mapping[str, tuple[str, ...]] = {
    # Compression costs more time than all else; the first level gets most of it.
    "custom": ("--format=custom", "--compress=gzip:1"),
    "plain": ("--format=plain",),
}
SIZE = "SELECT pg_database_size(current_database())"


class PgDump:
    """Parameters: `file`, `format`. Result: `size_bytes`, `sha256`."""

    commits = False

    def __init__(self, order: Order) -> None:
        self._order = order
        self._door = door_of(order)
        self._site = site_of(order)

    async def prepare(self) -> Mapping[str, Any]:
        """Write the dump. Raises TaskError, TaskCancelledError."""
        file, form = parameters(self._order, _read)
        await demand_awake(self._order)
        try:
            connection = await connect(self._door, template.DATABASE)
            try:
                # Of tables and indexes; how much a dump takes is known at its end.
                self._order.progress.total_bytes = await connection.fetchval(SIZE)
            finally:
                connection.terminate()
        except AWAY as error:
            raise _not_ready() from error
        return await asyncio.to_thread(self._dump, file, form)

    async def commit(self) -> None:
        """Do nothing: the instance is as it was."""

    async def discard(self) -> None:
        """Remove what was stored."""
        name = str(self._order.parameters.get("file", ""))
        await asyncio.to_thread(self._order.depot.remove, name)

    def _dump(self, file: str, form: str) -> Mapping[str, Any]:
        arguments: list[str | Path] = [
            *connection_arguments(self._door.path),
            *FORMATS[form],
            "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions",
            f"--lock-wait-timeout={LOCK_SECONDS_MAX}s", template.DATABASE,
        ]  # fmt: skip
        order = self._order
        program = order.settings.postgres_bin / "pg_dump"
        try:
            with running(program, arguments, self._site.instance_dir, is_read=True) as dump:
                chunks = self._counted(dump.chunks())
                stored = order.depot.write(file, chunks, lambda _: order.progress.check())
        except ProgramError as error:
            if "lock timeout" in error.said:
                raise TaskError("not_ready", "a transaction holds a table for too long") from error
            if any(word in error.said for word in ("connection", "shutting down")):
                raise _not_ready() from error
            raise
        order.progress.total_bytes = order.progress.done_bytes
        return {"size_bytes": stored.size_bytes, "sha256": stored.sha256}

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._order.progress.add(len(chunk))
            yield chunk


def _read(body: Mapping[str, Any]) -> tuple[str, str]:
    form = str(body.get("format", "custom"))
    if form not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}")
    return str(body["file"]), form


def _not_ready() -> TaskError:
    return TaskError("not_ready", "the instance's server ended while it was read")
