"""DynamoDB's border in a real worker: methods, targets, signatures, checksums, one refusal each.

What DynamoDB says to whom is public knowledge as mhart/dynalite's tests have it.
"""

from __future__ import annotations

import dataclasses
import gzip
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from engines.kit.records import InstanceRecord, Limits, Role
from tests.dataplane.keyvalue_plane import (
    Signer,
    access_key,
    http,
    keyvalue_plane,
    new_instance,
    secret_of,
)
from tests.dataplane.plane import Plane
from tests.dataplane.server.web.http_client import Answer, RawClient
from tests.servers import PostgresServer, RedisServer, temporary_home

BOUNDS = {"linger_s": 0.5, "spare_after_s": 0.0}
CORAL = "com.amazon.coral.service"
JSON = {"content-type": "application/json"}
LIST = "DynamoDB_20120810.ListTables"
UNPROVEN = {
    "__type": f"{CORAL}#UnrecognizedClientException",
    "message": "The security token included in the request is invalid.",
}
MISSING = {
    "__type": f"{CORAL}#MissingAuthenticationTokenException",
    "message": "Request is missing Authentication Token",
}


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, redis: RedisServer) -> Iterator[Plane]:
    with (
        temporary_home("wkd") as home,
        keyvalue_plane(home, postgres, redis, "kv_border", bounds=BOUNDS) as plane,
    ):
        yield plane


@dataclasses.dataclass
class Case:
    plane: Plane
    record: InstanceRecord
    signer: Signer
    client: RawClient

    async def ask(self, operation: str, fields: Any = None, **further: Any) -> Answer:
        return await self.client.ask(self.signer.request(operation, fields or {}, **further))


@pytest.fixture
async def case(served: Plane) -> AsyncIterator[Case]:
    served.begin_test()
    credential = access_key()
    record = await served.know(new_instance(served, credential))
    client = await RawClient.open(served)
    yield Case(served, record, Signer.of(credential), client)
    await client.close()
    await served.close_parts()


def crc_holds(answer: Answer) -> bool:
    return answer.headers["x-amz-crc32"] == str(zlib.crc32(answer.body))


async def test_a_signed_operation_is_performed(case: Case) -> None:
    answer = await case.ask("ListTables")
    assert (answer.status, answer.json) == (200, {"TableNames": []})
    assert re.fullmatch("[0-9A-Z]{52}", answer.headers["x-amzn-requestid"])
    assert answer.headers["content-type"] == "application/x-amz-json-1.0"
    assert crc_holds(answer)
    other = await case.ask("ListTables")
    assert other.headers["x-amzn-requestid"] != answer.headers["x-amzn-requestid"]


async def test_items_are_written_and_read_back(case: Case) -> None:
    schema = {
        "TableName": "people",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    assert (await case.ask("CreateTable", schema)).status == 200
    item = {"id": {"S": "é"}, "n": {"N": "1"}}
    assert (await case.ask("PutItem", {"TableName": "people", "Item": item})).status == 200
    key = {"TableName": "people", "Key": {"id": {"S": "é"}}}
    assert (await case.ask("GetItem", key)).json == {"Item": item}


async def test_streams_have_a_target_of_their_own(case: Case) -> None:
    answer = await case.ask("DynamoDBStreams_20120810.ListStreams")
    assert (answer.status, answer.json) == (200, {"Streams": []})
    wrong = await case.ask("DynamoDB_20120810.ListStreams")
    assert wrong.json == {"__type": f"{CORAL}#UnknownOperationException"}


@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        ("OPTIONS", {}, b""),
        ("PUT", {}, b""),
        ("DELETE", {}, b""),
        ("POST", {}, b"hi"),
        ("POST", {"content-type": "whatever"}, b"hi"),
        ("POST", {"content-type": "application/x-amz-json-1.1"}, b"hi"),
        ("POST", {"content-type": "application/jsonasdf"}, b"hi"),
    ],
)
async def test_what_is_not_of_this_protocol_is_not_found(
    case: Case, method: str, headers: dict[str, str], body: bytes
) -> None:
    answer = await case.client.ask(http(headers, body, method=method))
    assert (answer.status, answer.body) == (404, b"<UnknownOperationException/>\n")
    assert answer.headers["x-amz-crc32"] == "3552371480"
    assert "x-amzn-requestid" in answer.headers


