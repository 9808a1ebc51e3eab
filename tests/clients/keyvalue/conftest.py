"""boto3 against a data plane of two workers, which has anonymous access to `default`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.keyvalue.clients import Clients
from tests.dataplane.keyvalue_plane import keyvalue_plane
from tests.dataplane.plane import Plane
from tests.servers import PostgresServer, RedisServer, temporary_home

ANONYMOUS = "[keyvalue]\nanonymous = true\n"


@pytest.fixture(scope="package")
def plane(postgres: PostgresServer, redis: RedisServer) -> Iterator[Plane]:
    with (
        temporary_home("wkd") as home,
        keyvalue_plane(
            home,
            postgres,
            redis,
            "kv_boto3",
            workers=2,
            intervals={"look_s": 0.25},
            toml=ANONYMOUS,
        ) as plane,
    ):
        yield plane


@pytest.fixture
def kv(plane: Plane) -> Iterator[Clients]:
    clients = Clients(plane)
    yield clients
    clients.close()
