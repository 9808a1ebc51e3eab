"""Drains deliver every event in order, at least once, to real receivers, whoever dies meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from django.db import connection, connections
from django.utils import timezone
from moto.server import ThreadedMotoServer
from standardwebhooks import Webhook

from tenants.audit import drain_targets, drains
from tenants.audit.chain import chains_link
from tenants.audit.drains import LEASE, batch_take, drain_run, drains_due
from tenants.audit.models import AuditDrain, AuditEvent, AuditLink
from tenants.audit.services import audit_write
from tests.servers import wait_until
from tests.tenants.cadf_schema import faults
from tests.tenants.cast import Cast, side_by_side, signed_in
from tests.tenants.receivers import Receiver, receiving

ROOT = Path(__file__).resolve().parents[2]
BASE = "/api/v1/tenants/acme/audit/drains"


@pytest.fixture(autouse=True)
def _loopback(settings: Any, tmp_path: Path) -> None:
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    settings.AUDIT_DRAIN_FOLDER = str(tmp_path / "drains")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def write(cast: Cast, count: int = 1) -> None:
    for number in range(count):
        audit_write(
            tenant_id=cast.acme.pk, action="weftkit.session.start",
            initiator=f"user:n{number}@example.org", target="console",
        )  # fmt: skip
    chains_link()


def make(cast: Cast, **wanted: Any) -> dict[str, Any]:
    body = {"name": "siem", "kind": "folder", **wanted}
    answer = signed_in(cast.alice).post(BASE, json.dumps(body), "application/json")
    assert answer.status_code == 201, answer.content
    # The making of it is an event too.
    chains_link()
    made: dict[str, Any] = answer.json()
    return made


def shown(cast: Cast) -> dict[str, Any]:
    (item,) = signed_in(cast.alice).get(BASE).json()["items"]
    return dict(item)


def run_all(later: timedelta = timedelta()) -> int:
    total = 0
    for drain_id in drains_due(now=timezone.now() + later):
        while count := drain_run(drain_id=drain_id, now=timezone.now() + later):
            total += count
    return total


def sequences(lines: bytes) -> list[int]:
    return [json.loads(line)["chain"]["sequence"] for line in lines.splitlines()]


def test_a_webhook_gets_signed_batches_in_order(cast: Cast, receiver: Receiver) -> None:
    write(cast, 3)
    secret = make(cast, kind="webhook", url=receiver.url)["secret"]
    assert secret.startswith("whsec_")
    write(cast, drain_targets.WebhookTarget.events_max)
    # What was there before is not asked for; the making of the drain came after.
    assert run_all() == 101
    told = []
    for headers, body in receiver.seen:
        message = Webhook(secret).verify(body, headers)
        assert message["type"] == "audit.events"
        places = [event["chain"]["sequence"] for event in message["data"]["events"]]
        assert (message["data"]["first"], message["data"]["last"]) == (places[0], places[-1])
        told += message["data"]["events"]
    assert len(receiver.seen) == 2
    assert [event.pop("chain")["sequence"] for event in told] == list(range(4, 105))
    assert all(faults(event) == [] for event in told)
    state = shown(cast)
    assert (state["delivered_to"], state["behind"], state["lag_s"]) == (104, 0, 0)
    assert run_all() == 0


def test_a_bucket_gets_an_object_a_batch(cast: Cast, s3: str) -> None:
    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="AKIATEST",
        aws_secret_access_key="the-secret",
    )  # fmt: skip
    client.create_bucket(Bucket="acme-audit")
    write(cast, 5)
    made = make(
        cast, kind="s3", bucket="acme-audit", prefix="weftkit/prod", region="us-east-1",
        endpoint_url=s3, access_key_id="AKIATEST", secret_access_key="the-secret",
        from_beginning=True,
    )  # fmt: skip
    assert made["secret"] == ""
    assert run_all() == 6
    (item,) = client.list_objects_v2(Bucket="acme-audit")["Contents"]
    day = timezone.now().strftime("%Y/%m/%d")
    assert item["Key"] == (f"weftkit/prod/tenant=acme/{day}/000000000001-000000000006.jsonl.gz")
    body = client.get_object(Bucket="acme-audit", Key=item["Key"])["Body"].read()
    assert sequences(gzip.decompress(body)) == [1, 2, 3, 4, 5, 6]
    client.close()


def test_a_bucket_that_is_not_there_says_so_and_nothing_is_lost(cast: Cast, s3: str) -> None:
    make(
        cast, kind="s3", bucket="no-such-bucket", region="us-east-1", endpoint_url=s3,
        access_key_id="AKIATEST", secret_access_key="the-secret",
    )  # fmt: skip
    write(cast)
    assert run_all() == 0
    state = shown(cast)
    assert "NoSuchBucket" in state["last_error"]
    assert (state["failures"], state["behind"], state["is_enabled"]) == (1, 2, True)


def files(settings: Any) -> list[Path]:
    return sorted(Path(settings.AUDIT_DRAIN_FOLDER).rglob("*.jsonl.gz"))


def test_a_folder_gets_a_file_a_batch(
    cast: Cast, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_targets.FolderTarget, "events_max", 4)
    make(cast, from_beginning=True)
    write(cast, 9)
    assert run_all() == 10
    found = [sequences(gzip.decompress(path.read_bytes())) for path in files(settings)]
    assert found == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_a_tenants_drain_never_gets_anothers_events(cast: Cast, settings: Any) -> None:
    make(cast, from_beginning=True)
    audit_write(tenant_id=cast.globex.pk, action="weftkit.session.start", initiator="x", target="c")
    audit_write(tenant_id=None, action="weftkit.session.start", initiator="x", target="c")
    chains_link()
    assert run_all() == 1
    (path,) = files(settings)
    (line,) = gzip.decompress(path.read_bytes()).splitlines()
    assert json.loads(line)["action"] == "weftkit.audit-drain.create"


def test_failures_back_off_and_a_success_forgets_them(cast: Cast, receiver: Receiver) -> None:
    make(cast, kind="webhook", url=receiver.url)
    receiver.will_answer(500)
    receiver.will_answer(503, Retry_After="1800")
    before = timezone.now()
    run_all()
    state = shown(cast)
    assert (state["failures"], state["last_error"]) == (1, "answered 500")
    due = AuditDrain.objects.get().due_at - before
    assert timedelta(seconds=5) <= due < timedelta(seconds=8)
    assert run_all() == 0
    assert len(receiver.seen) == 1
    run_all(later=timedelta(seconds=10))
    due = AuditDrain.objects.get().due_at - before
    assert timedelta(seconds=1799) <= due
    write(cast, 3)
    assert run_all(later=timedelta(hours=1)) == 1 + 3
    # The batch that failed is sent as it was; what came meanwhile goes in the next.
    assert receiver.message_ids[0] == receiver.message_ids[1] == receiver.message_ids[2]
    assert len(receiver.seen) == 4
    assert shown(cast)["failures"] == 0


def test_a_receiver_that_is_gone_pauses_the_drain_until_it_is_resumed(
    cast: Cast, receiver: Receiver
) -> None:
    made = make(cast, kind="webhook", url=receiver.url)
    receiver.will_answer(410)
    run_all()
    state = shown(cast)
    assert (state["is_enabled"], state["disabled_reason"]) == (False, "Paused: answered 410")
    assert run_all(later=timedelta(days=1)) == 0
    address = f"{BASE}/{made['id']}"
    answer = signed_in(cast.alice).patch(address, '{"is_enabled": true}', "application/json")
    assert answer.json()["is_enabled"] is True
    chains_link()
    assert run_all() == 2  # its making, its resuming
    assert shown(cast)["behind"] == 0


def test_a_drain_that_failed_for_days_is_paused(cast: Cast, receiver: Receiver) -> None:
    make(cast, kind="webhook", url=receiver.url)
    AuditDrain.objects.update(failing_since=timezone.now() - drains.FAILING_MAX, failures=99)
    receiver.will_answer(500)
    run_all()
    assert shown(cast)["is_enabled"] is False


def test_a_worker_that_dies_between_delivery_and_note_repeats_the_very_batch(
    cast: Cast, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(cast, kind="webhook", url=receiver.url)
    drain = AuditDrain.objects.get()

    def dies(**_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drains, "batch_delivered", dies)
        with pytest.raises(KeyboardInterrupt):
            drain_run(drain_id=drain.pk)
    write(cast, 5)
    assert drain_run(drain_id=drain.pk) == 0  # leased by the dead
    late = timezone.now() + LEASE
    assert drain_run(drain_id=drain.pk, now=late) == 1
    assert receiver.message_ids[0] == receiver.message_ids[1]
    assert receiver.seen[0][1] == receiver.seen[1][1]
    assert run_all() == 5


def test_who_comes_back_late_moves_nothing(cast: Cast, receiver: Receiver) -> None:
    make(cast, kind="webhook", url=receiver.url)
    drain = AuditDrain.objects.get()
    late = batch_take(drain_id=drain.pk, now=timezone.now())
    assert late is not None
    assert drain_run(drain_id=drain.pk, now=timezone.now() + LEASE) == 1
    write(cast, 2)
    drains.batch_failed(batch=late, error=drain_targets.DeliveryError("late"))
    drains.batch_delivered(batch=late)
    state = shown(cast)
    assert (state["delivered_to"], state["failures"], state["behind"]) == (1, 0, 2)


def test_workers_side_by_side_deliver_each_batch_once(
    lasting_cast: Cast, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_targets.WebhookTarget, "events_max", 2)
    make(lasting_cast, kind="webhook", url=receiver.url)
    write(lasting_cast, 11)
    drain_id = AuditDrain.objects.get().pk

    def worker() -> int:
        return sum(drain_run(drain_id=drain_id) for _ in range(6))

    counts = side_by_side(worker, worker, worker)
    rest = run_all()
    assert sum(count for count in counts if isinstance(count, int)) + rest == 12
    assert len(receiver.message_ids) == len(set(receiver.message_ids)) == 6
    connections.close_all()


RUN_ONE = """
import django; django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = {name!r}
settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
from tenants.audit.drains import drain_run, drains_due
for drain_id in drains_due():
    drain_run(drain_id=drain_id)
