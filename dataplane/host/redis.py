"""A Redis (or Valkey) server of one instance: configure, start, adopt, stop.

The append-only file is the only persistence (written each second, as Redis' default has it). The
user `default` is off; `weftkit` signs in with the service secret and has all rights; the data plane
makes one ACL user a credential at its first sign-in, and the host removes those that no record
names any more, which also ends their connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import time
from pathlib import Path

from dataplane.files import write_atomically
from dataplane.host import paths
from dataplane.host.binaries import server_version
from dataplane.host.bounds import MEBIBYTE, Bounds
from dataplane.host.clone import sync_file_system
from dataplane.host.door import Door
from dataplane.host.hibernation import Activity
from dataplane.host.process import ServerProcess, adopt, clear_directory
from dataplane.host.redis_control import SERVICE_USER, RedisReplyError, Reply, exchange
from dataplane.host.server import ServerError, Site, directory_bytes
from dataplane.host.settings import HostSettings
from engines.kit.auth import service_secret
from engines.kit.records import InstanceRecord, Limits

PROGRAMS = ("redis-server", "valkey-server")
# A script may run so long where the plan names no statement timeout.
SCRIPT_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 30.0  # SIGTERM writes the rest of the append-only file
KILL_SECONDS_MAX = 10.0
CLIENTS_RESERVED = 32  # for the host and for sign-ins that overlap with sign-outs
# What INFO says is under way on the server's own account; a stop would throw it away.
WORKING = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
OUR_USERS = frozenset({SERVICE_USER, "default"})

# What a tenant may see of where its server lives.
SHOWN_PROGRAM = "/redis-server"
SOCKET_LINK = "socket"

# weftkit.toml's words -> Redis' words.
EVICTION_POLICIES = {"noeviction": "noeviction", "lru": "allkeys-lru", "lfu": "allkeys-lfu"}

FIXED = (
    ("port", "0"),
    ("unixsocketperm", "700"),
    ("pidfile", "redis.pid"),
    ("daemonize", "no"),
    ("databases", "16"),
    ("save", '""'),
    ("appendonly", "yes"),
    # 6.2 and 7 both read a file whose last write was cut off by a crash.
    ("aof-load-truncated", "yes"),
    ("auto-aof-rewrite-min-size", "16mb"),
    ("loglevel", "notice"),
    ("logfile", '""'),  # standard output, which is the instance's log
    ("always-show-logo", "no"),
    ("tcp-keepalive", "0"),
    ("timeout", "0"),
)


class RedisServer:
    """The `Server` of an instance of an in-memory engine."""

    def __init__(self, settings: HostSettings, site: Site) -> None:
        self._settings = settings
        self._site = site
        self._secret = service_secret(settings.master_key, site.instance_id)
        self._door = Door(paths.redis_socket(settings.run_dir, site.instance_id))
        self._exchanges = 0  # our own connections to the server since it started, or was adopted
        self._named: frozenset[str] = frozenset()  # user names of the last applied record
        self._suspects: frozenset[str] = frozenset()  # users that no record explained last time
        self._busy_since: float | None = None  # since when a script lets nobody else in
        self.process: ServerProcess | None = None

    @property
    def site(self) -> Site:
        """Where it lives."""
        return self._site

    @property
    def door(self) -> Door:
        """Its socket's name."""
        return self._door

    def has_data(self) -> bool:
        """Say whether the working directory is there."""
        return self._site.data.is_dir()

    async def provision(self) -> None:
        """Make the empty working directory."""
        try:
            self._site.make_directories()
            self._site.data.mkdir(mode=0o700)
            await asyncio.to_thread(sync_file_system, self._site.instance_dir)
        except OSError as error:
            raise ServerError("the data directory cannot be made") from error

    async def adopt(self) -> bool:
        """Take hold of a server that runs in our working directory."""
        try:
            pid = int((self._site.data / "redis.pid").read_text())
        except (OSError, ValueError):
            return False
        self.process = adopt(
            pid, programs=(*PROGRAMS, self._settings.redis_server.name), directory=self._site.data
        )
        if self.process is None:
            return False
        try:
            await self._say(("PING",))
        except RedisReplyError as error:
            if error.code == "WRONGPASS":
                # It was started under another master key: nobody could sign in.
                await self.stop()
                return False
        except OSError:
            pass  # it runs but does not answer yet; `is_ready` will tell
        return True

    async def start(self, record: InstanceRecord) -> None:
        """Start the server. Raises ServerError."""
        program = self._settings.redis_server
        self._check_version(server_version(program))
        try:
            self._site.make_directories()
            path = self._site.instance_dir / "redis.conf"
            # Two servers on one append-only file would ruin it.
            await clear_directory(
                self._site.data, number=signal.SIGTERM, seconds_max=STOP_SECONDS_MAX
            )
            await asyncio.to_thread(_write_if_changed, path, self._render(record.limits).encode())
            self._door.clear()
            self._link_socket_directory()
            # INFO shows the paths of program and configuration: so it gets a name and no file.
            self.process = self._site.launch(
                [program, "-"], _bounds(record.limits), name=SHOWN_PROGRAM, standard_input=path
            )
        except OSError as error:
            raise ServerError("the server cannot be started") from error
        self._named = self._suspects = frozenset()
        self._exchanges = 0

    async def is_ready(self) -> bool:
        """Say whether the server answers; while it loads its file it does not."""
        try:
            await self._say(("PING",))
        except (OSError, RedisReplyError):
            return False
        return True

    async def apply(self, record: InstanceRecord) -> str:
        """Set memory, policy and connections live, and drop users whose credential is gone."""
        named = _usernames(record)
        settings = _changeable(record.limits).items()
        try:
            await self._say(
                *(("CONFIG", "SET", name, value) for name, value in settings),
                *(("ACL", "DELUSER", name) for name in sorted(self._named - named - OUR_USERS)),
            )
        except (OSError, RedisReplyError) as error:
            raise ServerError("the server does not take its settings") from error
        self._named = named
        return ""

    async def tidy(self, record: InstanceRecord) -> bool:
        """Drop users that no record explained at two looks in a row.

        Once is not enough: the data plane may know a newer record than we do.
        """
        try:
            (users,) = await self._say(("ACL", "USERS"))
            self._busy_since = None
            assert isinstance(users, list)
            unexplained = frozenset(map(str, users)) - _usernames(record) - OUR_USERS
            doomed = sorted(unexplained & self._suspects)
            if doomed:
                await self._say(("ACL", "DELUSER", *doomed))
            self._suspects = unexplained.difference(doomed)
        except RedisReplyError as error:
            if error.code == "BUSY":
                await self._end_script(record.limits)
        except OSError:
            pass  # it does not answer now; the next look comes soon
        return False

    async def _end_script(self, limits: Limits) -> None:
        """Stop a script that keeps everybody out, once it had its time.

        Nobody can sign in meanwhile, its owner neither. A script that has written cannot be
        stopped; the server is then killed, and starts from its append-only file, which holds
        nothing of an unfinished script.
        """
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        if now - self._busy_since < (limits.statement_timeout_ms / 1000 or SCRIPT_SECONDS_MAX):
            return
        self._busy_since = None
        for command in (("SCRIPT", "KILL"), ("FUNCTION", "KILL")):
            try:
                await self._say(command)
            except RedisReplyError as error:
                if error.code == "UNKILLABLE" and self.process is not None:
                    self.process.send(signal.SIGKILL)
                    return
            except OSError:
                return

    async def activity(self) -> Activity | None:
        """Look who uses the server; it takes connections in their order, so ours is the last."""
        try:
            (said,) = await self._say(("INFO",))
        except (OSError, RedisReplyError):
            return None
        pairs = (line.partition(":") for line in str(said).splitlines())
        info = {name: value for name, _, value in pairs}
        try:
            return Activity(
                clients=int(info["connected_clients"]) - 1 + int(info["connected_slaves"]),
                sessions=int(info["total_connections_received"]) - self._exchanges,
                is_working=any(info[name] != "0" for name in WORKING),
            )
        except (KeyError, ValueError):
            return None

    async def stop(self) -> None:
        """Stop the server; it writes and syncs the rest of the append-only file first."""
        self._door.close()
        process = self.process
        if process is None:
            return
        process.send(signal.SIGTERM)
        if not await process.wait_for(STOP_SECONDS_MAX):
            process.send(signal.SIGKILL)
            await process.wait_for(KILL_SECONDS_MAX)
        self.process = None

    def storage_bytes(self) -> int:
        """Measure the append-only file."""
        return directory_bytes(self._site.data)

    async def _say(self, *commands: tuple[str, ...]) -> list[Reply]:
        self._exchanges += 1
        try:
            return await exchange(self._door.path, self._secret, commands)
        except (ConnectionRefusedError, FileNotFoundError):
            self._exchanges -= 1
            raise

    def _render(self, limits: Limits) -> str:
        digest = hashlib.sha256(self._secret.encode()).hexdigest()
        lines = [
            "# Written by the instance host; changes are lost.",
            f'dir "{self._site.data}"',
            # CLIENT LIST and SLOWLOG show it as every client's address.
            f"unixsocket {SOCKET_LINK}/{self._door.inner.name}",
            f'proc-title-template "{{title}} instance {self._site.socket_dir.name}"',
            *(f"{name} {value}" for name, value in FIXED),
            *(f"{name} {value}" for name, value in _changeable(limits).items()),
            "user default off -@all",
            f"user {SERVICE_USER} on #{digest} ~* &* +@all",
        ]
        return "\n".join(lines) + "\n"

    def _link_socket_directory(self) -> None:
        """Have the socket reachable from the working directory by a name that shows no path."""
        link = self._site.data / SOCKET_LINK
        directory = self._door.inner.parent
        if not link.is_symlink() or link.readlink() != directory:
            link.unlink(missing_ok=True)
            link.symlink_to(directory)

    def _check_version(self, version: tuple[int, ...]) -> None:
        """Refuse a server that is older than the one that wrote the data.

        Redis 7 keeps its append-only file in a directory of its own: 6.2 would not see it, and
        would start empty.
        """
        path = self._site.instance_dir / "instance.json"
        try:
            written_by = tuple(json.loads(path.read_text())["server_version"])
        except (OSError, ValueError, KeyError):
            written_by = (0,)
        if version[:2] < written_by[:2]:
            raise ServerError("the data was written by a newer server version", is_final=True)
        if version != written_by:
            write_atomically(path, json.dumps({"server_version": version}).encode())


