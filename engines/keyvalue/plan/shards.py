"""Streams in the words of DynamoDB Streams: shards, sequence numbers, iterators, records.

A stream is one shard. A sequence number is a position in the change log in 40 digits, so that they
sort as texts, too. An iterator is opaque to clients: the stream's ARN, and where to go on.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engines.keyvalue.capacity import item_size
from engines.keyvalue.errors import not_found, validation
from engines.kit.changelog import Entry, Position
from engines.kit.errors import RequestError

ITERATOR_SECONDS = 15 * 60
_STREAM_ARN = re.compile(r"arn:aws:dynamodb:[^:]*:([0-9]{12}):table/([^/]+)/stream/([^/|]+)")
# The first two digits of a sequence number are the epoch, from 10 on: no text begins with 0.
_EPOCH_BASE = 10
_SEQUENCE = re.compile(r"([0-9]{2})([0-9]{19})([0-9]{19})")


@dataclass(frozen=True, slots=True)
class StreamName:
    """What an ARN names."""

    account_id: str
    table: str
    label: str


@dataclass(frozen=True, slots=True)
class Iterator:
    """Where a reader goes on. `is_horizon`: from whatever is the oldest record."""

    arn: str
    table_id: int
    position: Position
    issued_at: float
    is_horizon: bool = False

    def to_text(self) -> str:
        """Return the iterator as clients get it."""
        inner = [self.table_id, self.position.to_token(), self.issued_at, self.is_horizon]
        return f"{self.arn}|1|{urlsafe_b64encode(orjson.dumps(inner)).decode()}"

    @classmethod
    def from_text(cls, text: str) -> Iterator:
        """Read an iterator; raises DynamoError for what is none."""
        try:
            arn, version, encoded = text.split("|")
            table_id, token, issued_at, is_horizon = orjson.loads(urlsafe_b64decode(encoded))
            position = Position.from_token(token)
            is_right = (
                version == "1"
                and isinstance(table_id, int)
                and isinstance(issued_at, float | int)
                and isinstance(is_horizon, bool)
            )
        except (ValueError, TypeError, binascii.Error, AttributeError, RequestError) as error:
            raise validation("Invalid ShardIterator") from error
        if not is_right:
            raise validation("Invalid ShardIterator")
        return cls(arn, table_id, position, issued_at, is_horizon)


def stream_name(arn: str) -> StreamName:
    """Return what the ARN of a stream names; raises DynamoError for another ARN."""
    match = _STREAM_ARN.fullmatch(arn)
    if match is None:
        raise validation(f"Invalid StreamArn: {arn}")
    return StreamName(*match.groups())


def shard_id(table_id: int) -> str:
    """Return the id of a stream's only shard."""
    return f"shardId-{table_id:020d}-{table_id & 0xFFFFFFFF:08x}"


def sequence_number(position: Position) -> str:
    """Return a position in 40 digits."""
    return f"{position.epoch + _EPOCH_BASE:02d}{position.xid:019d}{position.n:019d}"


def position_of(number: str) -> Position:
    """Read a sequence number; raises DynamoError for what is none of ours."""
    match = _SEQUENCE.fullmatch(number)
    if match is None or int(match[1]) < _EPOCH_BASE:
        raise validation(f"Invalid SequenceNumber: {number}")
    return Position(int(match[1]) - _EPOCH_BASE, int(match[2]), int(match[3]))


def before(position: Position) -> Position:
    """Return a place from which the entry at `position` is the next one."""
    if position.n > 0:
        return Position(position.epoch, position.xid, position.n - 1)
    return Position(position.epoch, max(0, position.xid - 1), (1 << 63) - 1)


def record(entry: Entry, body: Mapping[str, Any], view: str, region: str) -> dict[str, Any]:
    """Return one record of GetRecords; `body` is the entry's (plan/changes.py)."""
    number = sequence_number(entry.position)
    images = {"Keys": body["k"]}
    if "n" in body:
        images["NewImage"] = body["n"]
    if "o" in body:
        images["OldImage"] = body["o"]
    made: dict[str, Any] = {
        "eventID": hashlib.md5(number.encode(), usedforsecurity=False).hexdigest(),
        "eventName": body["e"],
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": region,
        "dynamodb": {
            "ApproximateCreationDateTime": body["at"],
            **images,
            "SequenceNumber": number,
            "SizeBytes": sum(map(item_size, images.values())),
            "StreamViewType": view,
        },
    }
    if body.get("u") == "ttl":
        made["userIdentity"] = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    return made


def stream_not_found(arn: str) -> Exception:
    """There is no such stream, or it was closed more than a day ago."""
    return not_found(f"Requested resource not found: Stream: {arn} not found")
