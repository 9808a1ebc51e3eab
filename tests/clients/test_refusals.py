"""Who may not come in is told so in the protocol's own words, on both engines."""

from __future__ import annotations

import datetime

import psycopg
import pytest
import redis

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def relational(admin: Admin) -> Connection:
    """An instance of this module's own, so that suspending it disturbs nobody."""
    return admin.new_instance("relational", plan="unmetered")


@pytest.fixture(scope="module")
def inmemory(admin: Admin) -> Connection:
    """The same, for Redis."""
    return admin.new_instance("inmemory", plan="unmetered")


def refusal(row: Connection) -> str:
    """Return the error with which a client is refused; "" if it is let in."""
    try:
        if row.engine == "inmemory":
            redis.Redis.from_url(row.uri).ping()
        else:
            psycopg.connect(row.uri).close()
    except (psycopg.OperationalError, redis.RedisError) as refused:
        return str(refused)
    return ""


def test_an_unknown_instance_looks_like_a_wrong_password(stack: Stack) -> None:
    row = stack.connection("demo", "relational")
    known = row.uri.replace(row.password, "wrong")
    unknown = known.replace(row.user, "wk_aaaaaaaaaaaa")
    messages = []
    for uri, user in ((known, row.user), (unknown, "wk_aaaaaaaaaaaa")):
        with pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(uri)
        messages.append(str(refused.value).replace(user, "USER"))
    assert messages[0] == messages[1]
    assert 'password authentication failed for user "USER"' in messages[0]


def test_a_suspended_instance_says_so_and_resumes(
    admin: Admin, relational: Connection, inmemory: Connection
) -> None:
    for row in (relational, inmemory):
        admin.suspend(row.instance)
    assert "the instance is suspended" in refusal(relational)
    assert "the instance is suspended" in refusal(inmemory)
    for row in (relational, inmemory):
        admin.resume(row.instance)
    with psycopg.connect(relational.uri) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert redis.Redis.from_url(inmemory.uri).ping() is True


def test_suspending_ends_a_live_session(admin: Admin, relational: Connection) -> None:
    with psycopg.connect(relational.uri, autocommit=True) as connection:
        connection.execute("SELECT 1")
        admin.suspend(relational.instance)

        def is_refused() -> bool:
            try:
                connection.execute("SELECT 1")
            except psycopg.OperationalError:
                return True
            return False

        wait_until(is_refused, "the live session ends", 5)
    admin.resume(relational.instance)


def test_an_expired_key_is_refused_after_the_proof(
    admin: Admin, relational: Connection, inmemory: Connection
) -> None:
    for instance in (relational, inmemory):
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
        row = admin.new_credential(instance, expires_at=soon)
        wait_until(lambda row=row: "expired" in refusal(row), "it says expired", 10)


def test_a_forbidden_address_is_refused(
    admin: Admin, relational: Connection, inmemory: Connection
) -> None:
    for instance in (relational, inmemory):
        row = admin.new_credential(instance, cidrs=["10.9.8.0/24"])
        wait_until(lambda row=row: "address" in refusal(row), "it says address", 5)


def test_an_instances_allowlist_holds_for_every_credential(
    admin: Admin, relational: Connection
) -> None:
    admin.change(relational.instance, allowlist=["10.9.8.0/24"])
    wait_until(lambda: "address" in refusal(relational), "the allowlist is in force", 5)
    admin.change(relational.instance, allowlist=[])
    wait_until(lambda: refusal(relational) == "", "the allowlist is lifted", 5)


def test_roles_bind_in_both_engines(
    admin: Admin, relational: Connection, inmemory: Connection
) -> None:
    with psycopg.connect(relational.uri, autocommit=True) as owner:
        owner.execute("CREATE TABLE IF NOT EXISTS shared (n int)")
    reader = admin.new_credential(relational, role="read")
    writer = admin.new_credential(relational, role="write")
    wait_until(lambda: refusal(writer) == "", "the new credentials are published", 5)
    with psycopg.connect(writer.uri, autocommit=True) as connection:
        connection.execute("INSERT INTO shared VALUES (1)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TABLE shared")
    with psycopg.connect(reader.uri, autocommit=True) as connection:
        assert connection.execute("SELECT n FROM shared").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO shared VALUES (2)")
    row = admin.new_credential(inmemory, role="read")
    wait_until(lambda: refusal(row) == "", "the credential is published", 5)
    viewer = redis.Redis.from_url(row.uri)
    with pytest.raises(redis.exceptions.NoPermissionError):
        viewer.set("k", "v")
    assert viewer.get("k") is None
