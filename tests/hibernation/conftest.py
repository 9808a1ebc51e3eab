"""One rig for the tests of a module; a test that ends a process of it starts it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hibernation.rig import ENGINES, Rig, Sleeper, running_rig
from tests.host.conftest import reachable_python as reachable_python
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="module")
def rig(postgres: PostgresServer, redis: RedisServer, reachable_python: None) -> Iterator[Rig]:
    """A running host and data plane."""
    with running_rig(postgres, redis, "hibernation") as running:
        yield running


@pytest.fixture(params=ENGINES)
def sleeper(request: pytest.FixtureRequest, rig: Rig) -> Sleeper:
    """An instance of each engine that sleeps a second after its last client has left."""
    return rig.sleeper(request.param)
