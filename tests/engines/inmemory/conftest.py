"""A server with an instance's service user, and a border in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as client_library
from redis.backoff import NoBackoff
from redis.retry import Retry

from engines.inmemory.engine import ENGINE
from engines.inmemory.plan import SERVICE_USER
from engines.kit.records import Role
from tests.engines.border import Account, Border, account, instance
from tests.servers import RedisServer

OWNER = account("abcdefghijkl")
WRITER = account("mmmmmmmmmmmm", role=Role.WRITE)
READER = account("nnnnnnnnnnnn", role=Role.READ)
SECRET = "service-secret"


@pytest.fixture(scope="session")
def socket(redis: RedisServer) -> Path:
    """The socket of a server that knows the service user."""
    with client_library.Redis.from_url(redis.url()) as direct:
        direct.acl_setuser(
            SERVICE_USER.decode(), enabled=True, reset=True, passwords=[f"+{SECRET}"],
            keys=["*"], channels=["*"], categories=["+@all"],
        )  # fmt: skip
    return redis.socket


@pytest.fixture
def border(socket: Path) -> Iterator[Border]:
    """A border that admits everything until told otherwise, in front of an empty database."""
    records = [instance("inmemory", OWNER, WRITER, READER)]
    with client_library.Redis(unix_socket_path=str(socket)) as direct:
        direct.flushall()
    with Border(ENGINE, socket, records, service_secret=SECRET).listening() as listening:
        yield listening


def connect(border: Border, who: Account = OWNER, **options: object) -> client_library.Redis:
    """Return a client of one connection, signed in as one of the accounts."""
    given = {
        "username": who.credential.username,
        "password": who.password,
        "protocol": 2,
        "decode_responses": True,
        "single_connection_client": True,
        "socket_timeout": 10,
        "retry": Retry(NoBackoff(), 0),
        **options,
    }
    return client_library.Redis(host="127.0.0.1", port=border.port, **given)  # type: ignore[arg-type]


@pytest.fixture(params=[2, 3])
def client(border: Border, request: pytest.FixtureRequest) -> Iterator[client_library.Redis]:
    """The owner's client, in each protocol."""
    with connect(border, protocol=request.param) as connected:
        connected.ping()
        border.gate.units.clear()
        yield connected
