"""The parent of all workers: starts them, starts them again, passes signals on. Serves nothing.

It waits for signals only, so it can hardly fail; workers die with it (PR_SET_PDEATHSIG) and drain
then, while whoever supervises this process starts the next.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataplane.config import Config
from dataplane.observe.log import get_logger

RESTART_SECONDS_MIN = 0.1
RESTART_SECONDS_MAX = 5.0
# A worker that lived as long as this starts again at once.
SETTLED_SECONDS = 10.0
# What a worker needs beyond its own grace periods before it is killed.
STOP_SECONDS_EXTRA = 10.0
# As dataplane.observe.metrics names it; importing that here would make the master a metric source.
METRICS_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_WAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@dataclass(slots=True)
class _Slot:
    """One worker's number, the process that has it, and when it may start again."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    delay: float = RESTART_SECONDS_MIN


class Master:
    """Runs `config.workers` workers; `command` makes the command line of one."""

    def __init__(self, config: Config, command: Callable[[int], Sequence[str]]) -> None:
        self._config = config
        self._command = command
        self._slots = [_Slot(number) for number in range(config.workers)]
        self._log = get_logger("master")

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
        self._clear_metrics()
        while True:
            received = signal.sigtimedwait(_WAITED, self._start_due())
            if received is None or received.si_signo == signal.SIGCHLD:
                self._reap()
            elif received.si_signo == signal.SIGHUP:
                self._signal(signal.SIGHUP)
            else:
                return self._stop()

    def _clear_metrics(self) -> None:
        directory = self._config.metrics_dir
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)

    def _start_due(self) -> float:
        """Start every worker whose time has come; return the seconds until the next one's."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.process is None and slot.start_at <= now:
                slot.process = subprocess.Popen(
                    self._command(slot.number),
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                )
                slot.started_at = now
        waiting = [slot.start_at - now for slot in self._slots if slot.process is None]
        return max(0.0, min(waiting, default=60.0))

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            METRICS_DIRECTORY_VARIABLE: str(self._config.metrics_dir),
            # --workers may have said otherwise; it is the divisor of limits without Redis.
            "WEFTKIT_WORKERS": str(self._config.workers),
        }

    def _reap(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.process is None or slot.process.poll() is None:
                continue
            lived = now - slot.started_at
            slot.delay = (
                RESTART_SECONDS_MIN
                if lived >= SETTLED_SECONDS
                else min(slot.delay * 2, RESTART_SECONDS_MAX)
            )
            slot.start_at = now + slot.delay
            self._log.error(
                "worker_died", number=slot.number, code=slot.process.returncode, lived_s=lived
            )
            self._forget_gauges(slot.process.pid)
            slot.process = None

    def _forget_gauges(self, pid: int) -> None:
        """What a dead worker had open is not open any more; what it counted stays counted."""
        for path in Path(self._config.metrics_dir).glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.send_signal(number)

    def _stop(self) -> int:
        """Let the workers drain, and wait for them."""
        bounds = self._config.bounds
        deadline = time.monotonic() + (
            bounds.handshake_timeout_s + bounds.drain_grace_s + bounds.linger_s + STOP_SECONDS_EXTRA
        )
        self._signal(signal.SIGTERM)
        for slot in self._slots:
            if slot.process is None:
                continue
            try:
                slot.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log.error("worker_killed", number=slot.number)
                slot.process.kill()
                slot.process.wait()
        return 0
