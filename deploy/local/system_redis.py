"""The control plane's own Redis: Celery's broker, channels, and the data plane's shared limits.

On a unix socket in a directory of mode 0700, so it asks for no password. What is queued survives a
restart (append-only file); what is counted may be lost for a second.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from dataplane.files import write_atomically
from dataplane.host.process import clear_directory
from deploy.local.home import Home

STOP_SECONDS_MAX = 10.0
ANSWER_SECONDS_MAX = 1.0

SETTINGS = (
    ("port", "0"),
    ("unixsocketperm", "700"),
    ("daemonize", "no"),
    ("databases", "16"),
    ("save", '""'),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("auto-aof-rewrite-min-size", "16mb"),
    # A broker must refuse rather than forget.
    ("maxmemory", "256mb"),
    ("maxmemory-policy", "noeviction"),
    ("always-show-logo", "no"),
    ("loglevel", "notice"),
    ("logfile", '""'),
)


def make_configuration(home: Home) -> Path:
    """Write redis.conf and make the working directory; return the file."""
    data = working_dir(home)
    data.mkdir(mode=0o700, exist_ok=True)
    lines = [
        f'dir "{data}"',
        f'unixsocket "{home.redis_socket}"',
        *(f"{name} {value}" for name, value in SETTINGS),
    ]
    path = configuration(home)
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path


def configuration(home: Home) -> Path:
    """Return the configuration file."""
    return home.state / "redis.conf"


def working_dir(home: Home) -> Path:
    """Return the server's working directory."""
    return home.root / "redis"


async def prepare(home: Home) -> None:
    """Make sure that no other server works in the directory; called right before each start."""
    await clear_directory(working_dir(home), number=signal.SIGTERM, seconds_max=STOP_SECONDS_MAX)


async def is_ready(home: Home) -> bool:
    """Say whether the server answers; while it loads its file it does not."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reading, writing = await asyncio.open_unix_connection(str(home.redis_socket))
            try:
                writing.write(b"PING\r\n")
                return await reading.readline() == b"+PONG\r\n"
            finally:
                writing.close()
    except OSError:
        return False
