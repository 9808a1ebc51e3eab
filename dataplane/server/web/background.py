"""What engines do beside requests: work of an instance, at most one of a name in a worker; locks.

Work ends with its instance, and with the worker; it is written so that it can begin again (a lease
or a marker in the instance's own tables), because a killed worker ends it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

from dataplane.observe.log import get_logger
from engines.kit.errors import RequestError
from engines.kit.records import InstanceRecord, Status

Work = Callable[[], Awaitable[None]]

TASKS_MAX = 1_000


class Background:
    """The background work of one engine in one worker."""

    def __init__(self, engine: str) -> None:
        self._log = get_logger("background", engine=engine)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._is_closed = False

    def spawn(self, record: InstanceRecord, name: str, work: Work) -> None:
        """Begin work, unless it goes on already, or there is too much of it for this moment."""
        key = (record.instance_id, name)
        if key in self._tasks or self._is_closed or len(self._tasks) >= TASKS_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._run(record, name, work))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def follow(self, known: InstanceRecord, new: InstanceRecord | None) -> None:
        """End the work of an instance that is not in service."""
        if new is not None and new.status is Status.ACTIVE:
            return
        for (instance_id, _), task in list(self._tasks.items()):
            if instance_id == known.instance_id:
                task.cancel()

    async def close(self, within_s: float) -> None:
        """End all work, and begin no more."""
        self._is_closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    async def _run(self, record: InstanceRecord, name: str, work: Work) -> None:
        log = self._log
        try:
            await work()
        except RequestError as error:
            log.info("work_ended", instance=record.handle, work=name, reason=error.reason.value)
        except Exception:  # one piece of work's fault must stay its own
            log.exception("work_failed", instance=record.handle, work=name)


class Holds:
    """Locks by key, which are there while somebody has or wants them."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: object) -> AsyncIterator[None]:
        """Let one task at a time into the block, for equal keys."""
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[key]
            if users > 1:
                self._locks[key] = (lock, users - 1)
            else:
                del self._locks[key]
