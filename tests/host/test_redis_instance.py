"""Redis instances under the real host: limits, users, adopt, crash, removal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from redis.exceptions import AuthenticationError, OutOfMemoryError, ResponseError

from dataplane.host import paths
from engines.kit.records import Desired, InstanceRecord, Limits
from tests.host.conftest import ControlPlane, HostProcess, make_credential, make_record
from tests.servers import wait_until

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance that the module's tests share."""
    record = control.publish(make_record("inmemory", "demo-inmemory"))
    control.wait(record, "running")
    yield record
    control.ask(latest(control, record), desired=Desired.ABSENT)


@pytest.fixture
def service(instance: InstanceRecord, host: HostProcess) -> Iterator[redis.Redis]:
    """A client that is signed in as the service user."""
    client = redis.Redis(**host.redis_arguments(instance))
    yield client
    client.close()


def latest(control: ControlPlane, record: InstanceRecord) -> InstanceRecord:
    """Return the record with a generation that is above everything observed."""
    return replace(
        record, generation=max(record.generation, control.observed(record)["generation"])
    )


def answers(host: HostProcess, record: InstanceRecord) -> bool:
    client = redis.Redis(**host.redis_arguments(record))
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
    finally:
        client.close()


def make_user(service: redis.Redis, name: str) -> None:
    """Make an ACL user as the data plane does at a sign-in."""
    service.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", "~*", "&*", "+@all")


def test_only_the_service_user_signs_in(
    instance: InstanceRecord, host: HostProcess, service: redis.Redis
) -> None:
    assert service.execute_command("ACL", "WHOAMI") == "weftkit"
    path = str(paths.redis_socket(host.run_dir, instance.instance_id))
    anonymous = redis.Redis(unix_socket_path=path, retry=None)
    with pytest.raises(AuthenticationError):
        anonymous.ping()
    anonymous.close()


def test_server_listens_on_its_socket_alone_and_keeps_an_append_only_file(
    instance: InstanceRecord, host: HostProcess, service: redis.Redis
) -> None:
    assert service.config_get("port") == {"port": "0"}
    assert service.config_get("appendonly") == {"appendonly": "yes"}
    assert service.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert service.config_get("save") == {"save": ""}
    assert service.config_get("databases") == {"databases": "16"}
    socket = paths.redis_socket(host.run_dir, instance.instance_id)
    assert socket.parent.stat().st_mode & 0o777 == 0o700


def test_server_says_nothing_of_where_it_lives(
    instance: InstanceRecord, host: HostProcess, service: redis.Redis
) -> None:
    service.config_set("slowlog-log-slower-than", 0)
    service.ping()
    shown = [
        service.execute_command(*command)
        for command in (
            ("INFO", "everything"), ("CLIENT", "LIST"), ("CLIENT", "INFO"), ("SLOWLOG", "GET"),
            ("CONFIG", "GET", "*file*"), ("CONFIG", "GET", "unixsocket"),
            ("CONFIG", "GET", "proc-title-template"),
        )
    ]  # fmt: skip
    service.config_set("slowlog-log-slower-than", 10_000)
    for path in (host.home, host.run_dir, "/usr/", ".venv"):
        assert str(path) not in str(shown)
    assert service.info("server")["executable"] == "/redis-server"
    assert service.info("server")["config_file"] == ""


def test_memory_and_policy_follow_the_plan_without_a_restart(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, service: redis.Redis
) -> None:
    before = host.redis_pid(instance)
    for policy, word in (("lru", "allkeys-lru"), ("lfu", "allkeys-lfu"), ("noeviction",) * 2):
        limits = Limits(memory_bytes=4 * MEBIBYTE, eviction_policy=policy, connections=7)
        control.ask(latest(control, instance), limits=limits)
        assert service.config_get("maxmemory-policy") == {"maxmemory-policy": word}
    assert service.config_get("maxmemory") == {"maxmemory": str(4 * MEBIBYTE)}
    assert service.config_get("maxclients") == {"maxclients": "39"}
    with pytest.raises(OutOfMemoryError):
        service.mset({f"k{n}": "x" * MEBIBYTE for n in range(6)})
        service.set("one more", "x")
    assert host.redis_pid(instance) == before
    service.flushall()
    control.ask(latest(control, instance), limits=Limits())


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_beyond_its_memory_an_evicting_instance_takes_writes_and_lets_old_keys_go(
    control: ControlPlane,
    host: HostProcess,
    instance: InstanceRecord,
    service: redis.Redis,
    policy: str,
) -> None:
    service.flushall()
    limits = Limits(memory_bytes=8 * MEBIBYTE, eviction_policy=policy)
    control.ask(latest(control, instance), limits=limits)
    before = service.info("stats")["evicted_keys"]
    for number in range(320):
        assert service.set(f"k{number}", "x" * 65536)
        assert service.get("k0" if number < 16 else f"k{number}")
    assert service.info("stats")["evicted_keys"] - before > 160
    assert 32 < service.dbsize() < 160
    assert service.info("memory")["used_memory"] < 9 * MEBIBYTE
    service.flushall()
    control.ask(latest(control, instance), limits=Limits())


