"""Startup and sign-in, with libpq as the client and a real server behind; odd clients by hand."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import socket as sockets
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from engines.kit.auth import make_secret
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import Candidate, Grant, Tls
from engines.relational import session, wire
from engines.relational.engine import ENGINE
from tests.engines.border import PEPPERS, Account, Border, account, instance
from tests.engines.relational.conftest import DATABASE, OWNER, READER, WRITER, dsn
from tests.servers import wait_until


class RawClient:
    """A client that says exactly what it is told to."""

    def __init__(self, border: Border) -> None:
        self.socket = sockets.create_connection(("127.0.0.1", border.port), 10)
        self._data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> tuple[bytes, bytes] | None:
        """Return kind and body of the next message; None at the end of the stream."""
        while True:
            messages, _ = wire.split(self._data)
            if messages:
                kind, body = messages[0]
                self._data = self._data[len(body) + 5 :]
                return kind, body
            data = self.socket.recv(65536)
            if not data:
                return None
            self._data += data

    def read_error(self) -> dict[str, str]:
        """Return the fields of the ErrorResponse that must come, and after it the end."""
        message = self.read()
        assert message is not None
        assert message[0] == b"E"
        assert self.read() is None
        return wire.fields(message[1])


@pytest.fixture
def raw(border: Border) -> Iterator[RawClient]:
    """A client on a border's port."""
    client = RawClient(border)
    with contextlib.closing(client.socket):
        yield client


def startup(code: int = 196608, **parameters: str) -> bytes:
    """Encode a StartupMessage of any version."""
    pairs = b"".join(f"{k}\0{v}\0".encode() for k, v in parameters.items())
    return struct.pack("!II", len(pairs) + 9, code) + pairs + b"\0"


def refusal(conninfo: str) -> str:
    """Return libpq's words for a refused connection."""
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(conninfo)
    return str(refused.value).strip()


