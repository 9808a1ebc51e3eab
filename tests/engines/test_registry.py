"""The registry: names in order, specs loaded once, unknown names refused."""

from __future__ import annotations

import pytest

from engines import registry
from engines.kit.iam import RESOURCE_KINDS
from engines.kit.settings import ENGINES


def test_names_are_alphabetical_and_known_to_the_settings() -> None:
    assert list(registry.names()) == sorted(registry.names())
    assert set(registry.names()) <= set(ENGINES)


@pytest.mark.parametrize("name", registry.names())
def test_an_engine_is_declared_once_with_the_port_of_the_catalogue(name: str) -> None:
    spec = registry.load(name)
    assert spec.name == name
    assert spec.port == ENGINES[name].port
    assert registry.load(name) is spec
    assert spec.parts == RESOURCE_KINDS.get(name, ())


@pytest.mark.parametrize("name", ["", "nosuch", "kit", "Relational"])
def test_an_unknown_name_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(registry.UnknownEngineError, match=r"there are: .*relational"):
        registry.load(name)
