"""Carries out the tasks of this host: one asyncio task for the next stage of each row.

Level-triggered: a look reads all open rows, begins what is not under way and passes a cancellation
on to what is. When a stage ends, the next look finds the next one. A killed host's successor finds
the same rows and begins their stages again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from dataplane.host import paths
from dataplane.host.depot import Depot, DirectoryDepot
from dataplane.host.keeper import Keeper
from dataplane.host.postgres_backup import PgBaseBackup
from dataplane.host.postgres_dump import PgDump
from dataplane.host.postgres_load import PgLoad
from dataplane.host.postgres_restore import PgRestore
from dataplane.host.postgres_ship import PgShipWal
from dataplane.host.postgres_verify import PgVerify
from dataplane.host.redis_export import RdbExport
from dataplane.host.redis_import import RdbImport
from dataplane.host.settings import HostSettings
from dataplane.host.task_rows import Outcome, TaskRow, TaskRows
from dataplane.host.work import (
    Order,
    Progress,
    TaskCancelledError,
    TaskError,
    Work,
    remove_workplace,
)
from engines.kit.tasks import Kind, State, Wish

# Tasks that prepare at once, on one host. Each reads and writes at disk speed, so they are few; who
# loads a large dump must hold up neither the backups of others nor what is due every minute.
LOADS, SAVES, SHIPS = "loads", "saves", "ships"
PLACES = {LOADS: 2, SAVES: 2, SHIPS: 4}
ADVANCE_SECONDS = 0.5

# Every kind of task; a new one is a class in a module of its own and a line here.
WORKS: Mapping[Kind, Callable[[Order], Work]] = {
    Kind.RDB_EXPORT: RdbExport,
    Kind.RDB_IMPORT: RdbImport,
    Kind.PG_BASE_BACKUP: PgBaseBackup,
    Kind.PG_SHIP_WAL: PgShipWal,
    Kind.PG_RESTORE: PgRestore,
    Kind.PG_VERIFY: PgVerify,
    Kind.PG_DUMP: PgDump,
    Kind.PG_LOAD: PgLoad,
}
LANES: Mapping[Kind, str] = {
    Kind.RDB_EXPORT: SAVES,
    Kind.RDB_IMPORT: LOADS,
    Kind.PG_BASE_BACKUP: SAVES,
    Kind.PG_SHIP_WAL: SHIPS,
    Kind.PG_RESTORE: LOADS,
    Kind.PG_VERIFY: LOADS,
    Kind.PG_DUMP: SAVES,
    Kind.PG_LOAD: LOADS,
}
FULL = Outcome("disk_full", "the host has no room for the files")
BROKEN = Outcome("host_failed", "the host failed; its log has the reason")
BEFORE_COMMIT = (State.WAITING, State.RUNNING, State.PREPARED)

log = structlog.get_logger("host")


class Tasks:
    """All tasks of one host."""

    def __init__(self, settings: HostSettings, keeper_of: Callable[[str], Keeper | None]) -> None:
        self._settings = settings
        self._keeper_of = keeper_of
        self._depot: Depot = DirectoryDepot(settings.home)
        self._rows = TaskRows(settings.database_url, settings.host_name, self._on_rows)
        self._places = {lane: asyncio.Semaphore(count) for lane, count in PLACES.items()}
        self._stages: dict[str, asyncio.Task[None]] = {}
        self._at_work: dict[str, str] = {}  # task -> the instance in whose workplace it is
        self._progress: dict[str, Progress] = {}
        self._is_swept = False

    def look(self) -> None:
        """Look at the rows again, for a reason outside of them."""
        self._rows.look()

    async def run(self) -> None:
        """Carry tasks out until cancelled."""
        try:
            await self._rows.run()
        finally:
            for progress in self._progress.values():
                progress.is_cancelled = True  # threads end at their next chunk
            for each in self._stages.values():
                each.cancel()
            await asyncio.gather(*self._stages.values(), return_exceptions=True)

    def _on_rows(self, rows: list[TaskRow]) -> None:
        if not self._is_swept:
            self._is_swept = True
            self._begin("sweep", self._sweep({row.instance_id for row in rows}))
            return  # the end of the sweep looks again
        for row in rows:
            if row.wish is Wish.CANCEL and row.task_id in self._progress:
                self._progress[row.task_id].is_cancelled = True
            if row.task_id in self._stages or "sweep" in self._stages:
                continue
            if (row.state, row.wish) == (State.PREPARED, Wish.PREPARE):
                continue  # nothing to do before the next wish
            has_workplace = row.kind != Kind.PG_SHIP_WAL
            if has_workplace and row.instance_id in self._at_work.values():
                continue  # a task that has ended for everybody else still removes its rests
            keeper = self._keeper_of(row.instance_id)
            if keeper is not None:
                if has_workplace:
                    self._at_work[row.task_id] = row.instance_id
                self._begin(row.task_id, self._stage(row, self._order(row, keeper)))

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"task {name}")
        self._stages[name] = task
        task.add_done_callback(lambda _: self._ended(name))

    def _ended(self, name: str) -> None:
        task = self._stages.pop(name)
        self._progress.pop(name, None)
        self._at_work.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_stage_failed", task_id=name, exc_info=error)
            return  # the periodic look tries again, not at once
        self._rows.look()

    def _order(self, row: TaskRow, keeper: Keeper) -> Order:
        return Order(
            row.task_id, row.instance_id, row.parameters, self._settings, keeper, self._depot
        )

    async def _stage(self, row: TaskRow, order: Order) -> None:
        """Do the next stage of a row, if there is one now."""
        kind = WORKS.get(Kind(row.kind)) if row.kind in list(Kind) else None
        if kind is None:
            unknown = Outcome("unsupported", "this host does not know how to do this")
            await self._rows.move(row.task_id, State.FAILED, BEFORE_COMMIT, unknown)
            return
        work = kind(order)
        outcome = Outcome()
        try:
            if row.state is State.COMMITTING:
                await self._commit(work, row.task_id)
            elif row.wish is Wish.CANCEL:
                raise TaskCancelledError
            elif row.state in (State.WAITING, State.RUNNING):
                places = self._places[LANES[Kind(row.kind)]]
                await self._prepare(work, row.task_id, order.progress, places)
            elif row.wish is Wish.COMMIT and await self._rows.move(
                row.task_id, State.COMMITTING, {State.PREPARED}, wish=Wish.COMMIT
            ):
                await self._commit(work, row.task_id)
            return
        except TaskCancelledError:
            end = State.CANCELLED
        except TaskError as error:
            end, outcome = State.FAILED, Outcome(error.code, error.detail)
        except OSError as error:
            log.exception("task_broke", task_id=row.task_id)
            end, outcome = State.FAILED, FULL if error.errno == errno.ENOSPC else BROKEN
        except Exception:  # our own bug must not leave the task without an end
            log.exception("task_broke", task_id=row.task_id)
            end, outcome = State.FAILED, BROKEN
        log.info("task_ended", task_id=row.task_id, state=end.value, code=outcome.code)
        await self._discard(work, row.task_id)
        await self._rows.move(row.task_id, end, (*BEFORE_COMMIT, State.COMMITTING), outcome)

    async def _prepare(
        self, work: Work, task_id: str, progress: Progress, places: asyncio.Semaphore
    ) -> None:
        self._progress[task_id] = progress
        async with places:
            progress.check()
            if not await self._rows.move(task_id, State.RUNNING, {State.WAITING}):
                return
            telling = asyncio.create_task(self._tell(task_id, progress))
            try:
                result = await work.prepare()
            finally:
                telling.cancel()
        progress.check()
        await self._rows.advance(task_id, progress)
        end = State.PREPARED if work.commits else State.DONE
        log.info("task_prepared", task_id=task_id, state=end.value)
        await self._rows.move(task_id, end, {State.RUNNING}, Outcome(result=result))

    async def _tell(self, task_id: str, progress: Progress) -> None:
        """Write how far a stage is, again and again."""
        while True:
            await asyncio.sleep(ADVANCE_SECONDS)
            await self._rows.advance(task_id, progress)

    async def _commit(self, work: Work, task_id: str) -> None:
        await work.commit()
        # The old data go only after it is known that the new are served.
        await self._rows.move(task_id, State.DONE, {State.COMMITTING})
        log.info("task_committed", task_id=task_id)
        await self._discard(work, task_id)

    async def _discard(self, work: Work, task_id: str) -> None:
        try:
            await work.discard()
        except OSError:
            log.exception("task_rests_stay", task_id=task_id)

    async def _sweep(self, open_instances: set[str]) -> None:
        """Remove what tasks left whose end was written by a host that was then killed."""
        instances = paths.instances_dir(self._settings.home)
        for entry in await asyncio.to_thread(_folders, instances):
            with contextlib.suppress(ValueError, OSError):
                if str(UUID(entry.name)) not in open_instances:
                    await remove_workplace(paths.workplace(entry))


def _folders(parent: Path) -> list[Path]:
    try:
        return [entry for entry in parent.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []
