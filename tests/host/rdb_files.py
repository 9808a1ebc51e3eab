"""Redis content of every kind, how two servers' contents are compared, and files for imports."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis

from tests.servers import as_service, service_account, wait_until

MEBIBYTE = 1024 * 1024


def fill(client: redis.Redis) -> None:
    """Write all types, short and long encodings, lives, a stream with groups."""
    client.set("text", "gr\u00fc\u00df dich")
    client.execute_command("SET", "bytes", bytes(range(256)))
    client.set("number", 12345)
    client.set("mortal", "x", ex=7000)
    client.setbit("bits", 100_000, 1)
    client.pfadd("log", *map(str, range(1000)))
    client.rpush("list", *range(10))
    client.rpush("long list", *(f"item {n}" * 20 for n in range(2000)))
    client.hset("hash", mapping={"a": 1, "b": 2})
    client.hset("long hash", mapping={f"f{n}": n for n in range(2000)})
    client.sadd("ints", *range(50))
    client.sadd("set", *(f"m{n}" for n in range(3000)))
    client.zadd("zset", {"a": 1.5, "b": float("inf"), "c": -2})
    client.zadd("long zset", {f"m{n}": n / 3 for n in range(2000)})
    client.geoadd("places", (13.4, 52.5, "Berlin"))
    for number in range(300):
        client.xadd("stream", {"n": number}, id=f"{number + 1}-1")
    client.xgroup_create("stream", "workers", id="0")
    client.xreadgroup("workers", "ann", {"stream": ">"}, count=5)
    client.xack("stream", "workers", "1-1")
    client.xgroup_create("stream", "late", id="100-0")
    client.select(15)
    client.set("elsewhere", "15")
    client.select(0)
    if int(client.info("server")["redis_version"].split(".")[0]) >= 7:
        code = "#!lua name=ours\nredis.register_function('twice', function(k, a) return a[1]*2 end)"
        client.function_load(code, replace=True)


def content(client: redis.Redis) -> dict[str, Any]:
    """Return all that a server holds, in a form that two servers can be compared by."""
    found: dict[str, Any] = {}
    for database in (0, 15):
        client.select(database)
        for key in sorted(client.keys("*")):
            kind = client.type(key)
            found[f"{database}:{key}"] = (kind, _value(client, key, kind), client.ttl(key) > 0)
    client.select(0)
    if int(client.info("server")["redis_version"].split(".")[0]) >= 7:
        found["functions"] = sorted(str(each[1]) for each in client.function_list())
    return found


def _value(client: redis.Redis, key: str, kind: str) -> Any:
    match kind:
        case "hash":
            return client.hgetall(key)
        case "set":
            return client.smembers(key)
        case "stream":
            groups = client.xinfo_groups(key)
            pending = [client.xpending(key, group["name"]) for group in groups]
            return client.xrange(key), groups, pending
        case _:
            # Of these the serialised form is the same for the same value.
            return client.execute_command("DUMP", key, NEVER_DECODE=[])


def rdb_of(program: Path, *commands: tuple[str, ...], databases: int = 16) -> bytes:
    """Return the RDB file of a fresh server of `program` that was told `commands`."""
    with tempfile.TemporaryDirectory(prefix="wkr", dir="/tmp") as root:
        socket = Path(root) / "s"
        server = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", socket, "--dir", root, "--save", "",
             "--databases", str(databases)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(socket.exists, "redis-server listens")
            client = redis.Redis(unix_socket_path=str(socket))
            for command in commands:
                client.execute_command(*command)
            client.save()
            client.close()
            return (Path(root) / "dump.rdb").read_bytes()
        finally:
            server.terminate()
            server.wait(10)


def upload(home: Path, data: bytes, part_bytes: int = 0) -> dict[str, Any]:
    """Store a file as the control plane does; return the parameters of its import."""
    name = f"imports/{secrets.token_hex(16)}"
    folder = home / "files" / name
    subprocess.run(["mkdir", "-m", "700", "-p", folder], check=True, **as_service())
    step = part_bytes or max(1, len(data))
    for offset in range(0, len(data), step):
        part = folder / f"{offset:016d}"
        part.write_bytes(data[offset : offset + step])
        if account := service_account():
            os.chown(part, *account)
    return {
        "file": name,
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def new_export() -> str:
    """Return a name for an export."""
    return f"exports/{secrets.token_hex(16)}"


def exported(home: Path, name: str) -> bytes:
    """Return the content of an export."""
    return b"".join(part.read_bytes() for part in sorted((home / "files" / name).iterdir()))