async def test_get_says_healthy(case: Case) -> None:
    answer = await case.client.ask(http({}, method="GET"))
    assert answer.body == b"healthy: dynamodb.us-east-1.amazonaws.com "
    assert answer.headers["x-amz-crc32"] == "3128867991"


async def test_cors_is_answered_to_whoever_names_an_origin(case: Case) -> None:
    asked = {
        "origin": "x", "access-control-request-headers": "a, b",
        "access-control-request-method": "d",
    }  # fmt: skip
    answer = await case.client.ask(http(asked, method="OPTIONS"))
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "a, b"
    assert answer.headers["access-control-allow-methods"] == "d"
    assert answer.headers["access-control-max-age"] == "172800"
    assert answer.headers["content-length"] == "0"
    refused = await case.client.ask(http({"origin": "x"}))
    assert refused.headers["access-control-allow-origin"] == "*"
    assert refused.status == 400


INCOMPLETE = f"{CORAL}#IncompleteSignatureException"
REQUIRES = "Authorization header requires "
IN_QUERY = "AWS query-string parameters must include "
BOTH = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
SIGNED = "AWS4-HMAC-SHA256 Credential=a/20200101/r/dynamodb/aws4_request,"


@pytest.mark.parametrize(
    ("headers", "target", "body", "expected"),
    [
        (JSON, "/", b"hi", {"__type": f"{CORAL}#SerializationException"}),
        ({"content-type": " application/json ; x"}, "/", b"hi",
         {"__type": f"{CORAL}#SerializationException"}),
        (JSON | {"x-amz-target": LIST, "authorization": "AWS4"}, "/", b"hi",
         {"__type": f"{CORAL}#SerializationException"}),
        ({}, "/", b"", {"__type": f"{CORAL}#UnknownOperationException"}),
        (JSON, "/", b"{}", {"__type": f"{CORAL}#UnknownOperationException"}),
        ({"x-amz-target": "DynamoDB_20120810.ListTable"}, "/", b"",
         {"__type": f"{CORAL}#UnknownOperationException"}),
        ({"x-amz-target": LIST}, "/", b"", MISSING),
        ({"x-amz-target": LIST, "authorization": "AWS4"}, "/", b"", MISSING),
        ({"x-amz-target": LIST, "authorization": "X"}, "/?X-Amz-Algorith", b"", MISSING),
        ({"x-amz-target": LIST}, "/?X-Amz-Credential=a&X-Amz-Signature=b&X-Amz-Date=d", b"",
         MISSING),
        ({"x-amz-target": LIST, "authorization": "X"}, "/?X-Amz-Algorithm", b"",
         {"__type": f"{CORAL}#InvalidSignatureException", "message": BOTH}),
        ({"x-amz-target": LIST, "authorization": "AWS4-"}, "/", b"",
         {"__type": INCOMPLETE, "message": f"{REQUIRES}'Credential' parameter. {REQUIRES}"
          f"'Signature' parameter. {REQUIRES}'SignedHeaders' parameter. {REQUIRES}existence of "
          "either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-"}),
        ({"x-amz-target": LIST, "authorization": "AWS4- Signature=b, Credential=a", "date": "a"},
         "/", b"", {"__type": INCOMPLETE, "message": f"{REQUIRES}'SignedHeaders' parameter. "
                    "Authorization=AWS4- Signature=b, Credential=a"}),
        ({"x-amz-target": LIST}, "/?X-Amz-Algorithm", b"",
         {"__type": INCOMPLETE, "message": "".join(f"{IN_QUERY}'X-Amz-{name}'. " for name in (
             "Algorithm", "Credential", "Signature", "SignedHeaders", "Date"))
          + "Re-examine the query-string parameters."}),
        ({"x-amz-target": LIST},
         "/?X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Signature=c&X-Amz-Date=d", b"",
         {"__type": INCOMPLETE, "message": f"{IN_QUERY}'X-Amz-SignedHeaders'. "
          "Re-examine the query-string parameters."}),
        ({"x-amz-target": LIST, "date": "a", "authorization":
          "AWS4-HMAC-SHA25 Credential=a/b, SignedHeaders=host, Signature=c"}, "/", b"",
         {"__type": INCOMPLETE, "message": "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA25' (only "
          "AWS4-HMAC-SHA256 for now). Authorization=AWS4-HMAC-SHA25 Credential=a/b, "
          "SignedHeaders=host, Signature=c"}),
        ({"x-amz-target": LIST, "date": "a", "authorization":
          "AWS4-HMAC-SHA256 Credential=a/b/c/d, SignedHeaders=host, Signature=c"}, "/", b"",
         {"__type": INCOMPLETE, "message": "Credential must have exactly 5 slash-delimited "
          "elements, e.g. keyid/date/region/service/term, got 'a/b/c/d'"}),
        ({"x-amz-target": LIST, "x-amz-date": "201", "authorization":
          f"{SIGNED} SignedHeaders=host;x-amz-date;x-amz-target, Signature={'0' * 64}"}, "/", b"",
         {"__type": INCOMPLETE, "message": "Date must be in ISO-8601 'basic format'. Got '201'. "
          "See http://en.wikipedia.org/wiki/ISO_8601"}),
        ({"x-amz-target": LIST, "x-amz-date": "20200101T000000Z", "authorization":
          f"{SIGNED} SignedHeaders=x-amz-date;x-amz-target, Signature={'0' * 64}"}, "/", b"",
         {"__type": f"{CORAL}#InvalidSignatureException", "message":
          "'Host' must be a 'SignedHeader' in the AWS Authorization."}),
        ({"x-amz-target": LIST, "x-amz-date": "20200102T000000Z", "authorization":
          f"{SIGNED} SignedHeaders=host;x-amz-date;x-amz-target, Signature={'0' * 64}"}, "/", b"",
         {"__type": f"{CORAL}#InvalidSignatureException", "message":
          "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
          "HTTP: '20200101' != '20200102', from '20200102T000000Z'."}),
    ],
)  # fmt: skip
async def test_each_refusal_has_its_turn_and_its_words(
    case: Case, headers: dict[str, str], target: str, body: bytes, expected: dict[str, str]
) -> None:
    answer = await case.client.ask(http(headers, body, target))
    assert (answer.status, answer.json) == (400, expected)
    assert answer.headers["content-type"] == "application/json"
    assert crc_holds(answer)


