"""A data plane that serves the engine `keyvalue`, and a signer of requests, for tests."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engines.keyvalue.engine import ENGINE
from engines.kit import auth
from engines.kit.auth.sigv4 import access_secret
from engines.kit.records import Credential, InstanceRecord, Role
from tests.dataplane.plane import MASTER_KEY, PEPPER, ControlDatabase, Plane, instance
from tests.servers import PostgresServer, RedisServer

CELL = "local"


def access_key(role: Role = Role.ADMIN, version: int = 1, **changes: Any) -> Credential:
    """Make a credential whose secret is derived."""
    key_id = auth.new_key_id()
    username = auth.username_of(key_id)
    secret = auth.make_secret(
        access_secret(MASTER_KEY, username, version), 1, PEPPER, auth.new_salt(), iterations=1
    )
    secret = dataclasses.replace(secret, access_version=version)
    return dataclasses.replace(Credential(key_id, username, role, (secret,)), **changes)


def secret_of(credential: Credential, position: int = 0) -> str:
    """Return the secret access key of a credential."""
    version = credential.secrets[position].access_version
    return access_secret(MASTER_KEY, credential.username, version)


@contextmanager
def keyvalue_plane(
    home: Path, postgres: PostgresServer, redis: RedisServer, name: str, **settings: Any
) -> Iterator[Plane]:
    """Run a plane whose one cell is in the control database's server."""
    database = ControlDatabase(postgres, name)
    plane = Plane(
        home, database, redis, engine=ENGINE, cells=f"{CELL}={postgres.dsn(name)}", **settings
    )
    plane.start()
    try:
        yield plane
    finally:
        plane.close()


def new_instance(plane: Plane, *credentials: Credential, **changes: Any) -> InstanceRecord:
    """Make an instance with its schema; it is not published yet."""
    record = instance(*credentials, engine="keyvalue", cell=CELL, **changes)
    assert ENGINE.ddl is not None
    with plane.database.connect() as connection:
        connection.execute(f"CREATE SCHEMA {record.schema}")
        for statement in ENGINE.ddl(record.schema):
            connection.execute(statement)
    return record


@dataclass
class Signer:
    """Signs as an SDK does, written from the description of Signature Version 4."""

    key: str
    secret: str
    host: str = "localhost"
    region: str = "us-east-1"
    service: str = "dynamodb"
    ahead_s: float = 0.0

    @classmethod
    def of(cls, credential: Credential, **how: Any) -> Signer:
        return cls(credential.username, secret_of(credential), **how)

    def headers(
        self, target: str, body: bytes, further: dict[str, str] | None = None
    ) -> dict[str, str]:
        """Return the headers of a signed POST."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + self.ahead_s))
        signed = {
            "content-type": "application/x-amz-json-1.0",
            "host": self.host,
            "x-amz-date": stamp,
            "x-amz-target": target,
            **(further or {}),
        }
        names = ";".join(sorted(signed))
        lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"POST\n/\n\n{lines}\n{names}\n{digest}"
        scope = f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}".encode()
        signature = hmac.new(key, to_sign, hashlib.sha256).hexdigest()
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
        return signed

    def request(self, operation: str, fields: Any, further: dict[str, str] | None = None) -> bytes:
        """Return the bytes of a request; `fields` are JSON, or bytes as they are."""
        body = fields if isinstance(fields, bytes) else orjson.dumps(fields)
        target = operation if "." in operation else f"DynamoDB_20120810.{operation}"
        return http(self.headers(target, body, further), body)


def http(
    headers: dict[str, str], body: bytes = b"", target: str = "/", method: str = "POST"
) -> bytes:
    """Return the bytes of a request with these headers."""
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in {"host": "localhost", **headers}.items()
    )
    return (
        f"{method} {target} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body
    )
