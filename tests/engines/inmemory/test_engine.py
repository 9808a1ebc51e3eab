"""The declaration: connection strings that redis-py itself reads back."""

from __future__ import annotations

import dataclasses

from redis.connection import SSLConnection, parse_url

from engines.inmemory.engine import ENGINE
from engines.kit.contract import Endpoint

ENDPOINT = Endpoint("db.example", 6380, "wk_abc", "p@ss/wo rd", "demo-inmemory")


def test_the_connection_string_says_what_clients_need() -> None:
    assert parse_url(ENGINE.uri(ENDPOINT)) == {
        "host": "db.example",
        "port": 6380,
        "username": "wk_abc",
        "password": "p@ss/wo rd",
        "db": 0,
    }


def test_tls_is_another_scheme_and_the_shell_is_told_the_authority() -> None:
    encrypted = dataclasses.replace(ENDPOINT, tls=True, ca_path="/home/x/ca.crt")
    assert parse_url(ENGINE.uri(encrypted))["connection_class"] is SSLConnection
    assert ENGINE.one_liner(encrypted) == (
        f"redis-cli --cacert /home/x/ca.crt -u {ENGINE.uri(encrypted)}"
    )
    assert ENGINE.one_liner(ENDPOINT) == f"redis-cli -u {ENGINE.uri(ENDPOINT)}"