"""


def test_a_worker_killed_while_it_delivers_loses_nothing(
    lasting_cast: Cast, receiver: Receiver, postgres: Any
) -> None:
    make(lasting_cast, kind="webhook", url=receiver.url)
    receiver.hold = threading.Event()
    name = str(connection.settings_dict["NAME"])
    worker = subprocess.Popen(
        [sys.executable, "-c", RUN_ONE.format(name=name)],
        env={**os.environ, "WEFTKIT_DATABASE_URL": postgres.dsn(name)},
        cwd=ROOT,
    )
    try:
        wait_until(lambda: len(receiver.seen) == 1, "the batch is on its way")
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    receiver.hold.set()
    write(lasting_cast, 3)
    assert run_all() == 0
    assert run_all(later=LEASE) == 1 + 3
    assert receiver.message_ids[0] == receiver.message_ids[1]
    assert shown(lasting_cast)["behind"] == 0
    connections.close_all()


def test_lag_is_shown(cast: Cast) -> None:
    make(cast)
    write(cast, 4)
    old = timezone.now() - timedelta(hours=2)
    AuditEvent.objects.create(
        event_id="0193b2f0-0000-7000-8000-000000000001", tenant_id=cast.acme.pk, occurred_at=old,
        stored_at=old, body={"action": "weftkit.session.start", "dataEvent": False},
    )  # fmt: skip
    AuditDrain.objects.update(cursor=5)
    chains_link()
    state = shown(cast)
    assert state["behind"] == 1
    assert 7200 <= state["lag_s"] < 7260


def test_events_whose_time_was_over_before_they_were_delivered_are_skipped(
    cast: Cast, settings: Any
) -> None:
    make(cast, from_beginning=True)
    write(cast, 3)
    gone = list(AuditLink.objects.filter(sequence__lt=3).values_list("event_id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for table in ("audit_auditevent", "audit_auditlink"):
            cursor.execute(f"DELETE FROM {table} WHERE event_id = ANY(%s)", [gone])
        cursor.execute("SET session_replication_role = origin")
    assert run_all() == 2
    assert sequences(gzip.decompress(files(settings)[0].read_bytes())) == [3, 4]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"kind": "webhook"}, "url"),
        ({"kind": "webhook", "url": "http://10.0.0.1/x"}, "url"),
        ({"kind": "s3", "bucket": "UPPER", "access_key_id": "a"}, "bucket"),
        ({"kind": "s3", "bucket": "b-1", "access_key_id": "a", "prefix": "../x"}, "prefix"),
        (
            {
                "kind": "s3", "bucket": "b-1", "access_key_id": "a",
                "endpoint_url": "https://169.254.169.254/latest",
            },
            "endpoint_url",
        ),
        ({"kind": "fax"}, "kind"),
    ],
)  # fmt: skip
def test_a_drain_that_could_not_work_is_refused(
    cast: Cast, wanted: dict[str, Any], field: str
) -> None:
    body = json.dumps({"name": "x", **wanted})
    answer = signed_in(cast.alice).post(BASE, body, "application/json")
    assert answer.status_code == 400
    assert field in answer.json()["errors"]
    assert not AuditDrain.objects.exists()


def test_an_installation_without_a_folder_offers_none(cast: Cast, settings: Any) -> None:
    settings.AUDIT_DRAIN_FOLDER = ""
    answer = signed_in(cast.alice).post(BASE, '{"name": "x", "kind": "folder"}', "application/json")
    assert answer.status_code == 400


def test_names_are_unique_and_drains_are_few(cast: Cast) -> None:
    make(cast)
    client = signed_in(cast.alice)
    again = client.post(BASE, '{"name": "siem", "kind": "folder"}', "application/json")
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    for number in range(drains.PER_TENANT_MAX - 1):
        make(cast, name=f"d{number}")
    more = client.post(BASE, '{"name": "more", "kind": "folder"}', "application/json")
    assert (more.status_code, more.json()["code"]) == (409, "limit")


def test_no_secret_of_a_drain_is_shown_or_told(cast: Cast, receiver: Receiver) -> None:
    secret = make(cast, kind="webhook", url=receiver.url)["secret"]
    make(
        cast, name="s", kind="s3", bucket="acme-audit", access_key_id="AKIATEST",
        secret_access_key="very-secret-key",
    )  # fmt: skip
    listed = signed_in(cast.alice).get(BASE).content.decode()
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(event::text, ' ') FROM audit_auditevent AS event")
        (everything,) = cursor.fetchone()
        cursor.execute("SELECT string_agg(drain::text, ' ') FROM audit_auditdrain AS drain")
        (rows,) = cursor.fetchone()
    for hidden in (secret, secret.removeprefix("whsec_"), "very-secret-key"):
        assert hidden not in listed + everything + rows
    told = AuditEvent.objects.latest("event_id").body["requestData"]
    assert told == {"name": "s", "kind": "s3", "bucket": "acme-audit"}


def test_a_deleted_drain_delivers_no_more(cast: Cast, receiver: Receiver) -> None:
    made = make(cast, kind="webhook", url=receiver.url)
    assert signed_in(cast.alice).delete(f"{BASE}/{made['id']}").status_code == 204
    assert run_all() == 0
    assert receiver.seen == []
