"""Webhooks: the outbox, signatures, retries, where they may go; with real receivers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core import mail
from django.db import connection, transaction
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from deploy.local.certificates import make_certificates
from tenants.core.errors import InvalidError, LimitError
from tenants.iam.expiry import keys_expiring_tell
from tenants.iam.services import api_key_create
from tenants.webhooks.delivery import (
    FAILING_MAX,
    PAUSES,
    PER_ENDPOINT_MAX,
    Lane,
    deliveries_run,
    lane_run,
    webhooks_forget,
)
from tenants.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookEvent
from tenants.webhooks.sending import trusted
from tenants.webhooks.services import (
    ENDPOINTS_PER_TENANT_MAX,
    delivery_redeliver,
    endpoint_change,
    endpoint_create,
    endpoint_test,
    secret_rotate,
    webhook_emit,
)
from tests.servers import wait_until
from tests.tenants.cast import Cast, serving_instance
from tests.tenants.receivers import Receiver, receiving

ROOT = Path(__file__).resolve().parents[2]
STATUS = {"instance": "acme-shop", "status": "running"}


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def endpoint_at(cast: Cast, url: str, *types: str) -> tuple[WebhookEndpoint, str]:
    return endpoint_create(
        tenant=cast.acme, actor="user:alice@example.org", url=url, event_types=types
    )


def emit(cast: Cast, **data: Any) -> Any:
    return webhook_emit(tenant=cast.acme, event_type="instance.status", data={**STATUS, **data})


def only_delivery() -> WebhookDelivery:
    return WebhookDelivery.objects.select_related("endpoint").get()


def make_due() -> None:
    WebhookDelivery.objects.update(due_at=timezone.now())


def test_an_event_arrives_signed_so_that_the_standards_library_takes_it(
    cast: Cast, receiver: Receiver
) -> None:
    _, secret = endpoint_at(cast, receiver.url)
    event_id = emit(cast)
    assert deliveries_run() == 1
    ((headers, body),) = receiver.seen
    assert Webhook(secret).verify(body, headers)["data"] == STATUS
    assert headers["webhook-id"] == f"msg_{event_id.hex}"
    assert json.loads(body)["type"] == "instance.status"
    assert only_delivery().state == "delivered"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace("running", "stopped"), headers)


def test_only_endpoints_of_the_tenant_that_want_the_type_hear_of_it(
    cast: Cast, receiver: Receiver
) -> None:
    endpoint_at(cast, receiver.url, "invoice.final")
    endpoint_create(tenant=cast.globex, actor="c", url=receiver.url)
    assert emit(cast) is None
    assert not WebhookEvent.objects.exists()
    webhook_emit(tenant=cast.acme, event_type="invoice.final", data={"invoice": "2026-11"})
    assert only_delivery().endpoint.tenant_id == cast.acme.pk


def test_an_event_of_a_transaction_that_fails_is_not_told(cast: Cast, receiver: Receiver) -> None:
    endpoint_at(cast, receiver.url)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        emit(cast)
        raise ZeroDivisionError
    assert deliveries_run() == 0
    assert receiver.seen == []


def test_both_secrets_sign_while_they_rotate_and_only_the_new_one_afterwards(
    cast: Cast, receiver: Receiver
) -> None:
    endpoint, old = endpoint_at(cast, receiver.url)
    endpoint, new = secret_rotate(endpoint=endpoint, grace=timedelta(hours=1))
    emit(cast)
    deliveries_run()
    headers, body = receiver.seen[-1]
    assert Webhook(old).verify(body, headers) == Webhook(new).verify(body, headers)
    WebhookEndpoint.objects.update(old_secret_ends_at=timezone.now())
    emit(cast)
    deliveries_run()
    headers, body = receiver.seen[-1]
    Webhook(new).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(body, headers)


def test_no_secret_stands_in_the_database(cast: Cast, receiver: Receiver) -> None:
    endpoint, secret = endpoint_at(cast, receiver.url)
    assert secret.startswith("whsec_")
    assert secret.removeprefix("whsec_") not in endpoint.secret_sealed


def test_a_failure_is_tried_again_later_under_the_same_id_and_logged(
    cast: Cast, receiver: Receiver
) -> None:
    endpoint_at(cast, receiver.url)
    emit(cast)
    receiver.will_answer(500, b"broken\0" + b"x" * 5000)
    before = timezone.now()
    deliveries_run()
    delivery = only_delivery()
    assert (delivery.state, delivery.attempts) == ("pending", 1)
    assert PAUSES[0] <= delivery.due_at - before <= PAUSES[0] * 1.2 + timedelta(seconds=5)
    assert deliveries_run() == 0
    make_due()
    deliveries_run()
    assert only_delivery().state == "delivered"
    assert len(receiver.message_ids) == 2
    assert len(set(receiver.message_ids)) == 1
    first, second = only_delivery().tries.order_by("id")
    assert (first.status, first.error, second.status) == (500, "answered 500", 204)
    assert first.response_excerpt.startswith("broken\ufffdxxx")
    assert len(first.response_excerpt) == 1000


def test_retry_after_is_honoured_within_a_day(cast: Cast, receiver: Receiver) -> None:
    endpoint_at(cast, receiver.url)
    emit(cast)
    for given, wait in (("3600", timedelta(hours=1)), ("9999999", timedelta(hours=24))):
        receiver.will_answer(429, Retry_After=given)
        before = timezone.now()
        make_due()
        deliveries_run()
        assert wait <= only_delivery().due_at - before < wait + timedelta(seconds=60)


def test_all_pauses_together_last_days_and_then_it_is_given_up(
    cast: Cast, receiver: Receiver
) -> None:
    assert timedelta(days=3) < sum(PAUSES, timedelta()) < timedelta(days=4)
    endpoint_at(cast, receiver.url)
    emit(cast)
    for _ in range(len(PAUSES) + 1):
        receiver.will_answer(503)
        make_due()
        assert deliveries_run() == 1
    assert only_delivery().state == "failed"
    make_due()
    assert deliveries_run() == 0


def test_410_switches_the_endpoint_off_and_the_administrators_are_told(
    cast: Cast, receiver: Receiver, django_capture_on_commit_callbacks: Any
) -> None:
    endpoint, _ = endpoint_at(cast, receiver.url)
    other, _ = endpoint_at(cast, receiver.url, "webhook.disabled")
    emit(cast)
    receiver.will_answer(410)
    with django_capture_on_commit_callbacks(execute=True):
        deliveries_run()
    endpoint.refresh_from_db()
    assert not endpoint.is_enabled
    assert "410" in endpoint.disabled_reason
    assert emit(cast) is None
    (letter,) = mail.outbox
    assert letter.to == ["alice@example.org"]
    deliveries_run()
    _, body = receiver.seen[-1]
    assert json.loads(body)["data"]["endpoint_id"] == str(endpoint.pk)
    assert other.deliveries.get().state == "delivered"


def test_days_of_failures_switch_the_endpoint_off_and_a_member_switches_it_on_again(
    cast: Cast, receiver: Receiver
) -> None:
    endpoint, _ = endpoint_at(cast, receiver.url)
    emit(cast)
    receiver.will_answer(500)
    WebhookEndpoint.objects.update(failing_since=timezone.now() - FAILING_MAX)
    deliveries_run()
    endpoint.refresh_from_db()
    assert not endpoint.is_enabled
    assert only_delivery().state == "failed"
    endpoint = endpoint_change(endpoint=endpoint, changes={"is_enabled": True})
    assert (endpoint.disabled_reason, endpoint.failing_since) == ("", None)
    delivery_redeliver(delivery=only_delivery())
    deliveries_run()
    assert only_delivery().state == "delivered"


def test_a_test_event_goes_to_its_endpoint_alone_whatever_that_listens_to(
    cast: Cast, receiver: Receiver
) -> None:
    endpoint_at(cast, receiver.url)
    endpoint, _ = endpoint_at(cast, receiver.url, "invoice.final")
    assert endpoint_test(endpoint=endpoint).endpoint_id == endpoint.pk
    deliveries_run()
    assert [json.loads(body)["type"] for _, body in receiver.seen] == ["webhook.test"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/x", "use https"),
        ("https://127.0.0.1/", "not a public address"),
        ("https://10.1.2.3/", "not a public address"),
        ("https://169.254.169.254/latest", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://[::ffff:127.0.0.1]/", "not a public address"),
        ("https://[64:ff9b::7f00:1]/", "not a public address"),
        ("https://2130706433/", "not a public address"),
        ("https://0x7f.1/", "not a public address"),
        ("https://user:word@example.org/", "no user and password"),
        ("ftp://example.org/", "https://"),
        ("https://example.org:99999/", "not an address"),
        ("https://exa mple.org/", "printable ASCII"),
    ],
)
def test_an_address_inside_is_refused(cast: Cast, settings: Any, url: str, why: str) -> None:
    settings.WEBHOOK_NETWORKS = []
    with pytest.raises(InvalidError) as refused:
        endpoint_at(cast, url)
    assert why in refused.value.fields["url"][0]


def test_a_name_that_leads_inside_is_refused_when_it_is_used(
    cast: Cast, settings: Any, receiver: Receiver
) -> None:
    settings.WEBHOOK_NETWORKS = []
    port = receiver.url.split(":")[2].split("/")[0]
    endpoint_at(cast, f"https://localhost:{port}/")
    emit(cast)
    deliveries_run()
    assert "not a public address" in only_delivery().tries.get().error
    assert receiver.seen == []


def test_a_redirect_is_not_followed(cast: Cast, receiver: Receiver) -> None:
    endpoint_at(cast, receiver.url)
    emit(cast)
    receiver.will_answer(302, Location=receiver.url)
    deliveries_run()
    assert len(receiver.seen) == 1
    assert "redirects are not followed" in only_delivery().tries.get().error


def test_a_tenant_has_so_many_endpoints_and_no_more(cast: Cast) -> None:
    for index in range(ENDPOINTS_PER_TENANT_MAX):
        endpoint_at(cast, f"https://example.org/{index}")
    with pytest.raises(LimitError):
        endpoint_at(cast, "https://example.org/more")


def test_old_deliveries_are_forgotten_and_waiting_ones_are_not(
    cast: Cast, receiver: Receiver
) -> None:
    endpoint_at(cast, receiver.url)
    emit(cast)
    deliveries_run()
    emit(cast)
    later = timezone.now() + timedelta(days=31)
    webhooks_forget(now=later)
    assert only_delivery().state == "pending"
    assert WebhookEvent.objects.count() == 1


def test_a_key_that_expires_within_a_week_is_told_of_once_for_each_date(
    cast: Cast, receiver: Receiver
) -> None:
    now = timezone.now()
    made = api_key_create(
        actor=cast.owner, name="ci", is_own=True, expires_at=now + timedelta(days=3)
    )
    assert keys_expiring_tell() == 0  # nobody listens
    endpoint_at(cast, receiver.url, "api_key.expiring")
    assert keys_expiring_tell(now=now - timedelta(days=5)) == 0
    assert [keys_expiring_tell() for _ in range(2)] == [1, 0]
    assert WebhookEvent.objects.get().data["key_id"] == made.api_key.key_id
    made.api_key.expires_at = now + timedelta(days=4)
    made.api_key.save()
    assert keys_expiring_tell() == 1


def test_an_instance_tells_of_each_status(cast: Cast, receiver: Receiver, settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0
    endpoint_at(cast, receiver.url, "instance.status")
    instance = serving_instance(cast.acme)
    (event,) = WebhookEvent.objects.all()
    assert event.data == {"instance": instance.handle, "status": "active", "before": "provisioning"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_the_certificate_must_be_of_the_name_although_the_address_is_pinned(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    make_certificates(tmp_path, "localhost")  # and for 127.0.0.1
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    trusted.cache_clear()
    with receiving(tmp_path, host) as receiver:
        endpoint_at(cast, receiver.url)
        emit(cast)
        deliveries_run()
        attempt = only_delivery().tries.get()
    trusted.cache_clear()
    if host == "127.0.0.1":  # asked for as localhost
        assert (attempt.status, receiver.seen[0][0]["host"]) == (204, receiver.url.split("/")[2])
    else:
        assert "certificate verify failed" in attempt.error
        assert receiver.seen == []


def test_a_receiver_that_never_ends_its_answer_is_left_in_time(
    cast: Cast, receiver: Receiver, settings: Any
) -> None:
    settings.WEBHOOK_TIMEOUT_S = 0.5
    receiver.stall = threading.Event()
    endpoint_at(cast, receiver.url)
    emit(cast)
    started = time.monotonic()
    deliveries_run()
    assert time.monotonic() - started < 5
    assert only_delivery().tries.get().error == "no answer within 0.5 seconds"


def test_a_heap_for_one_endpoint_keeps_no_other_waiting(cast: Cast, receiver: Receiver) -> None:
    endpoint_at(cast, receiver.url)
    for _ in range(3 * PER_ENDPOINT_MAX):
        emit(cast)
    other, _ = endpoint_create(tenant=cast.globex, actor="c", url=receiver.url)
    endpoint_test(endpoint=other)
    assert deliveries_run() == PER_ENDPOINT_MAX + 1
    assert other.deliveries.get().state == "delivered"


def test_each_lane_has_one_runner_and_failing_receivers_have_their_own(
    lasting_cast: Cast, receiver: Receiver, postgres: Any
) -> None:
    endpoint_at(lasting_cast, receiver.url)
    emit(lasting_cast)
    receiver.will_answer(500)
    assert lane_run(Lane.FAILING, batches=4) == 0
    with psycopg.connect(postgres.dsn(str(connection.settings_dict["NAME"]))) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [Lane.WORKING.value])
        assert lane_run(Lane.WORKING, batches=4) == 0
        # A server notices some time later that a session has gone.
        other.execute("SELECT pg_advisory_unlock(%s)", [Lane.WORKING.value])
    assert lane_run(Lane.WORKING, batches=4) == 1
    make_due()
    assert lane_run(Lane.WORKING, batches=4) == 0
    assert lane_run(Lane.FAILING, batches=4) == 1
    assert only_delivery().state == "delivered"


RUN_ONE = """
import django; django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = {name!r}
settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
from tenants.webhooks.delivery import deliveries_run
print(deliveries_run(), flush=True)
"""


def test_a_worker_killed_while_it_sends_loses_nothing(
    lasting_cast: Cast, receiver: Receiver, postgres: Any
) -> None:
    endpoint_at(lasting_cast, receiver.url)
    emit(lasting_cast)
    receiver.hold = threading.Event()
    name = str(connection.settings_dict["NAME"])
    environment = {**os.environ, "WEFTKIT_DATABASE_URL": postgres.dsn(name)}
    worker = subprocess.Popen(
        [sys.executable, "-c", RUN_ONE.format(name=name)], env=environment, cwd=ROOT
    )
    try:
        wait_until(lambda: len(receiver.seen) == 1, "the message is on its way")
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    receiver.hold.set()
    delivery = only_delivery()
    assert (delivery.state, delivery.attempts) == ("pending", 1)
    assert deliveries_run() == 0  # leased by the dead
    assert deliveries_run(now=delivery.due_at) == 1
    assert only_delivery().state == "delivered"
    assert len(receiver.seen) == 2
    assert len(set(receiver.message_ids)) == 1