async def test_an_unknown_key_and_a_wrong_secret_are_told_apart_by_nothing(case: Case) -> None:
    wrong = dataclasses.replace(case.signer, secret="x" * 40)
    stranger = dataclasses.replace(case.signer, key="wk_aaaaaaaaaaaa")
    for signer in (wrong, stranger):
        answer = await case.client.ask(signer.request("ListTables", {}))
        assert (answer.status, answer.json) == (400, UNPROVEN)


async def test_what_was_changed_on_the_way_is_not_accepted(case: Case) -> None:
    request = case.signer.request("ListTables", {"Limit": 10})
    for old, new in ((b"Limit", b"limit"), (b"ListTables", b"DescribeLimits")):
        answer = await case.client.ask(request.replace(old, new))
        assert answer.json == UNPROVEN
    body = orjson.dumps({})
    headers = case.signer.headers(LIST, body)
    answer = await case.client.ask(http({**headers, "x-amz-security-token": "t"}, body))
    assert answer.json == UNPROVEN or "must be present and signed" in answer.json["message"]


@pytest.mark.parametrize("ahead_s", [-1000.0, 1000.0])
async def test_a_clock_that_is_off_is_told_to_whoever_holds_the_secret(
    case: Case, ahead_s: float
) -> None:
    case.signer.ahead_s = ahead_s
    answer = await case.ask("ListTables")
    assert answer.json["__type"] == f"{CORAL}#InvalidSignatureException"
    words = "Signature expired: " if ahead_s < 0 else "Signature not yet current: "
    assert answer.json["message"].startswith(words)
    case.signer.secret = "x" * 40
    assert (await case.ask("ListTables")).json == UNPROVEN


async def test_another_service_is_refused(case: Case) -> None:
    case.signer.service = "s3"
    answer = await case.ask("ListTables")
    assert answer.json["message"] == "Credential should be scoped to correct service: 'dynamodb'. "


