"""All keepers together: who is kept, the files that tell of it, start and stop of the whole.

On start the last known records are used at once; the database corrects them when it is there. A
directory that no record explains is stopped and otherwise left alone: data are removed only by a
record that wants them absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from uuid import UUID

import structlog

from dataplane.files import write_atomically
from dataplane.host import metrics, paths, snapshot, template
from dataplane.host.bounds import Cgroups, probe_cgroups
from dataplane.host.feed import Feed, Observation
from dataplane.host.keeper import Keeper, Surroundings
from dataplane.host.postgres import PostgresServer
from dataplane.host.redis import RedisServer
from dataplane.host.schemas import Cell
from dataplane.host.server import Server, Site, safe_fields
from dataplane.host.settings import HostSettings
from dataplane.host.tasks import Tasks
from dataplane.host.wake_socket import WakeSocket
from engines import registry
from engines.kit.contract import Placement
from engines.kit.records import InstanceRecord

FLUSH_SECONDS_MAX = 2.0

# Which server an engine's instance needs; engines placed elsewhere are none of the host's business.
KINDS: dict[Placement, type[PostgresServer] | type[RedisServer]] = {
    Placement.POSTGRES_SERVER: PostgresServer,
    Placement.REDIS_SERVER: RedisServer,
}

log = structlog.get_logger("host")


class Host:
    """The instance host of one machine."""

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        probed = probe_cgroups()
        self._cgroups = probed if isinstance(probed, Cgroups) else None
        if isinstance(probed, str):
            log.info("cgroup_limits_skipped", reason=probed)
        self._snapshot = paths.records_snapshot(settings.home)
        self._changed = asyncio.Event()
        self._records: dict[str, InstanceRecord] = {
            record.instance_id: record for record in snapshot.load(self._snapshot)
        }
        self._saved: dict[str, InstanceRecord] = dict(self._records)
        self._observed: Mapping[str, Observation] = {}
        self._is_ending = False
        self._keepers: dict[str, Keeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._feed = Feed(
            settings.database_url,
            settings.host_name,
            known=self._records,
            on_observed=self._on_observed,
            on_records=self._on_records,
        )
        self._wakes = WakeSocket(paths.wake_socket(settings.run_dir), self._wake)
        self._around = Surroundings(observe=self._feed.observe, on_change=self._changed.set)
        self._work = Tasks(settings, self._keeper_of)
        self._cells = {name: Cell(name, dsn, self._around) for name, dsn in settings.cells.items()}

    async def run(self, ends: asyncio.Event, stops_servers: Callable[[], bool]) -> None:
        """Keep all instances until `ends` is set; then stop their servers, or let them run."""
        await asyncio.to_thread(self._prepare)
        for record in self._records.values():
            self._keep(record.instance_id, record)
        self._fill_cells()
        await self._wakes.start()
        feed = asyncio.create_task(self._feed.run(), name="feed")
        files = asyncio.create_task(self._write_files(), name="files")
        work = asyncio.create_task(self._work.run(), name="tasks")
        templates = asyncio.create_task(asyncio.to_thread(self._build_templates))
        cells = [
            asyncio.create_task(cell.run(), name=f"cell {name}")
            for name, cell in self._cells.items()
        ]
        end = asyncio.create_task(ends.wait())
        lasting = (feed, files, work, *cells)
        try:
            await asyncio.wait((*lasting, end), return_when=asyncio.FIRST_COMPLETED)
            for task in lasting:
                if task.done():
                    task.result()  # raises what ended it: a bug; the supervisor starts us again
            # Before the servers: what is cut off here, the next host begins again.
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._finish(stops=stops_servers())
        finally:
            for each in (*lasting, templates, end):
                each.cancel()
            await asyncio.gather(*lasting, templates, end, return_exceptions=True)
            self._wakes.close()
            paths.host_state(self._settings.run_dir).unlink(missing_ok=True)
            paths.host_metrics(self._settings.run_dir).unlink(missing_ok=True)

    async def _wake(self, instance_id: str) -> bool:
        keeper = self._keepers.get(instance_id)
        return keeper is not None and not self._is_ending and await keeper.wake()

    async def _finish(self, *, stops: bool) -> None:
        """End all keepers side by side."""
        self._is_ending = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.gather(*(each.finish(stops=stops) for each in self._keepers.values()))
        await self._feed.flush(FLUSH_SECONDS_MAX)

    def _prepare(self) -> None:
        """Make the directories, and remove what an interrupted removal left."""
        instances = paths.instances_dir(self._settings.home)
        instances.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._settings.run_dir / "i").mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in instances.iterdir():
            if entry.name.startswith(".trash-"):
                shutil.rmtree(entry, ignore_errors=True)

    def _build_templates(self) -> None:
        """Build the template before the first instance asks for it."""
        templates = paths.templates_dir(self._settings.home)
        try:
            template.instance_cluster(self._settings.postgres_bin, templates)
            template.extension_directory(self._settings.postgres_bin, templates)
        except (template.TemplateError, OSError):
            log.exception("template_failed")

    def _on_observed(self, observed: Mapping[str, Observation]) -> None:
        """Take what the database knew before us; called before the records."""
        self._observed = observed
        for instance_id, known in observed.items():
            if instance_id in self._keepers:
                self._keepers[instance_id].learn(known)

    def _on_records(self, records: Mapping[str, InstanceRecord]) -> None:
        """Take the newest records of this host, all of them."""
        if self._is_ending:
            return
        is_first = not self._around.may_change_data
        self._around.may_change_data = True
        self._records = dict(records)
        for instance_id, record in records.items():
            self._keep(instance_id, record)
        for instance_id in self._keepers.keys() - records.keys():
            self._let_go(instance_id)
        self._fill_cells()
        if is_first:
            self._keep_unexplained()
            for keeper in self._keepers.values():
                keeper.look()
        self._work.look()
        self._changed.set()

    def _fill_cells(self) -> None:
        """Hand each cell the records of its instances."""
        by_cell: dict[str, dict[str, InstanceRecord]] = {name: {} for name in self._cells}
        for instance_id, record in self._records.items():
            if not record.cell:
                continue
            if record.cell in by_cell:
                by_cell[record.cell][instance_id] = record
            else:
                log.error("unknown_cell", cell=record.cell, **safe_fields(record))
                detail = "the cell of the instance is unknown on its host"
                self._around.observe(Observation(instance_id, record.generation, "failed", detail))
        for name, cell in self._cells.items():
            cell.want(by_cell[name], self._observed)

    def _keeper_of(self, instance_id: str) -> Keeper | None:
        """Return who keeps an instance, once the database has said which there are."""
        return self._keepers.get(instance_id) if self._around.may_change_data else None

    def _let_go(self, instance_id: str) -> None:
        """Keep an instance that has lost its record: stopped; or not at all if it was removed."""
        if self._keepers[instance_id].state == "absent":
            self._tasks.pop(instance_id).cancel()
            del self._keepers[instance_id]
        else:
            self._keepers[instance_id].want(None)

    def _keep_unexplained(self) -> None:
        """Have the servers stopped whose instance no record names."""
        for entry in paths.instances_dir(self._settings.home).iterdir():
            with contextlib.suppress(ValueError):
                instance_id = str(UUID(entry.name))
                if instance_id not in self._keepers:
                    log.warning("instance_without_record", instance_id=instance_id)
                    self._keep(instance_id, None)

    def _keep(self, instance_id: str, record: InstanceRecord | None) -> None:
        keeper = self._keepers.get(instance_id)
        if keeper is None:
            server = self._server(instance_id, record)
            if server is None:
                return
            keeper = Keeper(instance_id, server, self._around)
            self._keepers[instance_id] = keeper
            if instance_id in self._observed:
                keeper.learn(self._observed[instance_id])
            keeper.want(record)
            task = asyncio.create_task(keeper.run(), name=f"keeper {instance_id}")
            task.add_done_callback(_on_keeper_end)
            self._tasks[instance_id] = task
        keeper.want(record)

    def _server(self, instance_id: str, record: InstanceRecord | None) -> Server | None:
        site = Site.of(self._settings, instance_id, self._cgroups)
        if record is None:
            kind = PostgresServer if (site.data / "PG_VERSION").exists() else RedisServer
            return kind(self._settings, site)
        try:
            placement = registry.load(record.engine).placement
        except registry.UnknownEngineError:
            log.warning("unknown_engine", instance_id=instance_id, engine=record.engine)
            return None
        found = KINDS.get(placement)
        return found(self._settings, site) if found else None

    async def _write_files(self) -> None:
        """Write the snapshot and the state file after changes; bursts become one write."""
        while True:
            self._changed.clear()
            await asyncio.to_thread(self._write_state)
            if self._records != self._saved:
                saved = dict(self._records)
                await asyncio.to_thread(snapshot.save, self._snapshot, saved.values())
                self._saved = saved
            await self._changed.wait()
            await asyncio.sleep(0.02)

    def _write_state(self) -> None:
        # In a thread: the copy is one step, so no keeper can come or go in its middle.
        keepers = [each for each in list(self._keepers.values()) if each.record is not None]
        states = [(each.record.engine, each.state) for each in keepers if each.record]
        for cell in self._cells.values():
            states += [(record.engine, state) for record, state in cell.states]
        body = {
            "pid": os.getpid(),
            "host": self._settings.host_name,
            "control_database": self._feed.is_connected,
            "records": len(self._records),
            "is_settled": all(each.is_settled for each in keepers)
            and all(cell.is_settled for cell in self._cells.values()),
            "states": Counter(state or "new" for _, state in states),
        }
        write_atomically(paths.host_state(self._settings.run_dir), json.dumps(body).encode())
        metrics.write(
            paths.host_metrics(self._settings.run_dir),
            [(engine, state) for engine, state in states if state],
        )


def _on_keeper_end(task: asyncio.Task[None]) -> None:
    """A keeper never ends by itself: an exception here is our bug, and must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("keeper_failed", task=task.get_name(), exc_info=error)
