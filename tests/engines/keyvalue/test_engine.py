"""The declaration: an address for SDKs, and a command that a shell takes as it stands."""

from __future__ import annotations

import dataclasses
import shlex

from engines.keyvalue.engine import ENGINE
from engines.kit.contract import Endpoint

ENDPOINT = Endpoint("db.example", 8000, "wk_abc", "s3cret/+=", "demo-keyvalue")


def test_the_connection_string_is_an_address_without_secrets() -> None:
    assert ENGINE.uri(ENDPOINT) == "http://db.example:8000"
    assert ENGINE.uri(dataclasses.replace(ENDPOINT, tls=True)) == "https://db.example:8000"


def test_the_command_gives_the_client_its_keys_and_the_authority() -> None:
    encrypted = dataclasses.replace(ENDPOINT, tls=True, ca_path="/home/x y/ca.crt")
    words = shlex.split(ENGINE.one_liner(encrypted))
    assert words[:4] == [
        "AWS_CA_BUNDLE=/home/x y/ca.crt",
        "AWS_ACCESS_KEY_ID=wk_abc",
        "AWS_SECRET_ACCESS_KEY=s3cret/+=",
        "AWS_DEFAULT_REGION=us-east-1",
    ]
    assert words[-1] == "https://db.example:8000"
    assert "AWS_CA_BUNDLE" not in ENGINE.one_liner(ENDPOINT)
