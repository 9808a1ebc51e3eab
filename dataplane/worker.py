"""One worker: `python -m dataplane.worker --number K`, started by the master.

Puts the parts together, on one uvloop, and takes them apart again in the right order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence

import uvloop

from dataplane.backend.instance_server import InstanceServers
from dataplane.backend.pool import CellPools, sessions_of_a_worker
from dataplane.backend.pooled_sessions import PooledSessions
from dataplane.backend.warm_sessions import WarmSessions
from dataplane.config import EXIT_CONFIG, Config, ConfigError, config_from, enabled_engines
from dataplane.host.paths import host_metrics
from dataplane.limits.admission import InstanceState
from dataplane.limits.connections import ConnectionCounts
from dataplane.limits.leases import CommonWindow
from dataplane.observe import log as logs
from dataplane.observe import metrics, tally
from dataplane.observe.audit import AuditTrail
from dataplane.observe.key_seen import KeySeen
from dataplane.observe.meter import Meter
from dataplane.observe.outbox import Outbox
from dataplane.routing.directory import RecordDirectory
from dataplane.routing.follower import Follower
from dataplane.routing.table import RecordTable
from dataplane.server.admin import AdminApp
from dataplane.server.bind import PortTakenError, bind_shared
from dataplane.server.channel import StreamChannel
from dataplane.server.drain import drain
from dataplane.server.forward import TokenBook
from dataplane.server.http import HttpServer
from dataplane.server.listener import Listener
from dataplane.server.ports import Services
from dataplane.server.sessions import Sessions
from dataplane.server.tls import TlsContext
from dataplane.server.web.front import HttpFront
from dataplane.server.web.http_ports import EngineHttpPorts
from dataplane.server.web.rounds import Rounds
from engines.kit.contract import EngineSpec, Transport
from engines.kit.records import InstanceRecord

_PR_SET_PDEATHSIG = 1
# A first start has nothing to serve until the records are read; a wait has to end, though.
FIRST_RECORDS_SECONDS_MAX = 10.0
LAST_DELIVERY_SECONDS_MAX = 5.0
# So many objects more than before make the collector look at the young ones.
GC_OBJECTS = 10_000


class SystemClock:
    """`ports.Clock` of the machine."""

    def now(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


class Worker:
    """All parts of one worker process. `run` returns after a drain."""

    def __init__(self, config: Config, engines: Sequence[EngineSpec], number: int) -> None:
        self._config = config
        self._engines = engines
        self._number = number
        self._placements = {spec.name: spec.placement for spec in engines}
        self._log = logs.get_logger("worker", number=number)
        self._clock = SystemClock()
        self._table = RecordTable()
        self._tls = TlsContext(config.tls) if config.tls else None
        state = config.state_dir
        self._meter = Meter(state / "usage", f"dataplane/{number}", self._clock.now())
        audit, key_seen = AuditTrail(state / "audit", self._clock), KeySeen()
        self._outbox = Outbox(
            config,
            self._clock,
            self._meter,
            audit,
            key_seen,
            before_spooling=self._count,
        )
        self._follower = Follower(config, self._table, writes_snapshot=number == 0)
        self._common = CommonWindow(config.redis_url, self._clock.monotonic)
        self._states: dict[str, InstanceState] = {}
        counts = ConnectionCounts(self._meter)
        self._servers = InstanceServers(config.run_dir)
        self._warm = WarmSessions(
            config.bounds,
            self._dial,
            counts,
            record_of=self._table.get,
            slot_of=lambda record: self._state_of(record).slot,
        )
        self._pools = PooledSessions(
            self._warm,
            self._dial,
            counts,
            workers=config.workers,
            resting_s=config.bounds.warm_idle_s,
            record_of=self._table.get,
            slot_of=lambda record: self._state_of(record).slot,
        )
        self.services = Services(
            config=config,
            number=number,
            clock=self._clock,
            table=self._table,
            directory=self._directory(),
            state_of=self._state_of,
            counts=counts,
            sessions=Sessions(self._clock),
            tokens=TokenBook(config.run_dir, number, config.master_key),
            audit=audit,
            key_seen=key_seen,
            warm=self._warm,
            servers=self._servers,
            pools=self._pools,
            cells=CellPools(
                config.cells,
                size=sessions_of_a_worker(config.bounds.cell_sessions_max, config.workers),
                wait_s=config.bounds.cell_wait_s,
            ),
        )
        self._table.subscribe(self._follow_states)
        self._table.subscribe(self.services.sessions.follow)
        self._table.subscribe(self._warm.follow)
        self._table.subscribe(self._pools.follow)
        self._listeners: list[Listener] = []
        self._http_ports: list[EngineHttpPorts] = []
        self._rounds: list[Rounds] = []
        self._stopping = asyncio.Event()

    def _directory(self) -> RecordDirectory:
        config = self._config
        return RecordDirectory(
            self._table,
            self._clock,
            peppers=config.peppers,
            master_key=config.master_key,
            jwt_secret=config.jwt_secret,
            configured=config.configured,
        )

    @property
    def is_ready(self) -> bool:
        """True while clients are welcome."""
        return (
            bool(self._listeners)
            and self._follower.is_ready.is_set()
            and not self.services.is_draining
        )

    async def run(self) -> None:
        """Serve until SIGTERM, then drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        # Every port first: a taken one is told before anything has started.
        admin = HttpServer(
            AdminApp(lambda: self.is_ready, host_metrics(self._config.run_dir)),
            bind_shared(self._config.bind, self._config.admin_port),
        )
        sockets = [
            (spec, bind_shared(self._config.bind, port), port != self._config.ports[spec.name])
            for spec in self._engines
            if spec.transport is Transport.TCP or spec.serve is not None
            for port in self._ports(spec)
        ]
        await self.services.tokens.start()
        admin.start()
        await self._follower.load_snapshot()
        async with asyncio.TaskGroup() as tasks:
            following = [
                tasks.create_task(self._follower.run()),
                tasks.create_task(self._follower.write_snapshots()),
            ]
            delivering = tasks.create_task(self._outbox.run())
            await self._open(sockets)
            following += [tasks.create_task(rounds.run()) for rounds in self._rounds]
            await self._stopping.wait()
            await drain(self.services, self._listeners)
            for ports in self._http_ports:
                await ports.close(self._config.bounds.linger_s)
            await self.services.cells.close()
            self._pools.shut()
            self._warm.shut()
            for task in following:
                task.cancel()
            self._outbox.stop()
            await delivering
        self.services.tokens.close()
        await self._outbox.close(deliver_within_s=LAST_DELIVERY_SECONDS_MAX)
        await self._common.close()
        tally.flush()
        metrics.WORKERS.set(0)
        await admin.stop()

    async def _open(self, sockets: list[tuple[EngineSpec, socket.socket, bool]]) -> None:
        """Take connections on every engine's port, once there are records to answer from.

        The snapshot may lack what was published a moment ago, and a key that it lacks would be
        refused: it serves when the database does not answer, not before.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_RECORDS_SECONDS_MAX):
                await self._follower.has_asked.wait()
                await self._follower.is_ready.wait()
        # What lives until the end needs no more looks by the collector.
        gc.collect()
        gc.freeze()
        # Hundreds of objects a connection, nearly all of which go without the collector.
        gc.set_threshold(GC_OBJECTS, *gc.get_threshold()[1:])
        for spec, listening, is_pool_port in sockets:
            front = self._front(spec) if spec.serve is not None else None
            listener = Listener(
                spec, listening, self.services, self._tls, is_pool_port=is_pool_port, front=front
            )
            listener.start()
            self._listeners.append(listener)
        metrics.WORKERS.set(1)
        self._log.info("serving", ports=dict(self._config.ports), records=len(self._table))

    def _front(self, spec: EngineSpec) -> HttpFront:
        """Return what serves the HTTP connections of an engine."""
        ports = EngineHttpPorts(self.services, spec.name)
        self._http_ports.append(ports)
        self._table.subscribe(ports.follow)
        if spec.name in self._config.anonymous:
            self._log.warning("anonymous_access", engine=spec.name, tenant="default")
        if spec.look is not None:
            self._rounds.append(Rounds(spec, ports, self._table, self._config, self._number))
        front = HttpFront(spec, ports, self._config.bounds)
        self.services.fronts.append(front)
        return front

    def _count(self) -> None:
        """Have everything written down that is only counted as it passes."""
        self.services.sessions.count_bytes()
        for ports in self._http_ports:
            ports.note_use()

    def _ports(self, spec: EngineSpec) -> list[int]:
        """Return the ports of an engine: its own, and the one where sessions are shared."""
        config = self._config
        pool_port = config.pool_ports.get(spec.name)
        return [config.ports[spec.name], *([pool_port] if pool_port else [])]

    def _reload(self) -> None:
        """SIGHUP: read the certificate again."""
        if self._tls is None:
            return
        try:
            self._tls.reload()
            self._log.info("certificate_reloaded")
        except (OSError, ValueError) as error:
            self._log.error("certificate_not_reloaded", error=str(error))

    async def _dial(self, record: InstanceRecord, within_s: float) -> StreamChannel:
        """Open a connection to the instance's server."""
        placement = self._placements[record.engine]
        return await self._servers.connect(placement, record, within_s=within_s)

    def _state_of(self, record: InstanceRecord) -> InstanceState:
        state = self._states.get(record.instance_id)
        if state is None:
            state = self._states[record.instance_id] = InstanceState(
                record,
                self._meter.slot(record.instance_id, record.engine, self._clock.now()),
                self._common,
                workers=self._config.workers,
                monotonic=self._clock.monotonic,
            )
            state.follow(record, self._table.storage_bytes.get(record.instance_id, 0))
        return state

    def _follow_states(self, old: InstanceRecord | None, new: InstanceRecord | None) -> None:
        known = new or old
        assert known is not None
        state = self._states.get(known.instance_id)
        if state is not None:
            state.follow(new, self._table.storage_bytes.get(known.instance_id, 0))
        if new is None:
            self._states.pop(known.instance_id, None)


def prepare_process() -> None:
    """Die with the master; take signals again; open as many files as allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The master blocks signals that it waits for, and a child inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(config: Config, engines: Sequence[EngineSpec], number: int) -> int:
    """Run one worker in this process; return its exit code."""
    os.umask(0o077)
    writer = logs.LineWriter()
    logs.configure(config.log_level, writer)

    async def serve() -> None:
        await Worker(config, engines, number).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except PortTakenError as error:
        logs.get_logger("worker", number=number).error("port_taken", error=str(error))
        return EXIT_CONFIG
    finally:
        writer.close()
    return 0


def main() -> int:
    """Run the worker whose number is on the command line."""
    parser = argparse.ArgumentParser(prog="python -m dataplane.worker")
    parser.add_argument("--number", type=int, required=True)
    number = parser.parse_args().number
    prepare_process()
    try:
        engines = enabled_engines()
        config = config_from(engines)
    except ConfigError as error:
        print(f"dataplane: {error}", file=sys.stderr)  # noqa: T201 - before logs are set up
        return EXIT_CONFIG
    return run(config, engines, number)


if __name__ == "__main__":
    sys.exit(main())