async def test_both_secrets_of_a_rotation_are_good_and_a_dead_one_is_not(case: Case) -> None:
    old, new = access_key(version=1), access_key(version=2)
    credential = dataclasses.replace(old, secrets=old.secrets + new.secrets)
    record = await case.plane.know(new_instance(case.plane, credential))
    signers = [Signer(credential.username, secret_of(credential, n)) for n in range(2)]
    for signer in signers:
        assert (await case.client.ask(signer.request("ListTables", {}))).status == 200
    ended = dataclasses.replace(credential, secrets=credential.secrets[1:])
    await case.plane.know(dataclasses.replace(record, credentials=(ended,)))
    seen = [(await case.client.ask(signer.request("ListTables", {}))).status for signer in signers]
    assert seen == [400, 200]


async def test_alice_never_sees_what_charlie_has(case: Case) -> None:
    charlie = access_key()
    await case.plane.know(new_instance(case.plane, charlie, tenant="charlie"))
    schema = {
        "TableName": "secrets",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    theirs = Signer.of(charlie)
    assert (await case.client.ask(theirs.request("CreateTable", schema))).status == 200
    get = {"TableName": "secrets", "Key": {"id": {"S": "x"}}}
    # One connection, two access keys: each request is its own key's.
    for _ in range(3):
        assert (await case.ask("ListTables")).json == {"TableNames": []}
        mine = await case.ask("GetItem", get)
        assert mine.json["__type"].endswith("#ResourceNotFoundException")
        assert (await case.client.ask(theirs.request("GetItem", get))).json == {}
    # Nor with the other's key id under the own secret.
    mixed = dataclasses.replace(case.signer, key=charlie.username)
    assert (await case.client.ask(mixed.request("ListTables", {}))).json == UNPROVEN


async def test_a_role_that_reads_may_not_write(case: Case) -> None:
    reader = access_key(Role.READ)
    await case.plane.know(new_instance(case.plane, reader))
    signer = Signer.of(reader)
    put = {"TableName": "people", "Item": {"id": {"S": "1"}}}
    answer = await case.client.ask(signer.request("PutItem", put))
    assert answer.json["__type"] == f"{CORAL}#AccessDeniedException"


async def test_bodies_may_be_gzipped_and_bombs_are_refused(case: Case) -> None:
    packed = gzip.compress(orjson.dumps({"Limit": 5}))
    answer = await case.ask("ListTables", packed, further={"content-encoding": "gzip"})
    assert (answer.status, answer.json) == (200, {"TableNames": []})
    for bad in (gzip.compress(b" " * (17 * 1024 * 1024)), packed[:-3], b"nonsense"):
        answer = await case.ask("ListTables", bad, further={"content-encoding": "gzip"})
        # What is no JSON as it stands is told as such before anything else is looked at.
        assert answer.json["__type"] == f"{CORAL}#SerializationException"


async def test_long_answers_are_gzipped_for_whoever_takes_it(case: Case) -> None:
    answer = await case.ask("DescribeEndpoints", further={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    for number in range(8):
        schema = {
            "TableName": f"{'t' * 200}{number}",
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
        }
        assert (await case.ask("CreateTable", schema)).status == 200
    answer = await case.ask("ListTables", further={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert crc_holds(answer)
    assert len(orjson.loads(gzip.decompress(answer.body))["TableNames"]) == 8
    plain = await case.ask("ListTables")
    assert len(plain.json["TableNames"]) == 8


async def test_a_body_over_sixteen_mebibytes_is_too_large(case: Case) -> None:
    case.client.send(http(JSON, bytes(16 * 1024 * 1024 + 1)))
    answer = await case.client.answer()
    assert (answer.status, answer.headers["transfer-encoding"]) == (413, "chunked")


async def test_a_depth_bomb_is_no_json(case: Case) -> None:
    answer = await case.ask("PutItem", b"[" * 5_000_000)
    assert answer.json["__type"] == f"{CORAL}#SerializationException"
    assert (await case.ask("ListTables")).status == 200


async def test_an_idle_connection_makes_room_for_a_new_one(served: Plane) -> None:
    served.begin_test()
    credential = access_key()
    record = new_instance(served, credential, limits=Limits(connections=2))
    await served.know(record)
    signer = Signer.of(credential)
    clients = [await RawClient.open(served) for _ in range(4)]
    for client in clients:
        answer = await client.ask(signer.request("ListTables", {}))
        assert answer.status == 200
    # The two that were idle the longest have gone, and nobody else.
    for client in clients[:2]:
        assert await client.reader.read() == b""
        await client.close()
    for client in clients[2:]:
        assert (await client.ask(signer.request("ListTables", {}))).status == 200
        await client.close()
    await served.close_parts()
