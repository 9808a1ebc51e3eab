"""How programs connect to an instance: snippets with the real host, port and user, by engine.

A new engine adds a row to `SNIPPETS`; without one its page shows connection string and command.
Each is a whole program: the tests run those of Python as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from urllib.parse import quote

from tenants.instances.selectors import Connection


@dataclass(frozen=True, slots=True)
class Snippet:
    """One driver's snippet; `name` is unique in an engine, and good for an id."""

    name: str
    label: str
    text: str


# engine -> (name, label, text). $uri $uri_pooled $host $port $username $password $one_liner
SNIPPETS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "inmemory": (
        ("redis-cli", "redis-cli", "$one_liner"),
        (
            "redis-py",
            "Python: redis-py",
            """import redis

client = redis.Redis.from_url("$uri", decode_responses=True)
client.set("greeting", "hello")
print(client.get("greeting"))""",
        ),
        (
            "ioredis",
            "Node.js: ioredis",
            """const Redis = require("ioredis");

const client = new Redis("$uri");
client.set("greeting", "hello")
  .then(() => client.get("greeting"))
  .then((value) => { console.log(value); client.disconnect(); });""",
        ),
    ),
    "keyvalue": (
        ("aws-cli", "AWS CLI", "$one_liner"),
        (
            "boto3",
            "Python: boto3",
            """import boto3

client = boto3.client(
    "dynamodb",
    endpoint_url="$uri",
    region_name="us-east-1",
    aws_access_key_id="$username",
    aws_secret_access_key="$password",
)
print(client.list_tables()["TableNames"])""",
        ),
        (
            "boto3-resource",
            "Python: boto3, resources",
            """import boto3

dynamodb = boto3.resource(
    "dynamodb",
    endpoint_url="$uri",
    region_name="us-east-1",
    aws_access_key_id="$username",
    aws_secret_access_key="$password",
)
print([table.name for table in dynamodb.tables.all()])""",
        ),
        (
            "aws-sdk",
            "Node.js: AWS SDK 3",
            """const { DynamoDBClient, ListTablesCommand } = require("@aws-sdk/client-dynamodb");

const client = new DynamoDBClient({
  endpoint: "$uri",
  region: "us-east-1",
  credentials: { accessKeyId: "$username", secretAccessKey: "$password" },
});
client.send(new ListTablesCommand({})).then((answer) => console.log(answer.TableNames));""",
        ),
    ),
    "relational": (
        ("psql", "psql", "$one_liner"),
        (
            "psycopg",
            "Python: psycopg",
            """import psycopg

with psycopg.connect("$uri") as connection:
    print(connection.execute("SELECT version()").fetchone()[0])""",
        ),
        (
            "asyncpg",
            "Python: asyncpg",
            """import asyncio

import asyncpg


async def main():
    connection = await asyncpg.connect("$uri")
    print(await connection.fetchval("SELECT version()"))
    await connection.close()


asyncio.run(main())""",
        ),
        (
            "sqlalchemy",
            "Python: SQLAlchemy",
            """from sqlalchemy import create_engine, text

engine = create_engine("$uri_sqlalchemy")
with engine.connect() as connection:
    print(connection.execute(text("SELECT version()")).scalar())""",
        ),
        (
            "django",
            "Python: Django",
            """DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "$host",
        "PORT": $port,
        "NAME": "$database",
        "USER": "$username",
        "PASSWORD": "$password",
    }
}""",
        ),
        (
            "node",
            "Node.js: pg",
            """const { Client } = require("pg");

const client = new Client({ connectionString: "$uri" });
client.connect()
  .then(() => client.query("SELECT version()"))
  .then((result) => { console.log(result.rows[0].version); return client.end(); });""",
        ),
    ),
}


def snippets_of(engine: str, connection: Connection) -> list[Snippet]:
    """Return an engine's snippets for one user."""
    address = connection.uri
    password = connection.password
    values = {
        "uri": address,
        "uri_sqlalchemy": address.replace("postgresql://", "postgresql+psycopg://", 1),
        "uri_pooled": connection.uri_pooled,
        "host": connection.host,
        "port": connection.port,
        "username": connection.username,
        "password": password,
        "database": quote(address.rpartition("/")[2]),
        "one_liner": connection.one_liner,
    }
    return [
        Snippet(name, label, Template(text).substitute(values))
        for name, label, text in SNIPPETS.get(engine, ())
    ]
