"""One task an instance: compares what its record wants with what is true, acts, reports.

Level-triggered: a step looks at the newest record and at the server as it is, does what is missing,
and says when to look again. It is woken by a new record, by the end of the process, and by a client
that wants in (`wake`). Whatever fails is tried again, later each time; only steps of one instance
are in a row, instances do not wait for each other (but for a few places in which to clone and start
at once).

An instance that nobody has used for its plan's time is put to sleep: door closed, looked at once
more, stopped, marked. Until somebody wants it, its keeper does nothing at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from dataplane.host import hibernation, metrics, process
from dataplane.host.feed import Observation
from dataplane.host.hibernation import Activity, Idleness, Mark
from dataplane.host.logfile import rotate
from dataplane.host.server import Server, ServerError, safe_fields
from engines.kit.records import Desired, InstanceRecord

TICK_SECONDS = 5.0  # between two looks at a server that runs: storage, users, log size
MEMORY_SECONDS = 30.0  # reading the proportional size of all its processes costs milliseconds
# For one look: after it the step ends, so that a new record is seen; a recovery may take longer.
READY_SECONDS = 5.0
# Somebody waits for each of these pauses, so the first ones are short: a small server needs 20 ms.
READY_PAUSE_SECONDS = (0.002, 0.1)
READY_PAUSE_GROWTH = 1.15
FAILURES_BEFORE_FAILED = 3
BACK_OFF_SECONDS = (0.25, 30.0)
STABLE_SECONDS = 60.0  # a server that ran so long starts again at once

# With which states a wish is fulfilled, or cannot be fulfilled now.
SETTLED = {
    Desired.RUNNING: ("running", "hibernated", "failed"),
    Desired.STOPPED: ("stopped", "failed"),
    Desired.ABSENT: ("absent", "failed"),
}

log = structlog.get_logger("host")
T = TypeVar("T")


@dataclass(slots=True)
class BackOff:
    """How long to wait before the next attempt; grows with failures, forgets after stable times."""

    failures: int = 0
    not_before: float = 0.0

    def fail(self, now: float) -> None:
        """Count a failure."""
        low, high = BACK_OFF_SECONDS
        pause = 0.0 if self.failures == 0 else min(high, low * 2.0 ** (self.failures - 1))
        self.failures += 1
        self.not_before = now + pause

    def reset(self) -> None:
        """Forget all failures."""
        self.failures = 0
        self.not_before = 0.0

    def remaining(self, now: float) -> float:
        """Return how long to wait still."""
        return max(0.0, self.not_before - now)


@dataclass(slots=True)
class Surroundings:
    """What all keepers of a host share."""

    observe: Callable[[Observation], None]
    on_change: Callable[[], None]
    # False while only the snapshot is known: then no data are made and none removed.
    may_change_data: bool = False
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


class Keeper:
    """Keeps one instance as its record wants it; nobody else touches its server."""

    def __init__(self, instance_id: str, server: Server, around: Surroundings) -> None:
        self.state = ""
        self._instance_id = instance_id
        self._server = server
        self._around = around
        self._record: InstanceRecord | None = None
        self._known: Observation | None = None  # the newest that the database has or will have
        self._wake = asyncio.Event()
        self._held = asyncio.Lock()  # by a step, or by whoever works on the server instead
        self._back_off = BackOff()
        self._is_ready = False
        self._is_open = False  # ready, and the door is open
        self._ready_since = 0.0
        self._idleness = Idleness()
        self._mark = hibernation.read_mark(server.site.instance_dir)
        self._callers: list[asyncio.Future[bool]] = []  # clients that want in wait for these
        self._called_at = 0.0
        self._applied_version = 0
        self._detail = ""
        self._measured_at = self._memory_at = -TICK_SECONDS
        self._look_at = 0.0  # when to look next who uses the server; 0: not decided
        self._storage_bytes = self._memory_bytes = 0

    @property
    def record(self) -> InstanceRecord | None:
        """What is wanted; None where no record speaks of this instance (any more)."""
        return self._record

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do, or nothing more can be done now."""
        if self._record is None:
            return self.state == "stopped"
        return self.state in SETTLED[self._record.desired]

    def want(self, record: InstanceRecord | None) -> None:
        """Take the newest record, and look at once if it differs."""
        if record != self._record:
            old, self._record = self._record, record
            if old is None or record is None or old.generation != record.generation:
                # Somebody asks anew: no reason to make them wait for old failures.
                self._back_off.reset()
            self._wake.set()

    def learn(self, known: Observation) -> None:
        """Take what the database knows of an earlier life of this host."""
        if self._known is None:
            self._known = known
            self._storage_bytes = self._storage_bytes or known.storage_bytes
            self._wake.set()

    def look(self) -> None:
        """Look at once, for a reason outside of the record."""
        self._wake.set()

    async def wake(self) -> bool:
        """Return once clients can connect: True; or once that cannot be said soon: False."""
        if self._record is None or self._record.desired is not Desired.RUNNING:
            return False
        running = self._server.process
        if self._is_open and running is not None and running.is_running:
            return True
        caller: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self._callers:
            self._called_at = time.monotonic()
            self._wake.set()
        self._callers.append(caller)
        try:
            return await caller
        finally:
            if caller in self._callers:
                self._callers.remove(caller)

    async def run(self) -> None:
        """Keep the instance until cancelled."""
        while True:
            self._wake.clear()
            try:
                pause: float | None = self._back_off.remaining(time.monotonic())
                if not pause:
                    async with self._held:
                        pause = await self._step()
            except (ServerError, OSError) as error:
                pause = await self._failed(error)
            except Exception as error:
                # Our own bug; it must not leave the instance without anybody who looks after it.
                log.exception("step_broke", instance_id=self._instance_id)
                pause = await self._failed(error)
            await self._sleep(pause)

    async def hold(self, work: Callable[[Server, InstanceRecord], Awaitable[T]]) -> T:
        """Do `work` while nobody else touches the server, then look at it anew.

        A server that sleeps is woken for it, and who wants in meanwhile waits for the end. Raises
        ServerError where the record does not want the server to run.
        """
        await self.wake()
        async with self._held:
            self._is_open = False
            record = self._record
            if record is None or record.desired is not Desired.RUNNING:
                raise ServerError("the instance is not in service", is_final=True)
            try:
                return await work(self._server, record)
            finally:
                self._is_ready = False
                self._wake.set()

    async def finish(self, *, stops: bool) -> None:
        """End with the host: stop the server, or let it run for the next host to adopt."""
        if not stops:
            if self._server.process is not None:
                self._server.process.release()
            return
        await self._stop()
        if self._record is not None and self.state == "running":
            self._report("stopped", self._record.generation)

    async def _sleep(self, seconds: float | None) -> None:
        running = self._server.process
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._wake.wait())]
        if running is not None and running.is_running:
            waits.append(asyncio.create_task(running.wait()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _step(self) -> float | None:
        """Do what is missing; return when to look again, None: not before somebody calls."""
        record = self._record
        if record is None or record.desired is not Desired.RUNNING:
            self._answer(is_open=False)
            self._remove_mark()
        if record is None:
            await self._stop()
            self._set_state("stopped")
            return TICK_SECONDS
        match record.desired:
            case Desired.RUNNING:
                return await self._keep_running(record)
            case Desired.STOPPED:
                await self._stop()
                self._report("stopped", record.generation)
            case Desired.ABSENT:
                if self._around.may_change_data:
                    await self._remove(record)
        return TICK_SECONDS

    async def _keep_running(self, record: InstanceRecord) -> float | None:
        server = self._server
        if self._mark is not None:
            if self._mark.allows(record) and not self._callers:
                self._storage_bytes = self._mark.storage_bytes
                self._report("hibernated", record.generation)
                return None
            self._remove_mark()
        if server.process is not None and not server.process.is_running:
            self._ended(record)
            if pause := self._back_off.remaining(time.monotonic()):
                return pause
        if server.process is None and not await server.adopt():
            if not server.has_data() and not self._around.may_change_data:
                return TICK_SECONDS
            async with self._around.places:
                await self._start(record)
        if not self._is_ready:
            if not await self._becomes_ready(record):
                return 0.01
            self._is_ready = True
            self._ready_since = time.monotonic()
            self._applied_version = 0
            self._idleness.forget()
            self._look_at = 0.0
        if not self._is_open:
            self._open(record)
        if self._applied_version != record.version:
            self._detail = await server.apply(record)
            self._applied_version = record.version
        return await self._tick(record)

    async def _start(self, record: InstanceRecord) -> None:
        server = self._server
        started = time.monotonic()
        if not server.has_data():
            known = self._known
            if known is not None and known.state != "absent" and known.storage_bytes > 0:
                # A lost disk must not be answered with an empty database.
                raise ServerError("the instance's data are missing on its host", is_final=True)
            self._report("starting", 0)
            await server.provision()
            log.info("provisioned", milliseconds=_milliseconds(started), **safe_fields(record))
        self._is_ready = False
        await server.start(record)

    async def _becomes_ready(self, record: InstanceRecord) -> bool:
        """Wait a while for the server; raises ServerError if it ends instead."""
        started = time.monotonic()
        pause, pause_max = READY_PAUSE_SECONDS
        running = self._server.process
        assert running is not None
        while not self._wake.is_set():
            if await self._server.is_ready():
                log.info(
                    "server_ready",
                    milliseconds=_milliseconds(started),
                    pid=running.pid,
                    **safe_fields(record),
                )
                return True
            if not running.is_running:
                self._server.process = None
                raise ServerError("the server ended while it started")
            if time.monotonic() - started > READY_SECONDS:
                # It may be recovering, which must not be cut short; we only look away.
                self._report("starting", 0, "the server is recovering or loading its data")
                return False
            await asyncio.sleep(pause)
            pause = min(pause * READY_PAUSE_GROWTH, pause_max)
        return False

    def _ended(self, record: InstanceRecord) -> None:
        """Note that the server ended without being told to."""
        self._server.process = None
        self._is_ready = self._is_open = False
        now = time.monotonic()
        if now - self._ready_since > STABLE_SECONDS:
            self._back_off.reset()
        self._back_off.fail(now)
        log.warning(
            "server_ended",
            restarts_in_seconds=round(self._back_off.remaining(now), 2),
            said=self._server.site.last_words(),
            **safe_fields(record),
        )
        self._report("starting", 0, "the server ended and is started again")

    async def _tick(self, record: InstanceRecord) -> float | None:
        """Look after a server that runs: measure, remove leftovers, cut its log."""
        now = time.monotonic()
        if now - self._ready_since > STABLE_SECONDS:
            self._back_off.reset()
        if now - self._measured_at >= TICK_SECONDS:
            self._measured_at = now
            await self._measure(now)
            await asyncio.to_thread(rotate, self._server.site.log)
            if await self._server.tidy(record):
                log.info("restart_for_settings", **safe_fields(record))
                await self._stop()
                return 0.0
        self._report("running", record.generation, self._detail)
        after_s = hibernation.sleeps_after(record)
        if after_s is None:
            return TICK_SECONDS
        return await self._look_for_clients(record, after_s)

    async def _look_for_clients(self, record: InstanceRecord, after_s: float) -> float | None:
        """Look who uses the server, and put it to sleep if that was nobody for so long."""
        now = time.monotonic()
        soon = now + hibernation.pause(after_s, after_s)
        # 0: it has just become ready, and whoever it was started for comes first. Later than this:
        # it has been told to sleep sooner.
        if self._look_at == 0.0 or self._look_at > soon:
            self._look_at = soon
        if now >= self._look_at:
            seen = await self._server.activity()
            self._idleness.note(seen, now)
            remaining = self._idleness.remaining(after_s, now)
            if remaining == 0.0:
                if self._idleness.agrees(seen) and not self._callers:
                    return await self._hibernate(record)
                remaining = hibernation.AGAIN_SECONDS
            self._look_at = now + hibernation.pause(after_s, remaining)
        return min(TICK_SECONDS, self._look_at - now)

    async def _hibernate(self, record: InstanceRecord) -> float | None:
        """Stop the server and mark the instance, unless somebody came at the last moment."""
        self._is_open = False
        self._server.door.close()
        try:
            # Who is not seen now cannot come any more.
            seen: Activity | None = await self._server.activity()
        except BaseException:
            self._open(record)
            raise
        if not self._idleness.agrees(seen) or self._callers or self._record is not record:
            self._open(record)
            self._look_at = time.monotonic() + hibernation.LOOK_SECONDS[0]
            return 0.0
        await self._stop()
        if self._callers or self._record is not record or await self._server.adopt():
            return 0.0
        is_told = hibernation.is_told_to_sleep(record)
        mark = Mark(record.generation, self._storage_bytes, is_told)
        await asyncio.to_thread(hibernation.write_mark, self._server.site.instance_dir, mark)
        self._mark = mark
        self._back_off.reset()
        metrics.HIBERNATIONS.labels(record.engine).inc()
        log.info("hibernated", **safe_fields(record))
        self._report("hibernated", record.generation)
        return 0.0

    def _open(self, record: InstanceRecord) -> None:
        """Let clients in, and tell those who wait."""
        self._server.door.open()
        self._is_open = True
        if self._callers:
            seconds = time.monotonic() - self._called_at
            metrics.WAKE_SECONDS.labels(record.engine).observe(seconds)
            log.info("woken", milliseconds=round(seconds * 1000), **safe_fields(record))
        self._answer(is_open=True)

    def _answer(self, *, is_open: bool) -> None:
        """Tell everybody who waits whether clients can connect now."""
        callers, self._callers = self._callers, []
        for caller in callers:
            if not caller.done():
                caller.set_result(is_open)

    def _remove_mark(self) -> None:
        self._mark = None
        hibernation.remove_mark(self._server.site.instance_dir)

    async def _measure(self, now: float) -> None:
        running = self._server.process
        self._storage_bytes = await asyncio.to_thread(self._server.storage_bytes)
        if running is not None and now - self._memory_at >= MEMORY_SECONDS:
            self._memory_at = now
            self._memory_bytes = await asyncio.to_thread(process.memory_bytes, running.pid)

    async def _stop(self) -> None:
        """Stop the server if there is one, also one that an earlier host started."""
        self._is_open = False
        if self._server.process is None and self._server.has_data():
            await self._server.adopt()
        if self._server.process is not None:
            started = time.monotonic()
            await self._server.stop()
            log.info(
                "server_stopped",
                milliseconds=_milliseconds(started),
                instance_id=self._instance_id,
            )
        self._is_ready = False
        self._memory_bytes = 0

    async def _remove(self, record: InstanceRecord) -> None:
        await self._stop()
        await asyncio.to_thread(self._server.site.remove)
        self._storage_bytes = 0
        self._report("absent", record.generation)

    async def _failed(self, error: Exception) -> float:
        """Note a failed step; return when to try again."""
        self._answer(is_open=False)
        record = self._record
        detail = error.detail if isinstance(error, ServerError) else "the host has a problem"
        is_final = isinstance(error, ServerError) and error.is_final
        now = time.monotonic()
        self._back_off.fail(now)
        fields = safe_fields(record) if record else {"instance_id": self._instance_id}
        log.warning(
            "step_failed",
            error=str(error),
            cause=repr(error.__cause__ or error),
            failures=self._back_off.failures,
            said=await asyncio.to_thread(self._server.site.last_words),
            **fields,
        )
        if record is not None:
            if is_final or self._back_off.failures >= FAILURES_BEFORE_FAILED:
                self._report("failed", record.generation, detail)
            else:
                self._report("starting", 0, detail)
        return BACK_OFF_SECONDS[1] if is_final else self._back_off.remaining(now)

    def _report(self, state: str, generation: int, detail: str = "") -> None:
        """Say what is true now. `starting` reaches no generation: it leaves the known one."""
        known = self._known
        observation = Observation(
            self._instance_id,
            max(generation, known.generation if known else 0),
            state,
            detail,
            self._storage_bytes,
            self._memory_bytes,
        )
        if observation != known:
            self._known = observation
            self._around.observe(observation)
        self._set_state(state)

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._around.on_change()


def _milliseconds(since: float) -> int:
    return round((time.monotonic() - since) * 1000)
