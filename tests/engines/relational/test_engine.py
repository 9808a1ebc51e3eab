"""The declaration: connection strings that libpq itself reads back."""

from __future__ import annotations

import dataclasses

from psycopg.conninfo import conninfo_to_dict

from engines.kit.contract import Endpoint
from engines.relational.engine import ENGINE

ENDPOINT = Endpoint("db.example", 5433, "wk_abc", "p@ss/wo rd", "demo-relational")


def test_the_connection_string_says_what_libpq_needs() -> None:
    assert conninfo_to_dict(ENGINE.uri(ENDPOINT)) == {
        "host": "db.example",
        "port": "5433",
        "user": "wk_abc",
        "password": "p@ss/wo rd",
        "dbname": "weftkit",
    }


def test_with_tls_the_certificate_is_checked_where_its_authority_is_known() -> None:
    encrypted = dataclasses.replace(ENDPOINT, tls=True)
    assert conninfo_to_dict(ENGINE.uri(encrypted))["sslmode"] == "require"
    known = dataclasses.replace(encrypted, ca_path="/home/x y/ca.crt")
    options = conninfo_to_dict(ENGINE.uri(known))
    assert options["sslmode"] == "verify-full"
    assert options["sslrootcert"] == "/home/x y/ca.crt"


def test_the_one_liner_quotes_the_string_for_a_shell() -> None:
    assert ENGINE.one_liner(ENDPOINT) == f'psql "{ENGINE.uri(ENDPOINT)}"'
