"""Keeps the supervisor: starts it again when it is killed, ends when it ends by itself.

Small on purpose, so that hardly anything can go wrong in it. As "child subreaper" it also inherits
and reaps whatever loses its parent (an instance server whose host was killed, for one).

    python -m deploy.local.guard
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
PAUSE_SECONDS = (0.1, 10.0)
STABLE_SECONDS = 60.0


class Guard:
    """One supervisor after the other."""

    def __init__(self) -> None:
        self._supervisor = 0
        self._is_ending = False

    def run(self) -> int:
        """Keep a supervisor until it ends by itself or we are told to end."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        pause, pause_max = PAUSE_SECONDS
        while True:
            started = time.monotonic()
            status = self._supervise()
            if os.WIFEXITED(status):
                return os.waitstatus_to_exitcode(status)
            if self._is_ending:
                return 0
            if time.monotonic() - started > STABLE_SECONDS:
                pause = PAUSE_SECONDS[0]
            time.sleep(pause)
            pause = min(pause * 2, pause_max)

    def _supervise(self) -> int:
        """Start a supervisor, reap everything until it has ended, return its status."""
        self._supervisor = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "deploy.local", "supervise"],
            {**os.environ, "WEFTKIT_PROGRAM": "supervisor"},
            setsid=True,
            setsigdef=(signal.SIGPIPE, signal.SIGHUP),
        )
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._supervisor:
                return status

    def _end(self, number: int, _: object) -> None:
        self._is_ending = True
        if self._supervisor:
            os.kill(self._supervisor, number)


if __name__ == "__main__":
    sys.exit(Guard().run())
