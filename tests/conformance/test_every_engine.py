"""What every engine must declare; parametrised over the registry, so a new engine is held to it."""

from __future__ import annotations

import pytest

from engines import registry
from engines.kit.contract import Endpoint, EngineSpec, Placement, Transport
from engines.kit.errors import Reason

# design.md section 3: the word, the port and the product of each engine.
PORTS = {
    "relational": 5432, "document": 27017, "keyvalue": 8000, "graph": 7687, "inmemory": 6379,
    "vector": 50051, "markdown": 8080, "filestore": 8081, "unison": 4000, "typedb": 8729,
    "cloudant": 5984, "botpress": 8082,
}  # fmt: skip

ENDPOINT = Endpoint(
    host="db.example", port=4711, username="wk_abc", password="p@ss/word", handle="demo-x"
)


@pytest.fixture(params=registry.names())
def spec(request: pytest.FixtureRequest) -> EngineSpec:
    """Each registered engine in turn."""
    return registry.load(request.param)


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(LookupError, match="nosuch"):
        registry.load("nosuch")


def test_every_reason_has_a_native_code(spec: EngineSpec) -> None:
    assert set(spec.native) == set(Reason)
    assert all(native.code for native in spec.native.values())


def test_name_and_port_are_those_of_the_design(spec: EngineSpec) -> None:
    assert spec.port == PORTS[spec.name]
    assert registry.load(spec.name) is spec


def test_a_tcp_engine_has_a_session_and_an_http_engine_an_application(spec: EngineSpec) -> None:
    has_session = spec.open_session is not None and spec.preamble is not None
    assert has_session == (spec.transport is Transport.TCP)
    has_application = (spec.asgi is None) != (spec.serve is None)
    assert has_application == (spec.transport is Transport.HTTP)
    assert (spec.ddl is not None) == (spec.placement is Placement.SCHEMA)


def test_connection_string_escapes_the_password_and_names_the_port(spec: EngineSpec) -> None:
    uri = spec.uri(ENDPOINT)
    assert ":4711" in uri
    assert "p@ss/word" not in uri
    # Who signs requests has the secret in settings of its own, and a URL alone.
    assert ("p%40ss%2Fword" in uri) == (not spec.signs)
    assert uri in spec.one_liner(ENDPOINT)
