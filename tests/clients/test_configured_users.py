"""Users of weftkit.toml, in each of the three methods: password, jwt, mtls."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.dataplane.certificates import Authority
from tests.servers import temporary_home
from tests.stack import Stack, run_stack

pytestmark = pytest.mark.stack

JWT_SECRET = "a secret of more than thirty-two bytes"
# redis-py takes a wrong password for a fault of the network and tries again.
ONCE = Retry(NoBackoff(), 0)
PASSWORDS = {"APP_DB_PASSWORD": "p@ss/word of app", "READONLY_PASSWORD": "only reading"}

USERS = """
[[auth.users]]
username = "app"
password = "env:APP_DB_PASSWORD"
roles = ["read", "write"]

[[auth.users]]
username = "readonly"
password = "env:READONLY_PASSWORD"
roles = ["read"]
"""


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., tuple[Stack, Path]]]:
    """Start a stack with a weftkit.toml of one's own; stop it at the end of the module."""
    with ExitStack() as held:
        running: list[ExitStack] = []

        def start_one(text: str, directory: Path | None = None) -> tuple[Stack, Path]:
            # One at a time: two stacks would share two cores.
            while running:
                running.pop().close()
            here = directory or held.enter_context(temporary_home("wkc"))
            here.chmod(0o755)
            (here / "weftkit.toml").write_text(text + USERS)
            own = held.enter_context(ExitStack())
            running.append(own)
            stack = own.enter_context(
                run_stack(
                    WEFTKIT_CONFIG=str(here / "weftkit.toml"),
                    JWT_SECRET=JWT_SECRET,
                    WEFTKIT_WORKERS="1",
                    **PASSWORDS,
                )
            )
            return stack, here

        yield start_one


def postgres(stack: Stack, **parameters: object) -> psycopg.Connection:
    """Connect to the default tenant's instance."""
    settings = {"host": "localhost", "port": 5432 + stack.offset, "dbname": "weftkit"}
    return psycopg.connect(autocommit=True, **{**settings, **parameters})


def token(**claims: object) -> str:
    """Sign a JWT with HS256 (RFC 7519)."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    body = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    signature = hmac.digest(JWT_SECRET.encode(), body, hashlib.sha256)
    return (body + b"." + part(signature)).decode()


def test_users_with_passwords_have_their_roles(start: Callable[..., tuple[Stack, Path]]) -> None:
    stack, _ = start("")
    with postgres(stack, user="app", password=PASSWORDS["APP_DB_PASSWORD"]) as app:
        assert app.execute("SELECT current_user").fetchone() == ("readwrite",)
    with (
        postgres(stack, user="readonly", password=PASSWORDS["READONLY_PASSWORD"]) as reader,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        reader.execute("CREATE TABLE t (n int)")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        postgres(stack, user="app", password=PASSWORDS["READONLY_PASSWORD"])
    # The spec's form for Redis: a password and no user name.
    port = 6379 + stack.offset
    client = redis.Redis(port=port, password=PASSWORDS["APP_DB_PASSWORD"])
    assert client.set("k", "v") is True
    reader_client = redis.Redis(port=port, password=PASSWORDS["READONLY_PASSWORD"])
    assert reader_client.get("k") == b"v"
    with pytest.raises(redis.exceptions.NoPermissionError):
        reader_client.set("k", "w")


def test_a_changed_password_is_in_force_after_the_next_start(
    start: Callable[..., tuple[Stack, Path]],
) -> None:
    stack, _ = start("")
    stack.down()
    stack.environment["APP_DB_PASSWORD"] = "another one"
    stack.up()
    with postgres(stack, user="app", password="another one") as app:
        assert app.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        postgres(stack, user="app", password=PASSWORDS["APP_DB_PASSWORD"])


def test_tokens_sign_in_where_the_method_is_jwt(start: Callable[..., tuple[Stack, Path]]) -> None:
    stack, _ = start('[auth]\nmethod = "jwt"\njwt_secret = "env:JWT_SECRET"\n')
    good = token(sub="app", exp=time.time() + 600)
    for bad in (
        token(sub="readonly", exp=time.time() + 600),
        token(sub="app", exp=time.time() - 5),
        token(sub="app"),
        good[:-4] + "AAAA",
        PASSWORDS["APP_DB_PASSWORD"],
    ):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            postgres(stack, user="app", password=bad, sslmode="require")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=6379 + stack.offset, username="app", password=bad, retry=ONCE).ping()
    with postgres(stack, user="app", password=good, sslmode="require") as app:
        assert app.execute("SELECT current_user").fetchone() == ("readwrite",)
    assert redis.Redis(port=6379 + stack.offset, username="app", password=good).ping() is True
    # A token in clear text is never asked for without TLS.
    with pytest.raises(psycopg.OperationalError, match="needs an encrypted connection"):
        postgres(stack, user="app", password=good, sslmode="disable")


def test_certificates_sign_in_where_the_method_is_mtls(
    start: Callable[..., tuple[Stack, Path]],
) -> None:
    with temporary_home("wkm") as directory:
        authority = Authority(directory)
        app, stranger = authority.issue("app"), Authority(directory, "other CA").issue("readonly")
        for path in directory.iterdir():
            path.chmod(0o644)
        text = f'[auth]\nmethod = "mtls"\n[tls]\nenabled = true\nca_file = "{authority.ca}"\n'
        stack, _ = start(text, directory)
        secure = {"sslmode": "verify-full", "sslrootcert": stack.ca}
        app[1].chmod(0o600)
        own = {"sslcert": str(app[0]), "sslkey": str(app[1])}
        with postgres(stack, user="app", **secure, **own) as session:
            assert session.execute("SELECT current_user").fetchone() == ("readwrite",)
        with pytest.raises(psycopg.OperationalError):
            postgres(stack, user="readonly", **secure, **own)
        with pytest.raises(psycopg.OperationalError):
            postgres(stack, user="app", **secure)
        stranger[1].chmod(0o600)
        foreign = {"sslcert": str(stranger[0]), "sslkey": str(stranger[1])}
        with pytest.raises(psycopg.OperationalError):
            postgres(stack, user="readonly", **secure, **foreign)
        client = redis.Redis(
            port=6379 + stack.offset, ssl=True, ssl_ca_certs=stack.ca,
            ssl_certfile=str(app[0]), ssl_keyfile=str(app[1]),
        )  # fmt: skip
        assert client.ping() is True
