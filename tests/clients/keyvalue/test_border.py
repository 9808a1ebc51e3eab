"""boto3 over the data plane's HTTP front: plain and TLS, two tenants, a cell that restarts."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from engines.kit.records import Credential
from tests.dataplane.certificates import Authority
from tests.dataplane.keyvalue_plane import access_key, keyvalue_plane, new_instance, secret_of
from tests.dataplane.plane import Plane
from tests.servers import (
    PostgresServer,
    RedisServer,
    as_service,
    run_postgres,
    temporary_home,
    wait_until,
)

SCHEMA: dict[str, Any] = {
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def client(
    plane: Plane, key: str, secret: str, *, ca: Path | None = None, attempts: int = 1
) -> Any:
    return boto3.client(
        "dynamodb",
        endpoint_url=f"http{'s' if ca else ''}://localhost:{plane.port}",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        verify=str(ca) if ca else None,
        config=Config(retries={"total_max_attempts": attempts}, max_pool_connections=20),
    )


def of(plane: Plane, credential: Credential, **how: Any) -> Any:
    return client(plane, credential.username, secret_of(credential), **how)


def published(plane: Plane, **changes: Any) -> Credential:
    """Publish a new instance and wait until its key is known."""
    credential = access_key()
    plane.database.publish(new_instance(plane, credential, **changes))
    probe = of(plane, credential)

    def is_known() -> bool:
        try:
            probe.list_tables()
        except ClientError:
            return False
        return True

    wait_until(is_known, "the instance is served")
    return credential


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, redis: RedisServer) -> Iterator[tuple[Plane, Path]]:
    with temporary_home("wkd") as home:
        authority = Authority(home)
        certificate, private_key = authority.issue("localhost")
        tls = {"cert": certificate, "key": private_key}
        with keyvalue_plane(home, postgres, redis, "kv_boto", tls=tls) as plane:
            yield plane, authority.ca


def test_boto3_writes_and_reads_over_plain_and_tls(served: tuple[Plane, Path]) -> None:
    plane, ca = served
    credential = published(plane)
    plain, secure = of(plane, credential), of(plane, credential, ca=ca)
    plain.create_table(TableName="things", **SCHEMA)
    plain.get_waiter("table_exists").wait(TableName="things")
    secure.put_item(TableName="things", Item={"id": {"S": "x"}, "b": {"B": b"\0\xff"}})
    found = plain.get_item(TableName="things", Key={"id": {"S": "x"}})
    assert found["Item"] == {"id": {"S": "x"}, "b": {"B": b"\0\xff"}}
    # boto3 has checked the CRC-32 of each answer.
    assert len(found["ResponseMetadata"]["RequestId"]) == 52


def test_alice_and_charlie_have_tables_of_one_name_and_nothing_in_common(
    served: tuple[Plane, Path],
) -> None:
    plane, _ = served
    alice, charlie = (published(plane, tenant=name) for name in ("alice", "charlie"))
    for credential, text in ((alice, "hers"), (charlie, "his")):
        mine = of(plane, credential)
        mine.create_table(TableName="things", **SCHEMA)
        mine.put_item(TableName="things", Item={"id": {"S": "x"}, "owner": {"S": text}})

    def owner(credential: Credential) -> str:
        got = of(plane, credential).get_item(TableName="things", Key={"id": {"S": "x"}})
        return str(got["Item"]["owner"]["S"])

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(owner, [alice, charlie] * 50))
    assert seen == ["hers", "his"] * 50
    stolen = client(plane, charlie.username, secret_of(alice))
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        stolen.list_tables()


def test_anonymous_keys_are_let_into_the_default_instance_of_default_alone(
    postgres: PostgresServer, redis: RedisServer
) -> None:
    toml = "[keyvalue]\nanonymous = true\n"
    with (
        temporary_home("wkd") as home,
        keyvalue_plane(home, postgres, redis, "kv_anonymous", toml=toml) as plane,
    ):
        wait_until(lambda: bool(plane.logged("anonymous_access")), "it is said in the log")
        other = published(plane, tenant="other")
        anybody = client(plane, "test", "test")
        # There is no default instance yet.
        with pytest.raises(ClientError, match="UnrecognizedClientException"):
            anybody.list_tables()
        mine = published(plane, tenant="default", is_default=True)
        anybody.create_table(TableName="free", **SCHEMA)
        assert of(plane, mine).list_tables()["TableNames"] == ["free"]
        assert of(plane, other).list_tables()["TableNames"] == []
        # A key that is known has to prove itself all the same.
        with pytest.raises(ClientError, match="UnrecognizedClientException"):
            client(plane, other.username, "wrong").list_tables()


def test_a_cell_that_restarts_is_an_error_that_sdks_retry_and_loses_nothing(
    redis: RedisServer, postgres: PostgresServer
) -> None:
    with contextlib.ExitStack() as held:
        cell = held.enter_context(run_postgres(held.enter_context(temporary_home("wkc"))))
        home = held.enter_context(temporary_home("wkd"))
        cell.create_database("cell")
        plane = held.enter_context(
            keyvalue_plane(home, cell, redis, "kv_restart", bounds={"cell_wait_s": 1.0})
        )
        credential = published(plane)
        once = of(plane, credential)
        once.create_table(TableName="things", **SCHEMA)
        once.put_item(TableName="things", Item={"id": {"S": "before"}})
        cell.process.send_signal(signal.SIGQUIT)
        cell.process.wait(30)
        with pytest.raises((ClientError, EndpointConnectionError)) as refused:
            once.get_item(TableName="things", Key={"id": {"S": "before"}})
        assert isinstance(refused.value, ClientError)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        again = subprocess.Popen(
            cell.process.args, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **as_service(),
        )  # fmt: skip
        held.callback(again.wait)
        held.callback(lambda: again.send_signal(signal.SIGINT))

        def is_back() -> bool:
            with contextlib.suppress(ClientError):
                return "Item" in once.get_item(TableName="things", Key={"id": {"S": "before"}})
            return False

        wait_until(is_back, "the cell serves again")
        once.put_item(TableName="things", Item={"id": {"S": "after"}})