@pytest.mark.parametrize(
    ("who", "role"), [(OWNER, "owner"), (WRITER, "readwrite"), (READER, "readonly")]
)
def test_a_credential_becomes_the_role_of_its_kind(border: Border, who: Account, role: str) -> None:
    with psycopg.connect(dsn(border, who)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (role,)
        assert connection.info.dbname == DATABASE
    assert border.failures == []


def test_a_read_only_role_may_not_write(border: Border) -> None:
    with psycopg.connect(dsn(border), autocommit=True) as owner:
        owner.execute("CREATE TABLE IF NOT EXISTS readable (a int)")
    with psycopg.connect(dsn(border, READER), autocommit=True) as reader:
        assert reader.execute("SELECT count(*) FROM readable").fetchone() is not None
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            reader.execute("INSERT INTO readable VALUES (1)")
    assert refused.value.sqlstate == "42501"


def test_wrong_password_unknown_user_and_unknown_instance_look_alike(border: Border) -> None:
    user = OWNER.credential.username
    words = {
        refusal(dsn(border, password="wrong")),
        refusal(dsn(border, user=f"{user}.nosuch-one", password="wrong")).replace(
            ".nosuch-one", ""
        ),
        refusal(dsn(border, user="wk_zzzzzzzzzzzz")).replace("wk_zzzzzzzzzzzz", user),
        refusal(dsn(border, options="-c weftkit.instance=nosuch-one")),
    }
    (sentence,) = words
    assert sentence.endswith(f'FATAL:  password authentication failed for user "{user}"')
    assert border.failures == ["unauthenticated"] * 4


@pytest.mark.parametrize(
    "options",
    [
        {"options": "-c weftkit.instance=demo-one"},
        {"options": "--weftkit.instance=demo-one -c work_mem=123kB"},
        {"options": "-cweftkit.instance=demo-one"},
        {"options": "instance=demo-one"},
        {"user": f"{OWNER.credential.username}.demo-one"},
        {"user": f"{OWNER.credential.username}.demo-one", "options": "instance=demo-one"},
    ],
)
def test_the_instance_can_be_named_in_many_ways(border: Border, options: dict[str, str]) -> None:
    with psycopg.connect(dsn(border, **options)) as connection:
        (work_mem,) = connection.execute("SHOW work_mem").fetchone() or ("",)
    assert work_mem == ("123kB" if "work_mem" in str(options) else "4MB")


def test_instances_named_differently_in_one_startup_let_nobody_in(border: Border) -> None:
    other = {"user": f"{OWNER.credential.username}.demo-one", "options": "instance=demo-two"}
    assert "password authentication failed" in refusal(dsn(border, **other))


def test_a_dot_may_be_part_of_a_plain_user_name(socket: Path) -> None:
    dotted = account(username="first.last", password="pw")
    with (
        Border(ENGINE, socket, [instance("relational", dotted)]).listening() as border,
        psycopg.connect(dsn(border, dotted)) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_settings_of_the_client_reach_the_server(border: Border) -> None:
    options = {"options": r"-c my.words=a\ b -c datestyle=German", "application_name": "shop"}
    with psycopg.connect(dsn(border, client_encoding="latin1", **options)) as connection:
        row = connection.execute(
            "SELECT current_setting('my.words'), current_setting('datestyle'),"
            " current_setting('application_name'), current_setting('client_encoding')"
        ).fetchone()
    assert row == ("a b", "German, DMY", "shop", "LATIN1")


def test_what_the_client_asks_wrongly_is_the_servers_own_error(border: Border) -> None:
    assert 'database "nosuch" does not exist' in refusal(dsn(border, dbname="nosuch"))
    assert "invalid value for parameter" in refusal(dsn(border, options="-c work_mem=x"))


@pytest.mark.parametrize(
    ("given", "meant"), [("", "weftkit"), ("demo-one", "weftkit"), ("other", "other")]
)
def test_a_handle_or_nothing_as_database_means_the_instances_own(
    border: Border, given: str, meant: str
) -> None:
    # libpq fills an empty name in with the user's, so this client is written by hand.
    parsed = wire.parse_startup(startup(user=OWNER.credential.username, database=given)[4:])
    assert isinstance(parsed, wire.Startup)
    request = session._read_request(parsed, server_name="")
    grant = Grant(Candidate(border.records[0], OWNER.credential, is_mock=False), border.gate)
    assert session._server_parameters(request, grant) == {"user": "owner", "database": meant}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Reason.EXPIRED, "not now"),
        (Reason.ADDRESS, "not now"),
        (Reason.SUSPENDED, "not now"),
        (Reason.CONNECTIONS, "sorry, too many clients already"),
        (Reason.SHUTDOWN, "terminating connection due to administrator command"),
    ],
)
def test_a_proven_client_is_told_why_it_may_not_come_in(
    border: Border, reason: Reason, words: str
) -> None:
    border.login_error = RequestError(reason, "not now")
    assert refusal(dsn(border)).endswith(f"FATAL:  {words}")


def test_an_unreachable_server_is_a_connection_exception(border: Border) -> None:
    border.connect_error = RequestError(Reason.BACKEND, "the instance's server is not reachable")
    assert "the instance's server is not reachable" in refusal(dsn(border))


def test_a_certificate_signs_in_the_user_that_it_names(socket: Path) -> None:
    record = instance("relational", OWNER, READER, auth_method="mtls")
    shown = Tls(common_name=OWNER.credential.username)
    with Border(ENGINE, socket, [record], tls=shown).listening() as border:
        with psycopg.connect(dsn(border, password="")) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("owner",)
        assert "password authentication failed" in refusal(dsn(border, READER))
    with Border(ENGINE, socket, [record]).listening() as border:
        assert "password authentication failed" in refusal(dsn(border))