def test_user_of_a_removed_or_disabled_credential_is_dropped_with_its_connections(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, service: redis.Redis
) -> None:
    kept, removed, disabled = (make_credential(name) for name in ("wk_a", "wk_b", "wk_c"))
    asked = control.ask(latest(control, instance), credentials=(kept, removed, disabled))
    for name in ("wk_a", "wk_b", "wk_c"):
        make_user(service, name)
    arguments = host.redis_arguments(instance) | {"username": "wk_b", "password": "secret"}
    session = redis.Redis(**arguments, single_connection_client=True)
    assert session.ping()
    control.ask(asked, credentials=(kept, replace(disabled, enabled=False)))
    assert set(service.acl_users()) == {"default", "weftkit", "wk_a"}
    with pytest.raises((redis.ConnectionError, ResponseError)):
        session.ping()
    session.close()


@pytest.mark.parametrize(
    ("script", "is_restarted"),
    [("while true do end", False), ("redis.call('SET', 'half', 1) while true do end", True)],
)
def test_script_that_never_ends_is_ended_and_nothing_acknowledged_is_lost(
    control: ControlPlane, host: HostProcess, script: str, is_restarted: bool
) -> None:
    limits = Limits(statement_timeout_ms=500)
    record = replace(make_record("inmemory", f"demo-script-{is_restarted}".lower()), limits=limits)
    control.publish(record)
    control.wait(record, "running")
    client = redis.Redis(**{**host.redis_arguments(record), "socket_timeout": 60})
    client.set("kept", "1")
    before = client.info("server")["run_id"]
    with pytest.raises((redis.ConnectionError, ResponseError)):
        client.eval(script, 0)
    client.close()
    wait_until(lambda: answers(host, record), "the server answers again")
    again = redis.Redis(**host.redis_arguments(record))
    assert (again.get("kept"), again.get("half")) == ("1", None)
    assert (again.info("server")["run_id"] != before) == is_restarted
    again.close()
    control.ask(latest(control, record), desired=Desired.ABSENT)


def test_user_that_no_record_explains_is_dropped_after_a_while(
    instance: InstanceRecord, service: redis.Redis
) -> None:
    make_user(service, "wk_stray")
    wait_until(lambda: "wk_stray" not in service.acl_users(), "the stray user is gone")
    assert {"default", "weftkit"} <= set(service.acl_users())


def test_killed_host_finds_the_same_server_again(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, service: redis.Redis
) -> None:
    before = host.redis_pid(instance)
    host.end(signal.SIGKILL)
    assert service.ping()
    host.start()
    control.ask(latest(control, instance))
    assert host.redis_pid(instance) == before


def test_killed_server_comes_back_with_what_was_on_disk(
    host: HostProcess, instance: InstanceRecord, service: redis.Redis
) -> None:
    service.set("colour", "green")

    def is_on_disk() -> bool:
        return service.info("persistence")["aof_pending_bio_fsync"] == 0

    wait_until(is_on_disk, "the append-only file is written")
    killed = host.redis_pid(instance)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: answers(host, instance), "the server is back")
    assert host.redis_pid(instance) != killed
    assert service.get("colour") == "green"


def test_stopped_and_started_instance_keeps_every_key(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord, service: redis.Redis
) -> None:
    service.mset({f"n{n}": n for n in range(1000)})
    stopped = control.ask(latest(control, instance), desired=Desired.STOPPED)
    assert not answers(host, instance)
    control.ask(stopped, desired=Desired.RUNNING)
    assert service.get("n999") == "999"


def test_pid_file_that_names_a_stranger_does_not_stop_the_start(
    control: ControlPlane, host: HostProcess, instance: InstanceRecord
) -> None:
    killed = host.redis_pid(instance)
    host.end(signal.SIGKILL)
    os.kill(killed, signal.SIGKILL)
    pid_file = paths.data_dir(host.home, instance.instance_id) / "data" / "redis.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    host.start()
    control.ask(latest(control, instance))
    assert answers(host, instance)
    assert host.redis_pid(instance) != os.getpid()


def test_data_of_a_newer_server_are_not_opened_by_an_older_one(
    control: ControlPlane, host: HostProcess
) -> None:
    record = control.publish(make_record("inmemory", "from-the-future"))
    control.wait(record, "running")
    stopped = control.ask(record, desired=Desired.STOPPED)
    version = paths.data_dir(host.home, record.instance_id) / "instance.json"
    version.write_text('{"server_version": [99, 0, 0]}')
    failed = control.publish(
        replace(stopped, desired=Desired.RUNNING, generation=stopped.generation + 1)
    )
    row = control.wait(failed, "failed")
    assert row["detail"] == "the data was written by a newer server version"
    control.ask(failed, desired=Desired.ABSENT)
    assert not version.parent.exists()
