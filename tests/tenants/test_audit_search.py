"""Events are found, exported and verified through the API; each tenant's own, and none else's."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from tenants.audit import apis, exports, selectors
from tenants.audit.actions import Severity
from tenants.audit.anchors import signed_text
from tenants.audit.chain import chains_link, link_digest
from tenants.audit.models import AuditEvent, AuditLink
from tenants.audit.services import Asked, audit_write
from tests.tenants.cadf_schema import faults
from tests.tenants.cast import Cast, published, serving_instance, signed_in

BASE = "/api/v1/tenants/acme/audit"


def write(tenant_id: UUID, action: str, target: str, **facts: Any) -> None:
    asked = Asked(request_id=facts.pop("request_id", "req-00000000"))
    given = {"initiator": "user:alice@example.org", **facts}
    audit_write(tenant_id=tenant_id, action=action, target=target, asked=asked, **given)


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def told(cast: Cast) -> Cast:
    """Five events of acme, one of globex, one of the platform."""
    acme = cast.acme.pk
    write(acme, "weftkit.instance.create", "instances/acme-one", reason_code=202)
    write(acme, "weftkit.instance.delete", "instances/acme-one", outcome="failure", reason_code=403)
    write(acme, "weftkit.credential.create", "instances/acme-one/credentials/1", initiator="key:k1")
    write(acme, "weftkit.session.start", "console", outcome="failure", reason_code=401)
    write(acme, "weftkit.instance.create", "instances/acme-two", request_id="req-11111111")
    write(cast.globex.pk, "weftkit.instance.create", "instances/globex-one")
    audit_write(tenant_id=None, action="weftkit.session.start", initiator="user:x", target="p")
    chains_link()
    return cast


def found(client: Client, **search: str) -> list[str]:
    answer = client.get(f"{BASE}?{urlencode(search)}")
    assert answer.status_code == 200, answer.content
    return [item["target"] for item in answer.json()["items"]]


ONE, TWO, CREDENTIAL = "instances/acme-one", "instances/acme-two", "instances/acme-one/credentials/1"  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("search", "targets"),
    [
        ({}, [TWO, "console", CREDENTIAL, ONE, ONE]),
        ({"action": "weftkit.instance.create"}, [TWO, ONE]),
        ({"action": "weftkit.instance.*"}, [TWO, ONE, ONE]),
        ({"action": "weftkit.instance.cr_ate*"}, []),
        ({"actor": "key:k1"}, [CREDENTIAL]),
        ({"actor": "user:*"}, [TWO, "console", ONE, ONE]),
        ({"target": "instances/acme-one"}, [ONE, ONE]),
        ({"target": "instances/acme-one*"}, [CREDENTIAL, ONE, ONE]),
        ({"outcome": "failure"}, ["console", ONE]),
        ({"severity": "critical"}, ["console", CREDENTIAL, ONE]),
        ({"severity": "critical", "outcome": "success"}, [CREDENTIAL]),
        ({"request_id": "req-11111111"}, [TWO]),
        ({"is_data": "true"}, []),
        ({"until": "2020-01-01T00:00:00Z"}, []),
        ({"since": "2020-01-01T00:00:00Z", "action": "weftkit.session.start"}, ["console"]),
        ({"since": "2220-01-01T00:00:00Z"}, []),
    ],
)
def test_events_are_found_by_what_is_known_of_them(
    told: Cast, search: dict[str, str], targets: list[str]
) -> None:
    assert found(signed_in(told.alice), **search) == targets


@pytest.mark.parametrize(
    "search", [{"outcome": "maybe"}, {"severity": "high"}, {"since": "soon"}, {"action": "a" * 101}]
)
def test_a_search_that_makes_no_sense_is_refused(told: Cast, search: dict[str, str]) -> None:
    answer = signed_in(told.alice).get(f"{BASE}?{urlencode(search)}")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == list(search)


def test_a_found_page_goes_on_with_the_same_search(told: Cast) -> None:
    client = signed_in(told.alice)
    first = client.get(f"{BASE}?action=weftkit.instance.*&limit=2").json()
    rest = client.get(first["next"]).json()
    assert [len(first["items"]), len(rest["items"]), rest["next"]] == [2, 1, None]


def test_searches_use_an_index(told: Cast) -> None:
    tenant = told.acme
    searches = [
        selectors.Search(actor="user:alice@example.org"),
        selectors.Search(action="weftkit.instance.create"),
        selectors.Search(target="instances/acme-one"),
        selectors.Search(request_id="req-11111111"),
        selectors.Search(),
    ]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for search in searches:
            events = selectors.audit_list(tenant=tenant, search=search).order_by("-event_id")
            text, values = events[:50].query.sql_with_params()
            cursor.execute(f"EXPLAIN {text}", values)
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "Index Scan" in plan or "Bitmap Index Scan" in plan
            assert "tenant_id" in plan


def test_one_event_is_shown_whole_with_a_place_that_anybody_can_check(told: Cast) -> None:
    client = signed_in(told.alice)
    event_id = client.get(f"{BASE}?action=weftkit.credential.create").json()["items"][0]["id"]
    detail = client.get(f"{BASE}/{event_id}").json()
    assert faults(detail["event"]) == []
    chain = detail["chain"]
    assert (chain["sequence"], chain["tenant_id"]) == (3, str(told.acme.pk))
    assert chain["digest"] == link_digest(
        chain["previous"], chain["sequence"], event_id, told.acme.pk,
        datetime.fromisoformat(chain["occurred_at"]), datetime.fromisoformat(chain["stored_at"]),
        json.dumps(detail["event"]),
    )  # fmt: skip
    theirs = AuditEvent.objects.get(tenant_id=told.globex.pk).event_id
    assert client.get(f"{BASE}/{theirs}").status_code == 404


def test_json_lines_are_the_events_oldest_first_with_their_places(told: Cast) -> None:
    answer = signed_in(told.alice).get(f"{BASE}/export")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in b"".join(answer).splitlines()]
    assert [line["target"]["name"] for line in lines] == [ONE, ONE, CREDENTIAL, "console", TWO]
    assert [line["chain"]["sequence"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        del line["chain"]
        assert faults(line) == []


def test_an_export_is_an_event_itself(told: Cast) -> None:
    client = signed_in(told.alice)
    b"".join(client.get(f"{BASE}/export?format=csv"))
    assert found(client, action="weftkit.audit.export") == ["audit"]


def test_csv_has_a_header_and_no_formula(told: Cast) -> None:
    write(told.acme.pk, "weftkit.session.start", "=cmd|' /C calc'!A0", initiator="user:+1@x.org")
    answer = signed_in(told.alice).get(f"{BASE}/export?format=csv&action=weftkit.session.start")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="audit-acme-' in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(b"".join(answer).decode())))
    assert [row["outcome"] for row in rows] == ["failure", "success"]
    assert (rows[0]["sequence"], rows[1]["sequence"]) == ("4", "")
    assert rows[1]["target.name"] == "'=cmd|' /C calc'!A0"
    assert rows[1]["initiator.name"] == "'+1@x.org"


def test_a_gzipped_export_is_the_same(told: Cast) -> None:
    client = signed_in(told.alice)
    plain = b"".join(client.get(f"{BASE}/export?outcome=failure"))
    answer = client.get(f"{BASE}/export?outcome=failure&gzip=true")
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.headers["Content-Disposition"].endswith('.jsonl.gz"')
    assert gzip.decompress(b"".join(answer)) == plain
    assert len(plain.splitlines()) == 2


@pytest.mark.parametrize(
    "search",
    [
        "since=2026-01-01T00:00:00Z&until=2025-12-31T00:00:00Z",
        "since=2020-01-01T00:00:00Z",
        "format=xml",
    ],
)
def test_an_export_of_too_much_is_refused(told: Cast, search: str) -> None:
    assert signed_in(told.alice).get(f"{BASE}/export?{search}").status_code == 400


def test_an_export_has_a_greatest_number_of_events(
    told: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_MAX", 4)
    answer = signed_in(told.alice).get(f"{BASE}/export")
    assert answer.status_code == 400
    assert "at most 4 events" in answer.json()["detail"]
    assert signed_in(told.alice).get(f"{BASE}/export?outcome=failure").status_code == 200


def many(tenant_id: UUID, count: int) -> None:
    """Store `count` events by one statement, as a year of work would leave them."""
    write(tenant_id, "weftkit.instance.create", "instances/acme-one")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_auditevent (event_id, tenant_id, body, occurred_at, stored_at) "
            "SELECT gen_random_uuid(), tenant_id, body, occurred_at, stored_at "
            "FROM audit_auditevent, generate_series(2, %s)",
            [count],
        )
        cursor.execute("ANALYZE audit_auditevent")


def test_a_hundred_thousand_events_are_exported_in_bounded_memory(cast: Cast) -> None:
    many(cast.acme.pk, 100_000)
    answer = signed_in(cast.alice).get(f"{BASE}/export?gzip=true")
    unzip = zlib.decompressobj(exports.GZIP_WINDOW)
    lines = 0
    before = resident_peak(is_new=True)
    for piece in answer:
        lines += unzip.decompress(piece).count(b"\n")
    assert lines == 100_000
    # All of them at once would be two hundred.
    assert resident_peak() - before < 40_000_000


def resident_peak(*, is_new: bool = False) -> int:
    """Return the most memory that this process has had, since a new measurement was begun."""
    if is_new:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


def test_verify_tells_what_it_walked_and_the_first_broken_link(told: Cast) -> None:
    client = signed_in(told.alice)
    whole = client.get(f"{BASE}/verify").json()
    digest = AuditLink.objects.get(chain_id=told.acme.pk, sequence=5).digest
    assert whole == {
        "is_whole": True, "is_complete": True, "first": 1, "last": 5, "digest": digest,
        "waiting": 0, "broken_at": None, "why": "", "anchor_holds": None,
    }  # fmt: skip
    target = AuditLink.objects.get(chain_id=told.acme.pk, sequence=2).event_id
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("DELETE FROM audit_auditevent WHERE event_id = %s", [target])
        cursor.execute("SET session_replication_role = origin")
    broken = client.get(f"{BASE}/verify").json()
    assert (broken["is_whole"], broken["broken_at"]) == (False, 2)
    assert broken["why"] == "its event is gone"
    theirs = signed_in(told.charlie).get("/api/v1/tenants/globex/audit/verify").json()
    assert (theirs["is_whole"], theirs["last"]) == (True, 1)


def test_a_long_chain_is_walked_in_several_requests(
    told: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apis, "LINKS_MAX", 2)
    client = signed_in(told.alice)
    walked, after = [], 0
    while True:
        part = client.get(f"{BASE}/verify?after={after}").json()
        assert part["is_whole"]
        walked.append((part["first"], part["last"]))
        if part["is_complete"]:
            break
        after = part["last"]
    assert walked == [(1, 2), (3, 4), (5, 5)]


def test_a_signed_head_proves_later_that_the_chain_is_the_same(told: Cast) -> None:
    client = signed_in(told.alice)
    head = client.get(f"{BASE}/head").json()
    signature = base64.b64decode(head["signature"])
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(head["public_key"]))
    signed = {name: head[name] for name in ("chain_id", "sequence", "digest", "signed_at")}
    key.verify(signature, signed_text(signed))
    with pytest.raises(InvalidSignature):
        key.verify(signature, signed_text({**signed, "sequence": 4}))

    def holds(sequence: int, digest: str) -> Any:
        query = f"anchor_sequence={sequence}&anchor_digest={digest}"
        return client.get(f"{BASE}/verify?{query}").json()["anchor_holds"]

    write(told.acme.pk, "weftkit.session.start", "console")
    chains_link()
    assert holds(head["sequence"], head["digest"]) is True
    assert holds(head["sequence"], "0" * 64) is False
    assert holds(99, head["digest"]) is False
    assert client.get(f"{BASE}/verify?anchor_sequence=1").status_code == 400


def test_the_command_verifies_every_chain_and_fails_for_a_broken_one(told: Cast) -> None:
    said, complained = io.StringIO(), io.StringIO()
    call_command("weftkit_audit_verify", stdout=said, stderr=complained)
    lines = said.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "(platform): whole", "acme: whole", "globex: whole",
    ]  # fmt: skip
    assert "links 1 to 5" in lines[1]
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE audit_auditlink SET digest = repeat('a', 64) WHERE sequence = 4")
        cursor.execute("SET session_replication_role = origin")
    with pytest.raises(CommandError, match="1 broken"):
        call_command("weftkit_audit_verify", stdout=said, stderr=complained)
    assert complained.getvalue() == ("acme: BROKEN at link 4: the event or its link was changed\n")
    call_command("weftkit_audit_verify", tenant="globex", stdout=said)
    with pytest.raises(CommandError, match="no such tenant"):
        call_command("weftkit_audit_verify", tenant="nobody")


def test_data_events_are_switched_in_the_published_record(cast: Cast) -> None:
    instance = serving_instance(cast.acme)
    client = signed_in(cast.alice)
    path = f"/api/v1/tenants/acme/instances/{instance.handle}/audit"
    assert client.get(path).json() == {"data_events": False}
    for wanted in (True, False):
        answer = client.patch(path, json.dumps({"data_events": wanted}), "application/json")
        assert answer.json() == {"data_events": wanted}
        assert client.get(path).json() == {"data_events": wanted}
        record = published(instance)
        assert record is not None
        assert record.audit_data_events is wanted
    event = AuditEvent.objects.filter(action="weftkit.instance-audit.update").first()
    assert event is not None
    assert event.severity == Severity.CRITICAL
    assert event.body["requestData"] == {"data_events": True}


def test_every_action_is_listed_for_whoever_writes_rules(cast: Cast) -> None:
    listed = signed_in(cast.bob).get("/api/v1/audit-actions").json()["items"]
    by_name = {item["name"]: item for item in listed}
    assert by_name["weftkit.instance.delete"] == {
        "name": "weftkit.instance.delete",
        "severity": "critical",
        "message": "delete instance",
        "target_type": "instance",
        "is_data_event": False,
    }
    assert by_name["weftkit.<engine>.statement.read"]["is_data_event"] is True
    assert len(by_name) == len(listed)


def test_times_of_a_search_are_of_what_happened(cast: Cast) -> None:
    now = timezone.now()
    write(cast.acme.pk, "weftkit.session.start", "console")
    since, until = now - timedelta(seconds=1), now + timedelta(minutes=1)
    client = signed_in(cast.alice)
    assert found(client, since=since.isoformat(), until=until.isoformat()) == ["console"]
    assert found(client, until=since.astimezone(UTC).isoformat()) == []