def _write_if_changed(path: Path, content: bytes) -> None:
    # A sync costs more than the rest of a wake.
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _usernames(record: InstanceRecord) -> frozenset[str]:
    return frozenset(each.username for each in record.credentials if each.enabled)


def _changeable(limits: Limits) -> dict[str, str]:
    """Return the settings that follow the plan and can be changed while the server runs."""
    # Replies that a client does not fetch are outside of maxmemory; this bounds them.
    pending = max(32 * MEBIBYTE, limits.memory_bytes)
    return {
        "maxmemory": str(limits.memory_bytes),
        "maxmemory-policy": EVICTION_POLICIES[limits.eviction_policy],
        "maxclients": str(limits.connections + CLIENTS_RESERVED),
        "appendfsync": "everysec" if limits.fsync else "no",
        "client-output-buffer-limit": f"normal {pending} {pending // 2} 60",
    }


def _bounds(limits: Limits) -> Bounds:
    return Bounds(
        # A rewrite of the append-only file forks: in the worst case every page is copied.
        memory_bytes=limits.memory_bytes * 2 + 64 * MEBIBYTE,
        data_bytes=0,  # Redis ends itself when an allocation fails; maxmemory is the bound
        files=limits.connections + CLIENTS_RESERVED + 128,
        processes=16,
    )