def test_a_token_signs_in_inside_tls_only(socket: Path) -> None:
    record = instance("relational", OWNER, auth_method="jwt")
    tokens = {OWNER.credential.username: "a.long.token"}
    with Border(ENGINE, socket, [record], tokens_by_user=tokens, tls=Tls()).listening() as border:
        with psycopg.connect(dsn(border, password="a.long.token")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert "password authentication failed" in refusal(dsn(border, password="another"))
    with Border(ENGINE, socket, [record], tokens_by_user=tokens).listening() as border:
        words = refusal(dsn(border, password="a.long.token"))
    assert "needs an encrypted connection" in words
    assert "sslmode=require" in words


def test_a_plain_client_may_ask_for_encryption_first(border: Border, raw: RawClient) -> None:
    raw.send(struct.pack("!II", 8, wire.GSSENC_REQUEST))
    assert raw.socket.recv(1) == b"N"
    raw.send(struct.pack("!II", 8, wire.SSL_REQUEST))
    assert raw.socket.recv(1) == b"N"
    raw.send(startup(user=OWNER.credential.username))
    assert raw.read() == (b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")


def test_a_newer_protocol_is_negotiated_down(raw: RawClient) -> None:
    raw.send(startup(3 << 16 | 9999, user="x", **{"_pq_.later": "1"}))
    assert raw.read() == (b"v", struct.pack("!II", 3 << 16 | 2, 1) + b"_pq_.later\0")
    message = raw.read()
    assert message is not None
    assert message[0] == b"R"


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        (startup(database="x"), "28000"),
        (startup(user="x", replication="database"), "0A000"),
        (startup(2 << 16, user="x"), "0A000"),
        (struct.pack("!II", 10_001, 196608), "08P01"),
        (startup(user="x")[:-1] + b"x", "08P01"),
    ],
)
def test_a_startup_that_cannot_be_served_is_refused(
    raw: RawClient, message: bytes, sqlstate: str
) -> None:
    raw.send(message)
    assert raw.read_error()["C"] == sqlstate


@pytest.mark.parametrize(
    "answer",
    [
        wire.message(b"Q", b"SELECT 1\0"),
        wire.message(b"p", b"PLAIN\0\0\0\0\0"),
        wire.message(b"p", b"SCRAM-SHA-256\0\0\0\0\x50n,,n=,r=x"),
        wire.message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", 5) + b"n,,x="),
        wire.message(b"p", bytes(1025)),
        b"p\xff\xff\xff\xff",
    ],
)
def test_a_broken_exchange_is_a_protocol_violation(raw: RawClient, answer: bytes) -> None:
    raw.send(startup(user=OWNER.credential.username))
    assert raw.read() is not None
    raw.send(answer)
    assert raw.read_error()["C"] == "08P01"


BINDING = bytes(range(32))
CLIENT_FIRST = b"n=,r=rOprNGfwEbeRWgbNEkqO"


@pytest.fixture
def encrypted(socket: Path) -> Iterator[RawClient]:
    """A client of a border that believes it has TLS with a certificate to bind to."""
    record = instance("relational", OWNER)
    with Border(ENGINE, socket, [record], tls=Tls(channel_binding=BINDING)).listening() as border:
        client = RawClient(border)
        with contextlib.closing(client.socket):
            yield client


def sasl_initial(mechanism: bytes, data: bytes) -> bytes:
    """Encode a SASLInitialResponse."""
    return wire.message(b"p", mechanism + b"\0" + struct.pack("!i", len(data)) + data)


