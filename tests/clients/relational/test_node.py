"""node-postgres: parameters, transactions, named statements, notifications, its pool, TLS."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.node.programs import run_program
from tests.stack import Stack

pytestmark = pytest.mark.stack

ANSWERS: dict[str, Any] = {
    "query": {
        "n": 42, "t": "naïve", "j": {"a": [1, None]}, "a": [1, 2], "b": "00ff",
        "names": ["n", "t", "j", "a", "b"],
    },
    "transaction": {"inserted": 2, "inside": 0, "after": 30},
    "error": {"code": "23505", "constraint": "node_accounts_pkey", "alive": 1},
    # One named statement served all twenty executions.
    "prepared": {"answers": [2 * n for n in range(20)], "known": 1},
    "notification": {"channel": "node_news", "payload": "hello"},
    "pool": {"sum": 200 * 199 // 2, "backends": 10, "total": 10},
    "tls": {
        name: {"n": 1, "protocol": "TLSv1.3", "authorized": True} for name in ("postgres", "direct")
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def printed(stack: Stack) -> dict[str, Any]:
    """What pg.js printed."""
    uri = stack.connection("demo", "relational").uri
    return run_program("pg.js", WEFTKIT_TEST_URI=uri, WEFTKIT_TEST_CA=stack.ca)


@pytest.mark.parametrize("feature", ANSWERS)
def test_node_postgres_answers_as_from_postgresql(printed: dict[str, Any], feature: str) -> None:
    assert printed[feature] == ANSWERS[feature]
