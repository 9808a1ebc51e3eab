"""boto3 for one new instance of a data plane."""

from __future__ import annotations

import asyncio
from typing import Any

import boto3
from botocore.config import Config

from engines.kit.records import InstanceRecord
from tests.dataplane.keyvalue_plane import access_key, new_instance, secret_of
from tests.dataplane.plane import Plane


class Clients:
    """What boto3 offers for one new instance."""

    def __init__(self, plane: Plane) -> None:
        credential = access_key()
        self.plane = plane
        self.record: InstanceRecord = asyncio.run(plane.know(new_instance(plane, credential)))
        self._settings: dict[str, Any] = {
            "region_name": "eu-west-1",
            "endpoint_url": f"http://127.0.0.1:{plane.port}",
            "aws_access_key_id": credential.username,
            "aws_secret_access_key": secret_of(credential),
            "config": Config(retries={"max_attempts": 0}, read_timeout=20),
        }
        self.client = boto3.client("dynamodb", **self._settings)
        self.streams = boto3.client("dynamodbstreams", **self._settings)
        self.resource = boto3.resource("dynamodb", **self._settings)

    def close(self) -> None:
        for each in (self.client, self.streams, self.resource.meta.client):
            each.close()

    def another(self) -> Any:
        """Return a client with connections of its own."""
        return boto3.session.Session().client("dynamodb", **self._settings)