def proof(client_first: bytes, challenge: bytes, gs2: bytes, binding: bytes, secret: str) -> bytes:
    """Return client-final-message (RFC 5802 section 3) as a PasswordMessage."""
    parts = dict(part.split(b"=", 1) for part in challenge.split(b","))
    salted = hashlib.pbkdf2_hmac(
        "sha256", secret.encode(), base64.b64decode(parts[b"s"]), int(parts[b"i"])
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    unproven = b"c=" + base64.b64encode(gs2 + binding) + b",r=" + parts[b"r"]
    message = b",".join((client_first, challenge, unproven))
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proven = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return wire.message(b"p", unproven + b",p=" + base64.b64encode(proven))


def answer_with_binding(client: RawClient, user: str, gs2: bytes, binding: bytes) -> None:
    """Sign in up to the proof, with these words about the channel."""
    client.send(startup(user=user))
    offer = client.read()
    assert offer == (b"R", b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    mechanism = b"SCRAM-SHA-256-PLUS" if gs2.startswith(b"p=") else b"SCRAM-SHA-256"
    client.send(sasl_initial(mechanism, gs2 + CLIENT_FIRST))
    if gs2.startswith(b"y"):
        return
    message = client.read()
    assert message is not None
    assert message[1][:4] == b"\0\0\0\x0b"
    client.send(proof(CLIENT_FIRST, message[1][4:], gs2, binding, OWNER.password))


@pytest.mark.parametrize(
    ("gs2", "binding"), [(b"p=tls-server-end-point,,", BINDING), (b"n,,", b"")]
)
def test_a_client_may_bind_to_the_channel_or_say_that_it_cannot(
    encrypted: RawClient, gs2: bytes, binding: bytes
) -> None:
    answer_with_binding(encrypted, OWNER.credential.username, gs2, binding)
    message = encrypted.read()
    assert message is not None
    assert message[1].startswith(b"\0\0\0\x0cv=")
    assert encrypted.read() == (b"R", b"\0\0\0\0")


@pytest.mark.parametrize("user", [OWNER.credential.username, "wk_zzzzzzzzzzzz"])
@pytest.mark.parametrize(
    ("gs2", "binding", "words"),
    [
        (b"y,,", b"", "SCRAM channel binding negotiation error"),
        (b"p=tls-server-end-point,,", bytes(32), "SCRAM channel binding check failed"),
        (b"p=tls-server-end-point,,", b"", "SCRAM channel binding check failed"),
    ],
)
def test_a_channel_that_is_not_ours_is_refused_even_with_the_right_password(
    encrypted: RawClient, user: str, gs2: bytes, binding: bytes, words: str
) -> None:
    answer_with_binding(encrypted, user, gs2, binding)
    fields = encrypted.read_error()
    assert (fields["C"], fields["M"]) == ("28000", words)


@pytest.mark.parametrize(
    ("mechanism", "gs2"),
    [
        (b"SCRAM-SHA-256-PLUS", b"n,,"),
        (b"SCRAM-SHA-256-PLUS", b"p=tls-unique,,"),
        (b"SCRAM-SHA-256", b"p=tls-server-end-point,,"),
        (b"SCRAM-SHA-1-PLUS", b"p=tls-server-end-point,,"),
    ],
)
def test_a_mechanism_and_its_header_must_agree(
    encrypted: RawClient, mechanism: bytes, gs2: bytes
) -> None:
    encrypted.send(startup(user=OWNER.credential.username))
    assert encrypted.read() is not None
    encrypted.send(sasl_initial(mechanism, gs2 + CLIENT_FIRST))
    assert encrypted.read_error()["C"] == "08P01"


def test_channel_binding_is_not_taken_where_it_was_not_offered(raw: RawClient) -> None:
    raw.send(startup(user=OWNER.credential.username))
    assert raw.read() == (b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")
    raw.send(sasl_initial(b"SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,," + CLIENT_FIRST))
    assert raw.read_error()["C"] == "08P01"


def test_a_running_statement_is_cancelled_through_our_own_key(border: Border) -> None:
    with (
        psycopg.connect(dsn(border), autocommit=True) as connection,
        psycopg.connect(dsn(border), autocommit=True) as watcher,
        ThreadPoolExecutor() as executor,
    ):
        key = min(border.tokens)
        assert connection.info.backend_pid == key >> 32
        running = executor.submit(connection.execute, "SELECT pg_sleep(30)")

        def is_running() -> bool:
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            return watcher.execute(query).fetchone() == (1,)

        wait_until(is_running, "the statement runs")
        connection.cancel_safe(timeout=10)
        with pytest.raises(psycopg.errors.QueryCanceled) as cancelled:
            running.result(10)
    assert cancelled.value.sqlstate == "57014"


def test_a_cancel_request_with_an_unknown_key_is_never_answered(raw: RawClient) -> None:
    raw.send(wire.cancel_request(bytes(8)))
    assert raw.read() is None


def test_both_secrets_of_a_rotation_open_the_door(socket: Path) -> None:
    (first,) = OWNER.credential.secrets
    second = make_secret("second", 1, PEPPERS[1], base64.b64decode(first.scram.salt))
    rotating = dataclasses.replace(OWNER.credential, secrets=(first, second))
    record = dataclasses.replace(instance("relational"), credentials=(rotating,))
    with Border(ENGINE, socket, [record]).listening() as border:
        for password in (OWNER.password, "second"):
            psycopg.connect(dsn(border, password=password)).close()
