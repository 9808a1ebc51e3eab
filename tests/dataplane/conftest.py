"""Fixtures of the data plane's tests: a control database and planes with the line engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.dataplane.plane import ControlDatabase, Plane
from tests.servers import PostgresServer, RedisServer, temporary_home

_numbers = count(1)


@pytest.fixture
def database(postgres: PostgresServer) -> ControlDatabase:
    """An empty control database."""
    return ControlDatabase(postgres, f"dataplane_{next(_numbers)}")


@pytest.fixture
def home() -> Iterator[Path]:
    """A short-named directory: it will hold unix sockets."""
    with temporary_home("wkd") as path:
        yield path


@pytest.fixture
async def new_plane(
    home: Path, database: ControlDatabase, redis: RedisServer
) -> AsyncIterator[Callable[..., Plane]]:
    """Make data planes that are stopped at the end of the test."""
    async with AsyncExitStack() as stack:

        def make(**settings: Any) -> Plane:
            plane = Plane(home, database, redis, **settings)
            stack.callback(plane.close)
            stack.push_async_callback(plane.close_parts)
            return plane

        yield make


@pytest.fixture(scope="module")
def module_plane(postgres: PostgresServer, redis: RedisServer) -> Iterator[Plane]:
    """A data plane with one worker that the tests of a module share."""
    with temporary_home("wkd") as home:
        database = ControlDatabase(postgres, f"dataplane_{next(_numbers)}")
        plane = Plane(home, database, redis, bounds={"linger_s": 0.5})
        plane.start()
        yield plane
        plane.close()


@pytest.fixture
async def plane(module_plane: Plane) -> AsyncIterator[Plane]:
    """The module's data plane; clients and servers of the test are closed at its end."""
    module_plane.begin_test()
    yield module_plane
    await module_plane.close_parts()
