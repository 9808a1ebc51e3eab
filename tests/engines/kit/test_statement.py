"""Names are quoted, values are not in the text."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.errors import LocalError
from engines.kit.statement import Name, quote_name, with_names
from tests.servers import PostgresServer


@pytest.mark.parametrize("name", ['a"b', "Select", 'x"; DROP TABLE y; --', "é", "a b", "\\", "'"])
def test_postgresql_takes_every_quoted_name_for_what_it_is(
    postgres: PostgresServer, name: str
) -> None:
    with psycopg.connect(postgres.dsn()) as connection:
        connection.execute(f"CREATE TEMPORARY TABLE {quote_name(name)} ()")
        found = connection.execute(
            "SELECT 1 FROM pg_class WHERE relname = %s AND relpersistence = 't'", [name]
        ).fetchall()
        connection.rollback()
    assert found == [(1,)]


@pytest.mark.parametrize("name", ["", "a\0", "x" * 64, "é" * 32])
def test_what_postgresql_would_cut_or_refuse_is_our_own_fault(name: str) -> None:
    with pytest.raises(LocalError):
        quote_name(name)


def test_templates_get_qualified_names() -> None:
    names = {"log": Name("i_1", "c"), "state": Name('s"', "t")}
    assert with_names("SELECT 1 FROM {log}, {state} WHERE $1", names) == (
        'SELECT 1 FROM "i_1"."c", "s"""."t" WHERE $1'
    )
    with pytest.raises(KeyError):
        with_names("{other}", names)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_quoted_name_has_no_way_out(name: str) -> None:
    name = name.encode()[:63].decode("utf-8", "ignore") or "x"
    quoted = quote_name(name)
    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', "") == name.replace('"', "")
    assert quoted[1:-1].count('"') == 2 * name.count('"')
