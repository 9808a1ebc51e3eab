"""ioredis, RESP2 and RESP3: pipelines, transactions, pub/sub, blocking pops, scripts, TLS."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.node.programs import run_program
from tests.stack import Stack

pytestmark = pytest.mark.stack

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"

ANSWERS: dict[str, Any] = {
    "pipeline": {"ok": 1000, "last": ["999", 1000, WRONG_TYPE]},
    "multi": {"done": ["OK", 2, 2, {"a": "1", "b": "2"}], "lost": None, "n": "changed"},
    "subscription": {
        "count": 2, "heard": [["news", "one"], ["events.*", "events.new", "two"]],
        "left": 2, "receivers": 0,
    },
    "blockingPop": ["queue", "job"],
    "scripts": [5, 11],
    "tls": {"answer": "PONG", "protocol": "TLSv1.3", "authorized": True},
}  # fmt: skip
# What RESP3 has types of its own for.
TYPED = {
    2: {"score": "1.5", "map": ["f", "v"], "proto": 2},
    3: {"score": 1.5, "map": {"f": "v"}, "proto": 3},
}


@pytest.fixture(scope="module", params=sorted(TYPED), ids="RESP{}".format)
def spoken(stack: Stack, request: pytest.FixtureRequest) -> tuple[int, dict[str, Any]]:
    """A version of the protocol, and what ioredis.js printed in it."""
    printed = run_program(
        "ioredis.js",
        WEFTKIT_TEST_URI=stack.connection("demo", "inmemory").uri,
        WEFTKIT_TEST_CA=stack.ca,
        WEFTKIT_TEST_PROTOCOL=str(request.param),
    )
    return request.param, printed


@pytest.mark.parametrize("feature", ANSWERS)
def test_ioredis_answers_as_from_redis(spoken: tuple[int, dict[str, Any]], feature: str) -> None:
    assert spoken[1][feature] == ANSWERS[feature]


def test_ioredis_reads_the_types_of_its_protocol(spoken: tuple[int, dict[str, Any]]) -> None:
    protocol, printed = spoken
    assert printed["typed"] == TYPED[protocol]
