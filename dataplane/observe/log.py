"""Structured logs: one JSON object a line on stderr, written by a thread of its own.

A logger is bound to a connection once (`bind`) and handed on; nothing is kept in globals or context
variables, so a line never carries another connection's tenant. Callers never wait for stderr: the
queue is bounded, and what does not fit is counted and reported by the next line that does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

import structlog
from structlog.typing import FilteringBoundLogger

LINES_MAX = 4096
BATCH_SECONDS = 0.02
_STDERR = 2
# weftkit.toml knows "trace"; Python's logging does not.
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

Log = FilteringBoundLogger
# Where `ConnectionLog.event` writes finished lines; None: it goes the long way, or says nothing.
_write_line: Callable[[str], None] | None = None
_encode = json.JSONEncoder().encode
_encode_text = json.encoder.encode_basestring_ascii


class LineWriter:
    """Takes lines without ever blocking; a daemon thread writes them to a file descriptor."""

    def __init__(self, descriptor: int = _STDERR) -> None:
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._has_lines = threading.Event()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def msg(self, line: str) -> None:
        """Queue one line."""
        if len(self._lines) >= LINES_MAX:
            self._dropped += 1
            return
        if self._dropped:
            lost = f'{{"level":"warning","event":"log_lines_lost","count":{self._dropped}}}'
            self._lines.append(lost)
            self._dropped = 0
        self._lines.append(line)
        # Waking the thread costs the loop more than the line does: once a batch is enough.
        if not self._has_lines.is_set():
            self._has_lines.set()

    log = debug = info = warn = warning = error = critical = exception = msg

    def close(self) -> None:
        """Write what is queued, for at most a second."""
        self._is_closing.set()
        self._has_lines.set()
        self._thread.join(1)

    def _run(self) -> None:
        while not self._is_closing.is_set():
            self._has_lines.wait()
            self._is_closing.wait(BATCH_SECONDS)
            self._has_lines.clear()
            batch = [self._lines.popleft() for _ in range(len(self._lines))]
            self._write("".join(f"{line}\n" for line in batch).encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        # A reader that went away must not end the process that logs.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]


class ConnectionLog:
    """The log of one connection. `bind` adds to what all its later lines carry.

    `event` writes what every connection says, for a third of what a line of structlog costs.
    """

    __slots__ = ("_head", "_logger", "_values")

    def __init__(self, **values: object) -> None:
        self._values = values
        self._logger: Log | None = None
        # What all lines begin with, once one was written.
        self._head = ""

    def bind(self, **values: object) -> None:
        """Have later lines carry `values` too."""
        self._values.update(values)
        self._logger = None
        self._head = ""

    def event(self, name: str) -> None:
        """Write a line at level info, of texts and numbers only; `name` is a plain word."""
        if _write_line is None:
            self.info(name)
            return
        if not self._head:
            self._head = "{" + "".join(
                f'"{key}": {_encode_text(value) if type(value) is str else _encode(value)}, '
                for key, value in self._values.items()
            )
        second, fraction = divmod(time.time_ns(), 1_000_000_000)
        _write_line(
            f'{self._head}"event": "{name}", "level": "info", '
            f'"timestamp": "{_second(second)}.{fraction // 1000:06d}Z"}}'
        )

    def info(self, event: str, **values: object) -> None:
        """Write a line at level info."""
        self._bound().info(event, **values)

    def error(self, event: str, **values: object) -> None:
        """Write a line at level error."""
        self._bound().error(event, **values)

    def exception(self, event: str, **values: object) -> None:
        """Write a line at level error, with the exception that is being handled."""
        self._bound().exception(event, **values)

    def _bound(self) -> Log:
        if self._logger is None:
            self._logger = structlog.get_logger(**self._values)
        return self._logger


@lru_cache(maxsize=2)
def _second(number: int) -> str:
    """Return the ISO text of a second since 1970, which many lines have in common."""
    return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def configure(level: str, writer: LineWriter | None = None) -> None:
    """Set up structlog for this process: through `writer`, else straight to stderr."""
    global _write_line
    number = _LEVELS.get(level, logging.INFO)
    _write_line = writer.msg if writer is not None and number <= logging.INFO else None
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=(lambda *_: writer) if writer else structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(component: str, **values: object) -> Log:
    """Return a logger whose lines carry `component` and `values`."""
    logger: Log = structlog.get_logger(component=component, **values)
    return logger
