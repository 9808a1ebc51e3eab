"""What DynamoDB says: types, statuses, messages."""

from __future__ import annotations

import pytest

from engines.keyvalue.errors import (
    NATIVE,
    conditional_failed,
    serialization,
    throughput_exceeded,
    transaction_canceled,
    translated,
    validation,
)
from engines.kit.errors import Reason, RequestError


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_code_and_a_body(reason: Reason) -> None:
    error = translated(RequestError(reason, "why", hint="what to do"))
    assert error.code == NATIVE[reason].code
    assert error.body()["__type"].endswith("#" + error.code)


def test_the_type_names_the_part_of_the_service() -> None:
    assert validation("x").body() == {
        "__type": "com.amazon.coral.validate#ValidationException",
        "message": "x",
    }
    assert serialization("x").body() == {
        "__type": "com.amazon.coral.service#SerializationException",
        "Message": "x",
    }
    assert serialization().body() == {"__type": "com.amazon.coral.service#SerializationException"}


def test_only_what_can_be_tried_again_is_not_the_clients_fault() -> None:
    statuses = {reason: translated(RequestError(reason, "x")).http_status for reason in Reason}
    assert {reason for reason, status in statuses.items() if status >= 500} == {
        Reason.BACKEND,
        Reason.INTERNAL,
        Reason.SHUTDOWN,
        Reason.TIMEOUT,
    }


def test_a_refusal_keeps_when_to_try_again() -> None:
    error = RequestError(Reason.RATE, "slow down", retry_after_s=0.5)
    assert translated(error).retry_after_s == 0.5
    assert throughput_exceeded(0.25).retry_after_s == 0.25


def test_a_failed_condition_shows_the_item_only_on_request() -> None:
    assert "Item" not in conditional_failed().body()
    assert conditional_failed({"a": {"S": "x"}}).body()["Item"] == {"a": {"S": "x"}}


def test_a_canceled_transaction_names_the_reason_of_each_entry() -> None:
    body = transaction_canceled([{"Code": "None"}, {"Code": "ConditionalCheckFailed"}]).body()
    assert body["message"].endswith("[None, ConditionalCheckFailed]")
    assert len(body["CancellationReasons"]) == 2
