"""Starts every program in order, watches it, starts it again when it ends, stops all in order.

One task a program. It adopts what an earlier supervisor left running, if that was started in the
same way, and stops it otherwise; so a supervisor that was killed costs nobody a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from dataplane.files import write_atomically
from dataplane.host.logfile import last_lines, rotate
from dataplane.host.process import ServerProcess, spawn
from deploy.local import certificates, ports, status, system_postgres, system_redis
from deploy.local.home import Home
from deploy.local.programs import Program, programs
from deploy.local.running import Found, marks, processes_of, stop_all
from engines import registry

READY_POLL_SECONDS = (0.01, 0.1)
BACK_OFF_SECONDS = (0.2, 15.0)
STABLE_SECONDS = 30.0
ONCE_ATTEMPTS_MAX = 3
CHILDREN_SECONDS_MAX = 2.0
ROTATE_SECONDS = 20.0
STOP_STAGES = (0, 1, 2)
GOOD_STATES = ("ready", "done")

# Instances of the bootstrap get their names spelt out in our certificate.
BOOTSTRAP_TENANTS = ("demo", "other", "default")


class StartError(Exception):
    """The start cannot succeed by trying again; the message says why."""


@dataclass(slots=True)
class Slot:
    """One program while it is kept."""

    program: Program
    arguments: list[str | Path]
    environment: dict[str, str]
    log: Path
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    process: ServerProcess | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Everything of one home."""

    def __init__(
        self,
        home: Home,
        say: Callable[[str], None],
        on_ready: Callable[[Home], None] | None = None,
    ) -> None:
        self._home = home
        self._say = say
        self._on_ready = on_ready
        self._started = time.monotonic()
        self._status = status.Status(pid=os.getpid())
        self._slots: dict[str, Slot] = {}
        self._ends = asyncio.Event()
        self._error = ""
        self._was_ready = False  # once everything has been; from then on the programs tell

    def end(self) -> None:
        """Begin to stop."""
        self._ends.set()

    async def run(self) -> str:
        """Start, keep, and stop everything; return why the start failed, or ""."""
        try:
            await self._prepare()
            for slot in self._slots.values():
                slot.task = asyncio.create_task(self._keep(slot), name=slot.program.name)
                slot.task.add_done_callback(self._on_task_end)
            ready = asyncio.create_task(self._announce())
            rotating = asyncio.create_task(self._rotate())
            await self._ends.wait()
            for task in (ready, rotating):
                task.cancel()
        except (StartError, OSError) as error:
            self._fail(str(error))
        finally:
            await self._stop()
        return self._error

    async def _prepare(self) -> None:
        """Do what every start needs and what needs no process."""
        home = self._home
        found = await asyncio.to_thread(processes_of, home.root)
        self._require_ports({each.program for each in found if each.is_leader})
        if home.has_tls and home.certificate_files[0].parent == home.tls:
            handles = [f"{t}-{e}" for t in BOOTSTRAP_TENANTS for e in registry.names()]
            make = certificates.make_certificates
            await self._step(
                "certificates", asyncio.to_thread(make, home.tls, home.public_host, handles)
            )
        system_redis.make_configuration(home)
        await self._step("database cluster", asyncio.to_thread(system_postgres.make_cluster, home))
        shared = home.environment()
        for program in programs(home):
            own = marks(home.root, program.name, program.arguments, shared)
            self._slots[program.name] = Slot(
                program, list(program.arguments), {**shared, **own},
                home.logs / f"{program.name}.log",
            )  # fmt: skip
            self._status.programs[program.name] = status.ProgramStatus()
        self._save()

    def _require_ports(self, running: set[str]) -> None:
        """Check the ports of what does not run already. Raises StartError."""
        wanted: dict[int, str] = {}
        if "dataplane" not in running:
            wanted |= ports.dataplane_ports(self._home)
        if "web" not in running:
            wanted |= ports.console_ports(self._home)
        try:
            ports.require_free(self._home.bind, wanted, self._home.port_offset)
        except ports.PortsError as error:
            raise StartError(str(error)) from error

    async def _keep(self, slot: Slot) -> None:
        """Keep one program running, or run it once."""
        program = slot.program
        for name in program.after:
            await self._slots[name].ready.wait()
        if program.once:
            await self._run_once(slot)
            return
        pause = 0.0
        while True:
            began = time.monotonic()
            try:
                await self._launch(slot)
                await self._until_ready_or_ended(slot)
                assert slot.process is not None
                await slot.process.wait()
            except OSError as error:
                # Once all ran, a full disk or process table is no reason to end the others.
                if not self._was_ready:
                    raise
                self._say(f"{program.name}: {error}")
            slot.ready.clear()
            if time.monotonic() - began > STABLE_SECONDS:
                pause = 0.0
            self._note(slot, "back-off", f"ended; starts again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(max(pause * 2, BACK_OFF_SECONDS[0]), BACK_OFF_SECONDS[1])

    async def _run_once(self, slot: Slot) -> None:
        """Run a program to its good end, unless nothing changed since the last one."""
        done = self._home.state / f"{slot.program.name}.done"
        if done.exists() and done.read_text() == slot.program.fingerprint:
            self._note(slot, "done")
            slot.ready.set()
            return
        for attempt in range(1, ONCE_ATTEMPTS_MAX + 1):
            await self._launch(slot)
            assert slot.process is not None
            await slot.process.wait()
            if slot.process.exit_code == 0:
                # Taken anew: the program may have written what the fingerprint looks at.
                fresh = {each.name: each.fingerprint for each in programs(self._home)}
                write_atomically(done, fresh[slot.program.name].encode())
                self._note(slot, "done", "done")
                slot.ready.set()
                return
            self._note(slot, "back-off", f"failed, attempt {attempt}")
            await asyncio.sleep(BACK_OFF_SECONDS[0] * attempt)
        self._note(slot, "failed")
        raise StartError(f"{slot.program.name} failed: {last_lines(slot.log)}")

    async def _launch(self, slot: Slot) -> None:
        """Adopt the program's process or start it."""
        program = slot.program
        found = await asyncio.to_thread(self._processes, program.name)
        leader = next((each for each in found if each.is_leader), None)
        state = self._status.programs[program.name]
        # Redis hides what it was started with; its settings are in a file that it reads at start.
        if leader is not None and leader.start in ("", slot.environment["WEFTKIT_START"]):
            with contextlib.suppress(ProcessLookupError):
                slot.process = ServerProcess(leader.pid)
                state.pid = leader.pid
                self._note(slot, "starting", f"runs already (pid {leader.pid})")
                return
        if found and (leader is not None or program.clears_children):
            number = program.stop_signal if leader is not None else signal.SIGTERM
            signals = dict.fromkeys((each.pid for each in found), number)
            await asyncio.to_thread(stop_all, signals, CHILDREN_SECONDS_MAX)
        if program.prepare is not None:
            await program.prepare(self._home)
        slot.process = spawn(slot.arguments, environment=slot.environment, log=slot.log)
        state.pid = slot.process.pid
        state.starts += 1
        self._note(slot, "starting")

    async def _until_ready_or_ended(self, slot: Slot) -> None:
        probe = slot.program.is_ready
        pause, pause_max = READY_POLL_SECONDS
        assert slot.process is not None
        while probe is not None and slot.process.is_running and not await probe(self._home):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, pause_max)
        if slot.process.is_running:
            slot.ready.set()
            self._note(slot, "ready", "ready")

    async def _announce(self) -> None:
        """Say once that everything is ready."""
        for slot in self._slots.values():
            await slot.ready.wait()
        self._was_ready = True
        self._step_done("everything is ready")
        if self._on_ready is not None:
            self._on_ready(self._home)

    async def _rotate(self) -> None:
        while True:
            for log in self._home.logs.glob("*.log"):
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(rotate, log)
            await asyncio.sleep(ROTATE_SECONDS)

    async def _stop(self) -> None:
        """Stop stage by stage: those who ask first, those who answer last."""
        self._was_ready = False
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stage in STOP_STAGES:
            staged = [each for each in self._slots.values() if each.program.stop_stage == stage]
            await asyncio.gather(*(self._stop_one(each) for each in staged))
        left = await asyncio.to_thread(self._children_left)
        if left:
            await asyncio.to_thread(
                stop_all, dict.fromkeys(left, signal.SIGTERM), CHILDREN_SECONDS_MAX
            )
        self._step_done("everything is stopped")

    async def _stop_one(self, slot: Slot) -> None:
        process = slot.process or await asyncio.to_thread(self._left_over, slot)
        if process is not None and process.is_running:
            process.send(slot.program.stop_signal)
            if not await process.wait_for(slot.program.stop_seconds):
                self._step_done(f"{slot.program.name}: does not stop, killed")
                process.send(signal.SIGKILL)
                await process.wait_for(slot.program.stop_seconds)
        self._note(slot, "stopped")

    def _processes(self, program: str) -> list[Found]:
        return [each for each in processes_of(self._home.root) if each.program == program]

    def _left_over(self, slot: Slot) -> ServerProcess | None:
        """Take hold of a program that we did not come to start or adopt."""
        for each in self._processes(slot.program.name):
            if each.is_leader:
                with contextlib.suppress(ProcessLookupError):
                    return ServerProcess(each.pid)
        return None

    def _children_left(self) -> list[int]:
        return [each.pid for each in processes_of(self._home.root) if each.program in self._slots]

    async def _step(self, text: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            raise StartError(f"{text}: {error}") from error
        self._step_done(text)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        """End everything if a keeper failed: it does so only when going on is useless."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(str(error) or repr(error))

    def _fail(self, error: str) -> None:
        self._error = self._error or error
        self._status.error = self._error
        self._step_done(f"failed: {error}")
        self._ends.set()

    def _note(self, slot: Slot, state: str, text: str = "") -> None:
        self._status.programs[slot.program.name].state = state
        if text:
            self._step_done(f"{slot.program.name}: {text}")
        else:
            self._save()

    def _step_done(self, text: str) -> None:
        seconds = time.monotonic() - self._started
        self._status.steps.append((round(seconds, 2), text))
        self._say(f"{seconds:7.2f} s  {text}")
        self._save()

    def _save(self) -> None:
        states = [program.state for program in self._status.programs.values()]
        self._status.is_ready = self._was_ready and all(each in GOOD_STATES for each in states)
        with contextlib.suppress(OSError):
            self._status.save(self._home)
