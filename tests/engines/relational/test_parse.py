"""What a statement costs: examples in tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.ports import RequestClass
from engines.relational.parse import HEAD_BYTES, STATEMENTS, UNKNOWN, Statement, classify

# One line a text: its classes (r read, w write, q query, u unlimited; a capital letter grows data).
CLASSES = r"""
r | SELECT 1
r | select * from t for update
r |   select 1 ;
r | -- a comment; with a semicolon
r | /* one /* inside; the other */ */ SELECT 1
r | (SELECT 1) UNION (SELECT 2)
r | TABLE t
r | VALUES (1), (2)
r | FETCH ALL FROM c
r | SELECT 'into'
r | SELECT 'a;b', "c;d", $$e;f$$, $x$g;$$h$x$
r | SELECT E'it\'s; one'
r | SELECT $1::int
W | SELECT a INTO b FROM c
W | Select a Into b
W | INSERT INTO t VALUES (1)
W | insert into t values (';')
W | UPDATE t SET a = 1
w | DELETE FROM t
w | TRUNCATE t
w | DROP TABLE t
W | CREATE TABLE t (a int)
W | CREATE INDEX CONCURRENTLY i ON t (a)
W | ALTER TABLE t ADD b int
w | GRANT SELECT ON t TO r
W | MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE
W | REFRESH MATERIALIZED VIEW v
W | COPY t FROM STDIN
W | COPY t (a, b) FROM STDIN WITH (FORMAT csv)
q | COPY t TO STDOUT
q | COPY (SELECT a FROM t) TO STDOUT
q | WITH x AS (SELECT 1) SELECT * FROM x
q | WITH x AS (SELECT a FROM t FOR NO KEY UPDATE) SELECT * FROM x
W | WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x
w | WITH x AS (DELETE FROM t RETURNING a) SELECT * FROM x
W | with x as (select 1) update t set a = 1
q | EXPLAIN SELECT 1
Q | EXPLAIN ANALYZE INSERT INTO t VALUES (1)
q | DECLARE c CURSOR FOR SELECT 1
q | VACUUM t
q | ANALYZE
q | REINDEX TABLE t
Q | DO $$ BEGIN PERFORM 1; END $$
Q | CALL p()
Q | EXECUTE unknown_name
q | FROBNICATE t
u | BEGIN
u | START TRANSACTION ISOLATION LEVEL SERIALIZABLE
u | COMMIT;
u | ROLLBACK TO SAVEPOINT s
u | SET search_path = a
u | SHOW ALL
u | LISTEN c
u | NOTIFY c, 'x;y'
u | PREPARE p AS SELECT 1
u | PREPARE TRANSACTION 'x'
u | DEALLOCATE ALL
u | LOCK TABLE t
  |
  | ;;
uWu | BEGIN; INSERT INTO t VALUES (1); COMMIT
rr | SELECT 1; SELECT 2
Wr | INSERT INTO t VALUES ('a;b'); SELECT 1
Wr | CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a THEN 1 END; END; SELECT 2
W | CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)
Wr | CREATE TABLE t (a int DEFAULT (1)); SELECT 1
"""
LETTERS = {
    RequestClass.READ: "r",
    RequestClass.WRITE: "w",
    RequestClass.QUERY: "q",
    RequestClass.UNLIMITED: "u",
}


def letters(text: bytes) -> str:
    return "".join(
        LETTERS[s.request_class].upper() if s.grows else LETTERS[s.request_class]
        for s in classify(text)
    )


@pytest.mark.parametrize("line", [line for line in CLASSES.splitlines() if line])
def test_class_and_growth(line: str) -> None:
    expected, _, text = line.partition("|")
    if "--" in text:
        text = text.replace("semicolon", "semicolon\nSELECT 1")
    assert letters(text.strip().encode()) == expected.strip()


def test_every_first_word_is_found_in_both_cases_and_beside_other_statements() -> None:
    for word in STATEMENTS:
        alone = classify(word + b" x")
        assert len(alone) == 1
        assert classify(word.lower() + b" x") == alone
        assert [s.request_class for s in classify(b"COMMIT; " + word + b" x; COMMIT")] == [
            RequestClass.UNLIMITED,
            alone[0].request_class,
            RequestClass.UNLIMITED,
        ]


def test_prepared_names_are_folded_as_postgresql_folds_them() -> None:
    (prepared,) = classify(
        b'PREPARE "Big ""One""" (int, numeric(3,2)) AS INSERT INTO t VALUES ($1)'
    )
    assert prepared.prepares == (b'Big "One"', Statement(RequestClass.WRITE, grows=True))
    (executed,) = classify(b"EXECUTE Small(1)")
    assert executed.executes == b"small"
    assert executed.request_class is UNKNOWN.request_class
    assert classify(b"deallocate prepare Small")[0].deallocates == b"small"
    assert classify(b"DISCARD ALL")[0].deallocates == b""
    assert classify(b"DISCARD PLANS")[0].deallocates is None
    assert classify(b"EXECUTE " + b"n" * 70)[0].executes == b"n" * 63


def test_a_backslash_before_a_quote_is_read_so_that_no_statement_is_missed() -> None:
    # With standard_conforming_strings off these are two statements, with it on one.
    assert letters(rb"SELECT '\'';INSERT INTO t VALUES (1);--'") == "rW"
    # And here the other way round.
    assert letters(rb"SELECT 'a\'; INSERT INTO t VALUES (1) --'") == "rW"


def test_only_the_head_of_a_long_text_is_looked_at() -> None:
    text = b"SELECT 1;" * HEAD_BYTES
    assert len(classify(text)) == -(-HEAD_BYTES // 9)


@given(st.binary(max_size=300))
def test_any_bytes_are_classified(text: bytes) -> None:
    for statement in classify(text):
        assert statement.request_class in RequestClass


@given(
    st.lists(
        st.sampled_from(
            [b"SELECT ';'", b'SELECT ";"', b"SELECT $a$;$a$", b"SELECT /*;*/ 1", b"DELETE FROM t",
             b"SELECT E'\\\\'", b"WITH x AS (SELECT ';') TABLE x", b"SELECT --;\n 1"]
        ),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_as_many_statements_are_found_as_were_joined(texts: list[bytes]) -> None:
    assert len(classify(b" ; ".join(texts))) == len(texts)
    assert [letters(text) for text in texts] == list(letters(b";".join(texts)))
