"""The worker seen from outside: memory and descriptors from /proc, gauges from the admin port."""

from __future__ import annotations

import os
import re
from pathlib import Path

import httpx

from tests.servers import wait_until
from tests.stack import Stack

MEBIBYTE = 2**20
ADMIN_PORT = 9090
# What the kernel still frees, and what a background task holds for a moment.
SETTLE_SECONDS_MAX = 20.0
# The outbox connects to the control database when it first has something to deliver, and again
# after an error; the common window to its Redis.
BACKGROUND_DESCRIPTORS = 2
_OPEN = re.compile(r"^weftkit_(?:connections|handshakes)_open\{.*\} ([0-9.]+)$", re.M)


class Watch:
    """One worker process, and what it held when the watch began."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        [self.pid] = stack.processes("dataplane.worker")
        self._proc = Path("/proc") / str(self.pid)
        self._metrics_url = f"http://127.0.0.1:{ADMIN_PORT + stack.offset}/metrics"
        wait_until(lambda: self.open_count() == 0, "nobody is connected", SETTLE_SECONDS_MAX)
        # 5: forget the peak (proc_pid_clear_refs(5)).
        (self._proc / "clear_refs").write_text("5")
        self.bytes_before = self._status("VmRSS")
        self.descriptors_before = self.descriptors()

    def _status(self, name: str) -> int:
        text = (self._proc / "status").read_text()
        match = re.search(rf"^{name}:\s+(\d+) kB$", text, re.M)
        assert match is not None
        return int(match[1]) * 1024

    def growth(self) -> int:
        """Return by how many resident bytes the worker has grown by now."""
        return self._status("VmRSS") - self.bytes_before

    def growth_max(self) -> int:
        """Return by how many resident bytes it has grown at the worst moment."""
        return self._status("VmHWM") - self.bytes_before

    def descriptors(self) -> int:
        """Return how many descriptors the worker has open."""
        return len(list((self._proc / "fd").iterdir()))

    def cpu_ticks(self) -> int:
        """Return the processor time that the worker has used."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def open_count(self) -> float:
        """Return how many connections are signed in or about to be, by the worker's own count."""
        text = httpx.get(self._metrics_url, timeout=10).text
        return sum(map(float, _OPEN.findall(text)))

    def assert_same_process(self) -> None:
        """The worker is the one that it was."""
        assert self._stack.processes("dataplane.worker") == [self.pid]
        os.kill(self.pid, 0)

    def assert_all_given_back(self) -> None:
        """Nothing is open any more that was not open before."""
        wait_until(lambda: self.open_count() == 0, "all sessions ended", SETTLE_SECONDS_MAX)
        wait_until(
            lambda: self.descriptors() <= self.descriptors_before + BACKGROUND_DESCRIPTORS,
            f"descriptors are back at {self.descriptors_before}",
            SETTLE_SECONDS_MAX,
        )
        self.assert_same_process()
        self.assert_same_process()
