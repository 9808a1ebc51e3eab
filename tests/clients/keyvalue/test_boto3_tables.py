"""boto3 on tables, streams, time to live and backups, with its waiters and paginators."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.clients.keyvalue.clients import Clients
from tests.servers import wait_until

SCHEMA: dict[str, Any] = {
    "AttributeDefinitions": [
        {"AttributeName": "artist", "AttributeType": "S"},
        {"AttributeName": "song", "AttributeType": "S"},
    ],
    "KeySchema": [
        {"AttributeName": "artist", "KeyType": "HASH"},
        {"AttributeName": "song", "KeyType": "RANGE"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
}


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_waiters_return_at_once(kv: Clients) -> None:
    started = time.monotonic()
    kv.client.create_table(TableName="music", **SCHEMA)
    kv.client.get_waiter("table_exists").wait(TableName="music")
    kv.client.delete_table(TableName="music")
    kv.client.get_waiter("table_not_exists").wait(TableName="music")
    assert time.monotonic() - started < 15
    with pytest.raises(kv.client.exceptions.ResourceNotFoundException):
        kv.client.describe_table(TableName="music")


def test_the_resource_makes_fills_and_queries_a_table(kv: Clients) -> None:
    table = kv.resource.create_table(TableName="music", **SCHEMA)
    table.wait_until_exists()
    with table.batch_writer() as batch:
        for number in range(60):
            batch.put_item(Item={"artist": f"a{number % 3}", "song": f"{number:03}", "n": number})
    assert table.item_count == 0
    table.reload()
    assert table.item_count == 60
    assert table.table_status == "ACTIVE"
    assert [each.name for each in kv.resource.tables.all()] == ["music"]
    table.delete()
    table.wait_until_not_exists()


def test_tables_are_paged(kv: Clients) -> None:
    names = [f"t{number:02}" for number in range(7)]
    for name in names:
        kv.client.create_table(TableName=name, **SCHEMA)
    pages = kv.client.get_paginator("list_tables").paginate(PaginationConfig={"PageSize": 3})
    assert [page["TableNames"] for page in pages] == [names[:3], names[3:6], names[6:]]


def test_an_index_is_added_and_used(kv: Clients) -> None:
    kv.client.create_table(TableName="music", **SCHEMA)
    for number in range(30):
        item = {"artist": {"S": "x"}, "song": {"S": str(number)}, "year": {"N": str(number % 3)}}
        kv.client.put_item(TableName="music", Item=item)
    kv.client.update_table(
        TableName="music",
        AttributeDefinitions=[{"AttributeName": "year", "AttributeType": "N"}],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": "of_year",
                    "KeySchema": [{"AttributeName": "year", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            }
        ],
    )
    wait_until(
        lambda: kv.client.describe_table(TableName="music")["Table"]["TableStatus"] == "ACTIVE",
        "the index is there",
    )
    got = kv.client.query(
        TableName="music",
        IndexName="of_year",
        KeyConditionExpression="#y = :y",
        ExpressionAttributeNames={"#y": "year"},
        ExpressionAttributeValues={":y": {"N": "2"}},
    )
    assert got["Count"] == 10


def test_a_stream_is_followed_as_the_documentation_does(kv: Clients) -> None:
    made = kv.client.create_table(
        TableName="music",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        **SCHEMA,
    )
    arn = made["TableDescription"]["LatestStreamArn"]
    assert [each["StreamArn"] for each in kv.streams.list_streams()["Streams"]] == [arn]
    description = kv.streams.describe_stream(StreamArn=arn)["StreamDescription"]
    assert description["StreamStatus"] == "ENABLED"
    key = {"artist": {"S": "x"}, "song": {"S": "y"}}
    kv.client.put_item(TableName="music", Item=key | {"n": {"N": "1"}})
    kv.client.delete_item(TableName="music", Key=key)
    records = []
    for shard in description["Shards"]:
        place = kv.streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records += kv.streams.get_records(ShardIterator=place)["Records"]
    assert [each["eventName"] for each in records] == ["INSERT", "REMOVE"]
    assert records[0]["dynamodb"]["NewImage"] == key | {"n": {"N": "1"}}
    assert records[0]["awsRegion"] == "eu-west-1"
    assert abs(records[0]["dynamodb"]["ApproximateCreationDateTime"].timestamp() - time.time()) < 60


def test_expired_items_leave_the_table_and_a_record_of_the_service(kv: Clients) -> None:
    made = kv.client.create_table(
        TableName="music",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
        **SCHEMA,
    )
    kv.client.put_item(
        TableName="music",
        Item={
            "artist": {"S": "x"},
            "song": {"S": "y"},
            "ends": {"N": str(int(time.time()) - 1)},
        },
    )
    kv.client.update_time_to_live(
        TableName="music", TimeToLiveSpecification={"Enabled": True, "AttributeName": "ends"}
    )
    wait_until(lambda: kv.client.scan(TableName="music")["Count"] == 0, "the item is gone")
    shown = kv.client.describe_time_to_live(TableName="music")["TimeToLiveDescription"]
    assert shown == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ends"}
    arn = made["TableDescription"]["LatestStreamArn"]
    (shard,) = kv.streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    place = kv.streams.get_shard_iterator(
        StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = kv.streams.get_records(ShardIterator=place)["Records"]
    assert records[-1]["userIdentity"] == {
        "PrincipalId": "dynamodb.amazonaws.com",
        "Type": "Service",
    }


def test_a_backup_is_made_listed_and_restored(kv: Clients) -> None:
    kv.client.create_table(TableName="music", **SCHEMA)
    item = {"artist": {"S": "x"}, "song": {"S": "y"}}
    kv.client.put_item(TableName="music", Item=item)
    arn = kv.client.create_backup(TableName="music", BackupName="first")["BackupDetails"][
        "BackupArn"
    ]

    def status() -> str:
        shown = kv.client.describe_backup(BackupArn=arn)["BackupDescription"]
        return str(shown["BackupDetails"]["BackupStatus"])

    wait_until(lambda: status() == "AVAILABLE", "the backup is there")
    pages = kv.client.get_paginator("list_backups").paginate(TableName="music")
    assert [each["BackupArn"] for page in pages for each in page["BackupSummaries"]] == [arn]
    kv.client.restore_table_from_backup(TargetTableName="again", BackupArn=arn)
    wait_until(
        lambda: kv.client.describe_table(TableName="again")["Table"]["TableStatus"] == "ACTIVE",
        "the table is restored",
    )
    assert kv.client.scan(TableName="again")["Items"] == [item]
    with pytest.raises(ClientError) as error:
        kv.client.restore_table_to_point_in_time(
            SourceTableName="music", TargetTableName="then", UseLatestRestorableTime=True
        )
    assert code(error) == "PointInTimeRecoveryUnavailableException"


def test_tags_limits_and_endpoints(kv: Clients) -> None:
    made = kv.client.create_table(TableName="music", Tags=[{"Key": "team", "Value": "a"}], **SCHEMA)
    arn = made["TableDescription"]["TableArn"]
    kv.client.tag_resource(ResourceArn=arn, Tags=[{"Key": "stage", "Value": "b"}])
    pages = kv.client.get_paginator("list_tags_of_resource").paginate(ResourceArn=arn)
    tags = {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}
    assert tags == {"team": "a", "stage": "b"}
    assert kv.client.describe_limits()["TableMaxReadCapacityUnits"] == 40_000
    (endpoint,) = kv.client.describe_endpoints()["Endpoints"]
    assert endpoint["Address"] == f"127.0.0.1:{kv.plane.port}"


def test_what_is_not_offered_says_so(kv: Clients) -> None:
    kv.client.create_table(TableName="music", **SCHEMA)
    with pytest.raises(ClientError, match="WeftKit does not support global tables") as error:
        kv.client.create_global_table(
            GlobalTableName="music", ReplicationGroup=[{"RegionName": "eu-west-1"}]
        )
    assert code(error) == "ValidationException"
    assert kv.client.list_global_tables()["GlobalTables"] == []
    assert kv.client.list_exports()["ExportSummaries"] == []
