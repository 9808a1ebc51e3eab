"""The relay alone, with both peers by hand: framing at every cut, refusals, exact units."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass
from engines.relational import wire
from engines.relational.relay import Relay
from engines.relational.wire import message
from tests.engines.border import ProgrammableGate

READY, IN_TRANSACTION, FAILED = (message(b"Z", status) for status in (b"I", b"T", b"E"))
SYNC = message(b"S")
BIND_COMPLETE, PARSE_COMPLETE = message(b"2"), message(b"1")


def query(text: str) -> bytes:
    return message(b"Q", text.encode() + b"\0")


def parse(text: str, name: str = "") -> bytes:
    return message(b"P", f"{name}\0{text}\0".encode() + bytes(2))


def bind(name: str = "", portal: str = "") -> bytes:
    return message(b"B", f"{portal}\0{name}\0".encode() + bytes(6))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message(b"E", portal.encode() + b"\0" + struct.pack("!I", rows))


def run(text: str) -> bytes:
    """The messages of one unnamed statement."""
    return parse(text) + bind() + execute()


def complete(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\0")


def error(sqlstate: str, text: str = "no") -> bytes:
    # The server points into the statement where the statement's own syntax is wrong.
    position = {"P": "1"} if sqlstate == "42601" else {}
    return wire.error_response({"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": text, **position})


class Wired:
    """A relay between two peers that are lists of bytes."""

    def __init__(self, **limits: int) -> None:
        self.gate = ProgrammableGate()
        for name, units in limits.items():
            self.gate.limit(RequestClass[name.upper()], units)
        self.relay = Relay(self.gate)

    def client(self, data: bytes) -> bytes:
        """Send as the client; return what the server gets."""
        if self.relay.from_client(data):
            return self._take(self.relay.to_server) + data
        return self._take(self.relay.to_server)

    def server(self, data: bytes) -> bytes:
        """Send as the server; return what the client gets."""
        if self.relay.from_server(data):
            return self._take(self.relay.to_client) + data
        return self._take(self.relay.to_client)

    def answered(self) -> bytes:
        """Return what the client got without the server."""
        return self._take(self.relay.to_client)

    @staticmethod
    def _take(queue: list[bytes]) -> bytes:
        data = b"".join(queue)
        queue.clear()
        return data


def kinds(data: bytes) -> str:
    """Return the kinds of whole messages."""
    messages, rest = wire.split(data)
    assert rest == b""
    return b"".join(kind for kind, _ in messages).decode()


def poison_of(data: bytes) -> str:
    """Return the random name in the last message to the server."""
    kind, body = wire.split(data)[0][-1]
    assert kind in (b"Q", b"E")
    name = body.split(b"\0")[0].decode()
    assert name.startswith("weftkit_")
    return name


def cuts(data: bytes, points: Iterable[int]) -> list[bytes]:
    """Cut `data` at these points."""
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


CLIENT_STREAM = b"".join(
    [
        query("SELECT 1"),
        parse("INSERT INTO t VALUES ($1)", "s1") + bind("s1", "p") + message(b"D", b"Pp\0"),
        execute("p") + message(b"C", b"Sp\0") + message(b"H") + SYNC,
        query("BEGIN; DELETE FROM t; COMMIT"),
        query("COPY t FROM STDIN"),
        message(b"d", b"1\tone\n" * 50),
        message(b"c"),
        query("SELECT '" + "x" * 40_000 + "'"),
        message(b"F", bytes(10)),
        message(b"X"),
    ]
)
CLIENT_UNITS = {"unlimited": 2, "read": 2, "write": 3, "query": 1}


@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_every_cut_of_the_clients_stream_gives_the_same_bytes_and_units(points: list[int]) -> None:
    wired = Wired()
    sent = b"".join(wired.client(chunk) for chunk in cuts(CLIENT_STREAM, points))
    assert sent == CLIENT_STREAM
    assert wired.gate.performed() == CLIENT_UNITS


def test_single_bytes_give_the_same_as_one_chunk() -> None:
    wired = Wired()
    sent = b"".join(wired.client(CLIENT_STREAM[i : i + 1]) for i in range(len(CLIENT_STREAM)))
    assert sent == CLIENT_STREAM
    assert wired.gate.performed() == CLIENT_UNITS


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_every_cut_of_the_servers_stream_gives_the_same_bytes(points: list[int]) -> None:
    wired = Wired(read=0)
    in_transaction = wired.client(query("BEGIN") + query("SELECT 1") + query("DELETE FROM t"))
    poison = error(
        "42601",
        f'syntax error at or near "{poison_of(in_transaction[: -len(query("DELETE FROM t"))])}"',
    )
    rows = message(b"D", b"row" * 30) * 5
    before = complete("BEGIN") + IN_TRANSACTION
    after = FAILED + rows + error("25P02") + FAILED
    got = b"".join(wired.server(chunk) for chunk in cuts(before + poison + after, points))
    assert got.startswith(before)
    assert got.endswith(after)
    refusal = wire.fields(got[len(before) + 5 : -len(after)])
    assert refusal["C"] == "53400"
    assert refusal["M"] == "rate limit exceeded: 20 read units per second"
    assert wired.gate.performed() == {"unlimited": 1}


@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.binary(max_size=60), max_size=6))
def test_garbage_from_either_side_raises_nothing(client: list[bytes], server: list[bytes]) -> None:
    wired = Wired(read=1)
    for chunk in client:
        wired.relay.from_client(chunk)
    for chunk in server:
        wired.relay.from_server(chunk)


@given(st.lists(st.sampled_from(
    [query("SELECT 1"), query("BEGIN"), run("SELECT 1"), SYNC, run("INSERT INTO t VALUES (1)"),
     message(b"c"), message(b"d", b"x"), message(b"H"), message(b"C", b"S\0"), execute()]
), max_size=12), st.lists(st.sampled_from(
    [READY, FAILED, IN_TRANSACTION, error("42601"), complete("SELECT 1"), PARSE_COMPLETE,
     BIND_COMPLETE, message(b"G", bytes(3)), message(b"T", bytes(2))]
), max_size=12), st.integers(0, 3))  # fmt: skip
def test_messages_in_an_order_that_no_peer_keeps_raise_nothing(
    client: list[bytes], server: list[bytes], units: int
) -> None:
    wired = Wired(read=units)
    for index in range(max(len(client), len(server))):
        for feed, messages in ((wired.client, client), (wired.server, server)):
            if index < len(messages):
                feed(messages[index])
    assert all(count >= 0 for count in wired.gate.units.values())


def test_a_broken_header_goes_to_the_server_and_nothing_after_it() -> None:
    wired = Wired()
    broken = b"Q\0\0\0\x01"
    assert wired.client(query("SELECT 1") + broken + query("SELECT 2")) == (
        query("SELECT 1") + broken
    )
    assert wired.client(query("SELECT 3")) == b""


def test_a_long_value_streams_through_without_being_kept() -> None:
    wired = Wired()
    value = message(b"d", bytes(1_000_000))
    assert wired.client(value[:100_000]) == value[:100_000]
    assert wired.client(value[100_000:600_000]) == value[100_000:600_000]
    assert wired.client(value[600_000:] + SYNC) == value[600_000:] + SYNC


class TestRefusal:
    """Over the limit."""

    def test_an_idle_session_is_answered_here(self) -> None:
        wired = Wired(read=0)
        assert wired.client(query("SELECT 1")) == b""
        assert kinds(wired.answered()) == "EZ"
        assert wired.relay.is_idle
        assert wired.client(query("DELETE FROM t")) == query("DELETE FROM t")

    def test_an_extended_segment_is_answered_here_up_to_its_sync(self) -> None:
        wired = Wired(read=0)
        kept = run("DELETE FROM t") + SYNC
        assert wired.client(run("SELECT 1") + message(b"D", b"P\0") + SYNC + kept) == kept
        assert kinds(wired.answered()) == "EZ"

    def test_what_follows_a_refusal_is_dropped_across_chunks(self) -> None:
        wired = Wired(read=0)
        assert wired.client(run("SELECT 1")) == b""
        assert kinds(wired.answered()) == "E"
        assert wired.client(run("DELETE FROM t") + query("DELETE FROM t")) == b""
        assert wired.client(SYNC) == b""
        assert kinds(wired.answered()) == "Z"
        assert wired.gate.performed() == {}

    def test_inside_a_transaction_the_server_is_made_to_fail(self) -> None:
        wired = Wired(read=0)
        wired.client(query("BEGIN"))
        wired.server(complete("BEGIN") + IN_TRANSACTION)
        sent = wired.client(query("SELECT 1"))
        assert kinds(sent) == "Q"
        assert wired.answered() == b""
        answer = error("42601", f'syntax error at or near "{poison_of(sent)}"') + FAILED
        got = wired.server(answer)
        assert wire.fields(wire.split(got)[0][0][1])["C"] == "53400"
        # In a failed transaction there is nothing left to abort.
        assert wired.client(query("SELECT 1")) == b""
        assert wired.answered().endswith(FAILED)

    def test_in_a_pipeline_the_server_is_made_to_fail_at_that_point(self) -> None:
        wired = Wired(read=0)
        sent = wired.client(run("DELETE FROM t") + run("SELECT 1") + SYNC)
        assert kinds(sent) == "PBEPBES"
        name = poison_of(sent[: -len(SYNC)])
        assert sent == run("DELETE FROM t") + parse("SELECT 1") + bind() + execute(name) + SYNC
        got = wired.server(
            PARSE_COMPLETE + BIND_COMPLETE + complete("DELETE 1") + PARSE_COMPLETE + BIND_COMPLETE
            + error("34000", f'portal "{name}" does not exist') + READY
        )  # fmt: skip
        assert kinds(got) == "12C12EZ"
        assert wire.fields(wire.split(got)[0][5][1])["C"] == "53400"
        assert wired.gate.performed() == {"write": 1}
        assert wired.relay.is_idle

    def test_a_client_cannot_forge_a_refusal(self) -> None:
        wired = Wired(read=0)
        wired.client(query("BEGIN") + query("SELECT 1"))
        forged = error("P0001", "weftkit_000000000000000000000000_1")
        assert wired.server(complete("BEGIN") + IN_TRANSACTION + forged).endswith(forged)

    def test_a_query_of_several_statements_is_admitted_whole_or_not(self) -> None:
        wired = Wired(write=1)
        assert wired.client(query("SELECT 1; DELETE FROM t; DELETE FROM u")) == b""
        assert kinds(wired.answered()) == "EZ"
        assert wired.gate.performed() == {}

    def test_a_long_refused_statement_is_dropped_to_its_end(self) -> None:
        wired = Wired(read=0)
        long = query("SELECT '" + "x" * 100_000 + "'")
        assert wired.client(long[:50_000]) == b""
        assert wired.client(long[50_000:] + query("DELETE FROM t")) == query("DELETE FROM t")

    def test_over_the_quota_only_what_grows_data_is_refused(self) -> None:
        wired = Wired()
        wired.gate.is_full = True
        for text in ("INSERT INTO t VALUES (1)", "CREATE TABLE u ()", "COPY t FROM STDIN"):
            assert wired.client(query(text)) == b""
            fields = wire.fields(wire.split(wired.answered())[0][0][1])
            assert (fields["C"], fields["H"]) == ("53100", "Delete something.")
        for text in ("DELETE FROM t", "TRUNCATE t", "DROP TABLE t", "SELECT 1", "COMMIT"):
            assert wired.client(query(text)) == query(text)


class TestWait:
    """Units that must be fetched first."""

    def test_the_relay_stops_at_the_statement_and_goes_on_when_units_are_there(self) -> None:
        wired = Wired(read=2)
        wired.gate.fetch_units = 1
        stream = query("DELETE FROM t") + query("SELECT 1") + query("DELETE FROM u")
        assert wired.client(stream) == query("DELETE FROM t")
        assert wired.relay.waiting == (RequestClass.READ, 1)
        assert wired.client(query("DELETE FROM v")) == b""  # came before reading was paused
        wired.gate.local[RequestClass.READ] += 1
        rest = query("SELECT 1") + query("DELETE FROM u") + query("DELETE FROM v")
        assert wired.client(b"") == rest
        assert wired.relay.waiting is None
        assert wired.gate.performed() == {"read": 1, "write": 3}

    def test_a_refusal_after_the_wait_comes_in_order(self) -> None:
        wired = Wired(read=0)
        wired.gate.fetch_units = 1
        sent = wired.client(run("SELECT 1") + SYNC)
        assert sent == parse("SELECT 1") + bind()
        wired.gate.left[RequestClass.READ] = 0
        wired.gate.local.clear()
        wired.gate.fetch_units = 0
        sent = wired.client(b"")
        assert kinds(sent) == "ES"
        assert poison_of(sent[: -len(SYNC)])


class TestUnits:
    """Metered units equal performed units."""

    def answers(self, client: bytes, server: bytes) -> dict[str, int]:
        wired = Wired()
        wired.client(client)
        wired.server(server)
        assert wired.relay.is_idle
        return wired.gate.performed()

    def test_what_an_error_skips_is_given_back(self) -> None:
        client = run("SELECT 1") + run("DELETE FROM t") + run("CALL p()") + SYNC
        first = PARSE_COMPLETE + BIND_COMPLETE + complete("SELECT 1")
        # The second fails while it is executed: it was performed. The third never began.
        failed = first + PARSE_COMPLETE + BIND_COMPLETE + error("23505") + READY
        assert self.answers(client, failed) == {"read": 1, "write": 1}
        # The second fails while it is parsed or bound: it never began.
        assert self.answers(client, first + error("42P01") + READY) == {"read": 1}
        assert self.answers(client, first + PARSE_COMPLETE + error("22P02") + READY) == {"read": 1}

    def test_a_failing_query_of_several_statements_counts_what_was_begun(self) -> None:
        client = query("SELECT 1; DELETE FROM t; CALL p()")
        row = message(b"T", bytes(2)) + message(b"D", bytes(2)) + complete("SELECT 1")
        assert self.answers(client, row + error("23505") + READY) == {"read": 1, "write": 1}
        assert self.answers(client, error("42601") + READY) == {}

    def test_a_failing_query_behind_extended_messages_counts_what_was_begun(self) -> None:
        client = parse("SELECT 1") + query("SELECT 1; SELECT 2; DELETE FROM t; CALL p()")
        done = complete("SELECT 1") * 2 + complete("DELETE 1")
        answers = PARSE_COMPLETE + done + error("22012") + READY
        assert self.answers(client, answers) == {"read": 2, "write": 1, "query": 1}

    def test_statements_that_were_not_seen_are_charged_when_the_server_tells_of_them(self) -> None:
        client = query("SET x.y = '1' /*" + "x" * 17_000 + "*/; DELETE FROM t; DELETE FROM t")
        answers = complete("SET") + complete("DELETE 1") * 2 + READY
        assert self.answers(client, answers) == {"unlimited": 1, "query": 2}
        pipeline = run("SELECT 1") + client
        first = PARSE_COMPLETE + BIND_COMPLETE + complete("SELECT 1")
        assert self.answers(pipeline, first + answers) == {"read": 1, "unlimited": 1, "query": 2}

    def test_an_empty_query_and_empty_executes_are_charged_nothing(self) -> None:
        empty = message(b"I")
        assert self.answers(query(""), empty + READY) == {}
        one = PARSE_COMPLETE + BIND_COMPLETE + empty
        assert self.answers(run("") * 3 + SYNC, one * 3 + READY) == {}

    def test_a_syntax_error_in_what_a_function_was_given_counts(self) -> None:
        client = query("SELECT to_tsquery('a ' || a) FROM t")
        at_run_time = wire.error_response({"S": "ERROR", "C": "42601", "M": "in tsquery"})
        assert self.answers(client, at_run_time + READY) == {"read": 1}

    def test_messages_without_an_end_are_forgotten_once_they_are_answered(self) -> None:
        wired = Wired()
        closing = message(b"C", b"S\0")
        for _ in range(50):
            wired.client(closing * 1000)
            wired.server(message(b"3") * 1000)
        assert wired.relay._open is not None
        assert len(wired.relay._open.units) < 6000
        wired.client(run("DELETE FROM t") + run("SELECT 1") + SYNC)
        wired.server(PARSE_COMPLETE + BIND_COMPLETE + error("23505") + READY)
        assert wired.relay.is_idle
        assert wired.gate.performed() == {"write": 1}

    def test_an_error_from_within_a_function_is_no_syntax_error_of_the_statement(self) -> None:
        inner = {"S": "ERROR", "C": "42601", "M": "x", "W": "PL/pgSQL function f()"}
        assert self.answers(query("SELECT f()"), wire.error_response(inner) + READY) == {"read": 1}

    def test_what_a_failed_transaction_ignores_is_given_back(self) -> None:
        wired = Wired()
        wired.client(query("BEGIN") + query("SELECT 1") + query("SELECT 2"))
        wired.server(complete("BEGIN") + IN_TRANSACTION + error("22012") + FAILED)
        wired.server(error("25P02") + FAILED)
        assert wired.gate.performed() == {"unlimited": 1, "read": 1}

    def test_fetching_on_from_a_portal_is_the_same_statement(self) -> None:
        stream = parse("SELECT 1") + bind(portal="p") + execute("p", 1) + execute("p", 1) + SYNC
        suspended = message(b"s")
        answer = PARSE_COMPLETE + BIND_COMPLETE + suspended + complete("SELECT 1") + READY
        assert self.answers(stream, answer) == {"read": 1}

    def test_an_empty_query_costs_nothing(self) -> None:
        assert self.answers(query(";"), message(b"I") + READY) == {}

    def test_prepared_names_carry_the_class_over(self) -> None:
        wired = Wired()
        wired.client(parse("INSERT INTO t VALUES (1)", "s1") + SYNC)
        wired.server(PARSE_COMPLETE + READY)
        wired.client(bind("s1") + execute() + SYNC)
        wired.client(query("EXECUTE s1"))
        assert wired.gate.performed() == {"write": 2}
        wired.client(query("DEALLOCATE s1"))
        wired.client(query("PREPARE s1 AS SELECT 1") + query("EXECUTE s1") + query("DISCARD ALL"))
        wired.client(query("EXECUTE s1"))
        assert wired.gate.performed() == {"unlimited": 3, "read": 1, "write": 2, "query": 1}

    def test_a_name_that_could_mean_two_things_costs_the_dearer(self) -> None:
        wired = Wired()
        wired.client(parse("DELETE FROM t", "s1") + SYNC + parse("BEGIN", "s1") + SYNC)
        # Not yet answered: the second Parse fails, because the name exists.
        wired.client(bind("s1") + execute() + SYNC)
        assert wired.gate.performed() == {"write": 1}
        wired.server(PARSE_COMPLETE + READY + error("42P05") + READY)
        wired.client(bind("s1") + execute() + SYNC)
        assert wired.gate.performed() == {"write": 2}

    def test_a_failed_parse_leaves_no_name_behind(self) -> None:
        wired = Wired()
        wired.client(parse("DELETE FRM t", "s1") + SYNC)
        wired.server(error("42601") + READY)
        wired.client(parse("SELECT 1", "s1") + bind("s1") + execute() + SYNC)
        assert wired.gate.performed() == {"read": 1}


class TestState:
    """When a session is idle, and what the server skips."""

    def test_idle_means_answered_and_outside_a_transaction(self) -> None:
        wired = Wired()
        assert wired.relay.is_idle
        wired.client(query("BEGIN"))
        assert not wired.relay.is_idle
        wired.server(complete("BEGIN") + IN_TRANSACTION)
        assert not wired.relay.is_idle
        wired.client(query("COMMIT"))
        wired.server(complete("COMMIT") + READY)
        assert wired.relay.is_idle
        wired.client(query("SELECT 1")[:4])
        assert not wired.relay.is_idle

    def test_pipelined_segments_are_answered_one_by_one(self) -> None:
        wired = Wired()
        wired.client((run("SELECT 1") + SYNC) * 2)
        answer = PARSE_COMPLETE + BIND_COMPLETE + complete("SELECT 1") + READY
        wired.server(answer)
        assert not wired.relay.is_idle
        wired.server(answer)
        assert wired.relay.is_idle

    def test_a_sync_inside_of_copy_is_read_past(self) -> None:
        wired = Wired()
        wired.client(run("COPY t FROM STDIN") + SYNC)
        wired.server(PARSE_COMPLETE + BIND_COMPLETE + message(b"G", bytes(3)))
        wired.client(message(b"d", b"1\n") + SYNC + message(b"c") + SYNC)
        wired.server(complete("COPY 1"))
        assert not wired.relay.is_idle
        wired.server(READY)
        assert wired.relay.is_idle
        assert wired.gate.performed() == {"write": 1}

    def test_a_sync_that_copy_did_not_read_past_is_answered_too(self) -> None:
        wired = Wired()
        wired.client(run("COPY t FROM STDIN") + SYNC)
        # A trigger fails before the server reads on, so the Sync is answered after all.
        answer = PARSE_COMPLETE + BIND_COMPLETE + message(b"G", bytes(3)) + error("P0001") + READY
        wired.server(answer)
        assert wired.relay.is_idle
        wired.client(message(b"f", b"\0") + SYNC)
        wired.server(READY)
        assert wired.relay.is_idle

    def test_a_query_that_the_server_skips_gets_no_answer_and_costs_nothing(self) -> None:
        wired = Wired()
        wired.client(parse("nonsense") + query("SELECT 1") + run("DELETE FROM t") + SYNC)
        wired.server(error("42601"))
        wired.server(READY)
        assert wired.relay.is_idle
        assert wired.gate.performed() == {}
        # And if the error is known before the client sends on:
        wired.client(parse("nonsense") + message(b"H"))
        wired.server(error("42601"))
        assert wired.client(query("SELECT 1") + run("DELETE FROM t")) != b""
        wired.client(SYNC)
        wired.server(READY)
        assert wired.relay.is_idle
        assert wired.gate.performed() == {}


@pytest.mark.parametrize(
    ("reason", "sqlstate"),
    [(Reason.SHUTDOWN, "57P01"), (Reason.UNAUTHENTICATED, "28P01"), (Reason.SUSPENDED, "57P03")],
)
def test_goodbye_is_a_fatal_error(reason: Reason, sqlstate: str) -> None:
    wired = Wired()
    fields = wire.fields(wired.relay.goodbye(RequestError(reason, "gone"))[5:])
    assert (fields["S"], fields["C"]) == ("FATAL", sqlstate)
    wired.relay.closed()
