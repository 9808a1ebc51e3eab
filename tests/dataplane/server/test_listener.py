"""From the accepted socket to the relay, against a real worker: TLS and plain on one port,
routing by SNI, client certificates, bounds and deadlines of a connection that is no session yet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from engines.kit.records import Credential, InstanceRecord, Role
from tests.dataplane.certificates import Authority
from tests.dataplane.plane import (
    Client,
    ControlDatabase,
    Plane,
    elapsed,
    instance,
    key,
    metric,
    named_user,
    until,
)
from tests.servers import PostgresServer, RedisServer, temporary_home

NewPlane = Callable[..., Plane]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure_plane(
    postgres: PostgresServer, redis: RedisServer, authority: Authority
) -> Iterator[Plane]:
    """A data plane with TLS that knows a CA for clients."""
    certificate, private_key = authority.issue("server")
    with temporary_home("wkd") as home:
        plane = Plane(
            home,
            ControlDatabase(postgres, "dataplane_secure"),
            redis,
            tls={"cert": certificate, "key": private_key, "ca": authority.ca},
            bounds={"handshake_timeout_s": 0.5, "sign_in_timeout_s": 1.5},
        )
        plane.start()
        yield plane
        plane.close()


@pytest.fixture
async def secure(secure_plane: Plane) -> AsyncIterator[Plane]:
    secure_plane.begin_test()
    yield secure_plane
    await secure_plane.close_parts()


async def known(plane: Plane, record: InstanceRecord) -> InstanceRecord:
    """Publish a record and run its server."""
    record = await plane.know(record)
    await plane.serve(record)
    return record


async def sign_in(client: Client, credential: Credential, password: str, *rest: str) -> str:
    words = " ".join((credential.username, password, *rest))
    return await client.ask(f"LOGIN {words}")


async def test_tls_and_plain_clients_share_one_port(secure: Plane, authority: Authority) -> None:
    credential, password = key()
    record = await known(secure, instance(credential))
    for tls in (None, authority.client()):
        client = await secure.connect(tls=tls, server_name="localhost" if tls else "")
        answer = (await sign_in(client, credential, password)).split()
        assert answer[0] == "OK"
        assert answer[2:] == [record.handle, "write"]
        assert await client.ask("r hello") == "r hello"


async def test_tls_can_be_asked_for_in_the_engines_own_way(
    secure: Plane, authority: Authority
) -> None:
    credential, password = key()
    await known(secure, instance(credential))
    client = await secure.connect()
    assert await client.ask("TLS") == "OK"
    await client.writer.start_tls(authority.client(), server_hostname="localhost")
    assert (await sign_in(client, credential, password)).startswith("OK")


async def test_without_a_certificate_tls_is_declined_and_plain_goes_on(plane: Plane) -> None:
    credential, password = key()
    await known(plane, instance(credential))
    client = await plane.connect()
    assert await client.ask("TLS") == "NO"
    assert (await sign_in(client, credential, password)).startswith("OK")


async def test_sni_routes_and_an_unknown_name_does_not_matter(
    secure: Plane, authority: Authority
) -> None:
    first, first_password = key()
    second, _ = key()
    blue = await known(secure, instance(first, handle="blue"))
    await known(secure, instance(second, handle="green"))
    for name in ("blue.db.test", "BLUE.db.test", "nobody.example.org", "localhost"):
        client = await secure.connect(tls=authority.client(), server_name=name)
        assert (await sign_in(client, first, first_password)).split()[2] == blue.handle
    client = await secure.connect(tls=authority.client(), server_name="green.db.test")
    assert (await sign_in(client, first, first_password)).startswith("ERR unauthenticated")


async def test_sni_names_the_instance_of_a_plain_user(secure: Plane, authority: Authority) -> None:
    await known(secure, instance(named_user("app", "secret-of-red"), handle="red"))
    client = await secure.connect(tls=authority.client(), server_name="red.db.test")
    assert (await client.ask("LOGIN app secret-of-red")).split()[2] == "red"
    client = await secure.connect(tls=authority.client(), server_name="localhost")
    assert (await client.ask("LOGIN app secret-of-red")).startswith("ERR unauthenticated")


async def test_a_client_certificate_proves_its_common_name(
    secure: Plane, authority: Authority
) -> None:
    await known(
        secure, instance(named_user("robot", "unused-secret"), handle="iron", auth_method="mtls")
    )
    signed_in = await secure.connect(
        tls=authority.client(authority.issue("robot")), server_name="iron.db.test"
    )
    assert (await signed_in.ask("LOGIN robot unused-secret")).startswith("OK")
    for certificate in (authority.issue("human"), None):
        client = await secure.connect(tls=authority.client(certificate), server_name="iron.db.test")
        answer = await client.ask("LOGIN robot unused-secret")
        assert answer.startswith("ERR unauthenticated")
    plain = await secure.connect()
    assert (await plain.ask("LOGIN robot unused-secret iron")).startswith("ERR unauthenticated")


async def test_a_certificate_of_another_ca_fails_the_handshake(
    secure: Plane, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger CA").issue("robot")
    client: Client | None = None
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        client = await secure.connect(tls=authority.client(stranger), server_name="localhost")
        # TLS 1.3 lets the client believe in success until it reads.
        assert await client.rest() in ("", "reset")
    await until(lambda: len(secure.logged("no_session")) == 1, "the refusal is logged")


async def test_sighup_takes_a_new_certificate_for_new_connections(
    secure: Plane, authority: Authority
) -> None:
    async def presented() -> bytes:
        client = await secure.connect(tls=authority.client(), server_name="localhost")
        certificate: bytes = client.writer.get_extra_info("ssl_object").getpeercert(True)
        return certificate

    old = await presented()
    authority.issue("server")
    assert secure.master is not None
    os.kill(secure.master.pid, signal.SIGHUP)
    await until(lambda: len(secure.logged("certificate_reloaded")) == 1, "the reload")
    assert await presented() != old


async def test_bytes_smuggled_behind_the_request_for_tls_are_not_taken_as_plain_text(
    secure: Plane,
) -> None:
    """CVE-2021-23214: what came before TLS must not count as said inside of it."""
    credential, password = key()
    await known(secure, instance(credential))
    client = await secure.connect()
    client.writer.write(f"TLS\nLOGIN {credential.username} {password}\n".encode())
    assert await client.line() == "OK"
    assert "OK" not in await client.rest()


@pytest.mark.parametrize("first_bytes", [b"", b"TL", b"LOGIN half a li"])
async def test_a_client_that_stops_in_the_middle_is_cut_off_at_the_deadline(
    new_plane: NewPlane, first_bytes: bytes
) -> None:
    plane = new_plane(bounds={"handshake_timeout_s": 0.2, "sign_in_timeout_s": 0.5})
    plane.start()
    client = await plane.connect()
    took = elapsed()
    client.writer.write(first_bytes)
    assert await client.rest() in ("", "reset")
    assert 0.1 < took() < 3.0
    page = plane.admin("/metrics")[1]
    assert metric(page, "weftkit_handshakes_open") == 0


async def test_a_tls_handshake_that_stops_is_cut_off_at_the_deadline(secure: Plane) -> None:
    client = await secure.connect()
    took = elapsed()
    client.writer.write(b"\x16\x03\x01\x02\x00\x01")
    assert await client.rest() in ("", "reset")
    assert 0.3 < took() < 3.0


async def test_a_client_that_vanishes_amid_its_sign_in_leaves_no_session(plane: Plane) -> None:
    credential, password = key()
    record = await plane.know(instance(credential))
    client = await plane.connect()
    client.send(f"LOGIN {credential.username} {password}")
    # Admitted, and waiting for the instance's server.
    await until(lambda: len(plane.logged("signed_in")) == 1, "the proof was taken")
    await client.close()
    await plane.serve(record)
    await until(lambda: len(plane.logged("session_ended")) == 1, "the session is gone")
    assert metric(plane.admin("/metrics")[1], "weftkit_connections_open") == 0


async def test_a_client_that_drips_bytes_meets_the_same_deadline(new_plane: NewPlane) -> None:
    plane = new_plane(bounds={"handshake_timeout_s": 0.2, "sign_in_timeout_s": 0.6})
    plane.start()
    client = await plane.connect()
    took = elapsed()

    async def drip() -> None:
        while not client.writer.is_closing():
            client.writer.write(b"L")
            await asyncio.tasks.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert await client.rest() in ("", "reset")
    assert took() < 3.0
    dripping.cancel()


async def test_a_line_beyond_its_bound_is_refused_before_it_is_kept(plane: Plane) -> None:
    client = await plane.connect()
    client.writer.write(b"LOGIN " + b"x" * 100_000)
    assert (await client.rest()).startswith("ERR limit") or client.reader.at_eof()


async def test_a_client_that_says_nothing_and_leaves_costs_nothing(plane: Plane) -> None:
    client = await plane.connect()
    await client.close()
    await until(lambda: len(plane.logged("no_session")) == 1, "its end was seen")
    assert metric(plane.admin("/metrics")[1], "weftkit_handshakes_open") == 0


async def test_unfinished_sign_ins_of_one_address_are_bounded(new_plane: NewPlane) -> None:
    plane = new_plane(bounds={"handshakes_per_address_max": 3, "handshake_timeout_s": 5.0})
    plane.start()
    waiting = [await plane.connect() for _ in range(3)]
    refused = await plane.connect()
    assert await refused.rest() in ("", "reset")
    await waiting[0].close()
    await until(
        lambda: metric(plane.admin("/metrics")[1], "weftkit_handshakes_open") == 2, "room for one"
    )
    admitted = await plane.connect()
    assert (await admitted.ask("LOGIN a b")).startswith("ERR unauthenticated")


async def test_connections_of_a_worker_are_bounded(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    record = database.publish(instance(credential))
    plane = new_plane(bounds={"connections_max": 2})
    plane.start()
    await plane.serve(record)
    held = [await plane.login(credential, password) for _ in range(2)]
    refused = await plane.connect()
    assert await refused.rest() in ("", "reset")
    assert await held[0].ask("r still here") == "r still here"


async def test_a_taken_port_is_named(new_plane: NewPlane) -> None:
    plane = new_plane()
    with socket.socket() as other:
        other.bind(("127.0.0.1", plane.port))
        other.listen()
        plane.start(until_ready=False)
        await until(lambda: len(plane.logged("port_taken")) > 0, "the complaint")
    assert str(plane.port) in plane.logged("port_taken")[0]["error"]


async def test_unknown_names_and_wrong_passwords_read_alike(plane: Plane) -> None:
    credential, _ = key(Role.READ)
    await known(plane, instance(credential))
    wrong = await plane.connect()
    unknown = await plane.connect()
    answers = {
        await wrong.ask(f"LOGIN {credential.username} wrong"),
        await unknown.ask("LOGIN wk_aaaaaaaaaaaa wrong"),
    }
    assert answers == {"ERR unauthenticated sign-in failed"}
    await until(lambda: len(plane.logged("sign_in_failed")) == 2, "both are logged")
