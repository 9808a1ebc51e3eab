"""Export and import: the operations with a host that is played by its table, files, retention."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.files.storage import storages
from django.db import ProgrammingError, connection, transaction
from django.test import Client
from django.utils import timezone

from engines.kit.contract import Placement
from engines.kit.tasks import Kind
from tenants.audit.models import AuditEvent
from tenants.core.errors import ConflictError, LimitError, LockedError, NotFoundError
from tenants.instances import depot, files
from tenants.instances.models import DataFile, Instance
from tenants.instances.services import instance_suspend
from tenants.instances.transfers import instance_export, instance_import
from tenants.operations.job import Job
from tenants.operations.kinds import KINDS
from tenants.operations.models import Operation
from tenants.operations.runner import operation_run
from tenants.operations.services import (
    operation_cancel,
    operation_fail,
    operation_retry,
)
from tenants.publish.host_tasks import tasks_forget
from tenants.usage.limits import limits_of
from tests.tenants.cast import Cast, serving_instance, signed_in, uploaded

MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _no_patience(settings: Any) -> None:
    settings.OPERATION_WAIT_IN_TASK_S = 0


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return serving_instance(cast.acme, engine="inmemory")


def task_row(operation: Operation) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT instance_id, host, kind, parameters::text, wish, state FROM publish.task "
            "WHERE task_id = %s",
            [operation.pk],
        )
        row = cursor.fetchone()
    assert row is not None
    names = ("instance_id", "host", "kind", "parameters", "wish", "state")
    return {**dict(zip(names, row, strict=True)), "parameters": json.loads(row[3])}


def host_says(operation: Operation, state: str, **facts: Any) -> None:
    """Play the host, then let a worker look."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE publish.task SET state = %s, code = %s, detail = %s, result = %s, "
            "done_bytes = %s, total_bytes = %s WHERE task_id = %s",
            [
                state,
                facts.get("code", ""),
                facts.get("detail", ""),
                json.dumps(facts.get("result", {})),
                facts.get("done_bytes", 0),
                facts.get("total_bytes", 0),
                operation.pk,
            ],
        )
    run(operation)


def run(operation: Operation) -> Operation:
    operation_run(operation_id=operation.pk)
    operation.refresh_from_db()
    return operation


def store(name: str, content: bytes) -> None:
    """Write a file where the host would."""
    files.depot.part_save(name=name, offset=0, data=content)


def finished_export(instance: Instance, content: bytes) -> DataFile:
    operation = run(instance_export(instance=instance, actor="test"))
    store(task_row(operation)["parameters"]["file"], content)
    digest = hashlib.sha256(content).hexdigest()
    host_says(operation, "done", result={"size_bytes": len(content), "sha256": digest})
    assert operation.state == "succeeded"
    return DataFile.objects.get(pk=operation.params["file_id"])


def address(instance: Instance, rest: str) -> str:
    return f"/api/v1/tenants/{instance.tenant.handle}/instances/{instance.handle}/{rest}"


def test_export_becomes_a_file_that_alice_downloads_and_the_record_says_so(
    cast: Cast, instance: Instance
) -> None:
    alice = signed_in(cast.alice)
    started = alice.post(address(instance, "export")).json()
    operation = run(Operation.objects.get(pk=started["id"]))
    row = task_row(operation)
    assert (row["kind"], row["instance_id"], row["wish"]) == (
        "rdb_export",
        instance.pk,
        "prepare",
    )
    (listed,) = alice.get(address(instance, "files")).json()["items"]
    assert (listed["origin"], listed["state"]) == ("export", "writing")
    early = alice.get(address(instance, f"files/{listed['id']}/content"))
    assert (early.status_code, early.json()["code"]) == (409, "file_not_ready")

    content = b"REDIS0009" + bytes(range(256)) * 4096
    store(row["parameters"]["file"], content)
    host_says(operation, "running", done_bytes=5, total_bytes=len(content))
    shown = alice.get(f"/api/v1/tenants/acme/operations/{operation.pk}").json()
    assert (shown["state"], shown["bytes_done"], shown["bytes_total"]) == (
        "running",
        5,
        len(content),
    )
    digest = hashlib.sha256(content).hexdigest()
    host_says(operation, "done", result={"size_bytes": len(content), "sha256": digest})
    assert operation.state == "succeeded"
    (listed,) = alice.get(address(instance, "files")).json()["items"]
    assert (listed["state"], listed["size_bytes"], listed["sha256"]) == (
        "ready",
        len(content),
        digest,
    )
    assert row["parameters"]["file"] not in json.dumps(listed)
    got = alice.get(address(instance, f"files/{listed['id']}/content"))
    assert b"".join(got.streaming_content) == content
    assert got.headers["Content-Length"] == str(len(content))
    assert got.headers["ETag"] == f'"{digest}"'
    assert got.headers["Content-Disposition"].startswith('attachment; filename="acme-main-')
    told = list(AuditEvent.objects.order_by("event_id"))[1:]  # after the making of the instance
    assert [event.body["action"] for event in told] == [
        "weftkit.instance.export",
        "weftkit.operation.end",
        "weftkit.file.download",
    ]
    began, ended, _ = told
    assert (began.body["outcome"], began.body["reason"]["reasonCode"]) == ("pending", 202)
    assert (ended.body["outcome"], ended.body["reason"]["reasonCode"]) == ("success", 200)
    assert ended.target == f"operations/{operation.pk}"
    assert (
        ended.body["requestData"] | {"kind": "export", "instance": "acme-main"}
        == ended.body["requestData"]
    )


def test_file_whose_bytes_are_gone_says_so_and_leaves_no_event(
    cast: Cast, instance: Instance
) -> None:
    file = uploaded(instance, b"REDIS0009" + bytes(1000))
    path = address(instance, f"files/{file.pk}/content")
    alice = signed_in(cast.alice)
    assert alice.get(path).status_code == 200
    noted = AuditEvent.objects.count()
    depot.content_remove(name=file.storage_name)
    answer = alice.get(path)
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert AuditEvent.objects.count() == noted
    schema = alice.get("/api/v1/schema", {"format": "json"}).json()["paths"]
    (operation,) = (
        methods["get"]
        for methods in schema.values()
        if methods.get("get", {}).get("operationId") == "file_download"
    )
    assert "application/problem+json" in operation["responses"]["410"]["content"]


def test_download_is_streamed_piece_by_piece_under_asgi(cast: Cast, instance: Instance) -> None:
    file = finished_export(instance, bytes(3 * MEBIBYTE))
    answer = signed_in(cast.alice).get(address(instance, f"files/{file.pk}/content"))

    async def pieces() -> list[int]:
        return [len(piece) async for piece in answer]

    sizes = asyncio.run(pieces())
    assert sum(sizes) == 3 * MEBIBYTE
    assert max(sizes) == files.depot.READ_BYTES


def put(client: Client, instance: Instance, file_id: str, offset: int, part: bytes) -> Any:
    return client.generic(
        "PUT",
        address(instance, f"files/{file_id}/content?offset={offset}"),
        data=part,
        content_type="application/octet-stream",
    )


def test_upload_goes_part_by_part_and_on_from_where_it_stopped(
    cast: Cast, instance: Instance
) -> None:
    bob = signed_in(cast.bob)
    content = b"REDIS0009" + bytes(200_000)
    body = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    made = bob.post(address(instance, "files"), body, content_type="application/json").json()
    half = files.PART_BYTES_MIN
    assert put(bob, instance, made["id"], 0, content[:half]).json()["received_bytes"] == half
    again = put(bob, instance, made["id"], 0, content[:half])
    assert (again.status_code, again.json()["code"]) == (409, "wrong_offset")
    assert again.json()["received_bytes"] == half
    for part, code in ((b"x", "too_short"), (b"", "too_short"), (content, "too_long")):
        refused = put(bob, instance, made["id"], half, part)
        assert (refused.status_code, refused.json()["code"]) == (400, code)
    done = put(bob, instance, made["id"], half, content[half:]).json()
    assert (done["state"], done["received_bytes"]) == ("ready", len(content))
    back = bob.get(address(instance, f"files/{made['id']}/content"))
    assert b"".join(back.streaming_content) == content
    assert put(bob, instance, made["id"], len(content), b"x").status_code == 409


def test_part_above_the_bound_is_refused_before_it_is_stored(
    cast: Cast, instance: Instance
) -> None:
    file = files.file_create(
        instance=instance, actor="test", size_bytes=8 * MEBIBYTE, sha256="0" * 64
    )
    answer = put(signed_in(cast.bob), instance, str(file.pk), 0, bytes(4 * MEBIBYTE + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    file.refresh_from_db()
    assert file.received_bytes == 0


def test_file_above_the_plans_memory_is_refused_before_a_byte_is_sent(
    cast: Cast, instance: Instance
) -> None:
    most = files.size_bytes_max(instance=instance)
    body = {"size_bytes": most + 1, "sha256": "0" * 64}
    answer = signed_in(cast.bob).post(
        address(instance, "files"), body, content_type="application/json"
    )
    assert answer.status_code == 400
    assert answer.json()["errors"] == {"size_bytes": [f"the instance's plan takes 1 to {most}"]}


def test_import_is_committed_only_after_the_host_has_loaded_the_file(
    cast: Cast, instance: Instance
) -> None:
    file = uploaded(instance, b"REDIS0009")
    operation = run(
        instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test")
    )
    row = task_row(operation)
    assert (row["kind"], row["wish"]) == ("rdb_import", "prepare")
    assert row["parameters"] == {
        "file": file.storage_name,
        "size_bytes": 9,
        "sha256": hashlib.sha256(b"REDIS0009").hexdigest(),
    }
    host_says(operation, "running")
    assert task_row(operation)["wish"] == "prepare"
    host_says(operation, "prepared")
    assert (operation.state, task_row(operation)["wish"]) == ("running", "commit")
    host_says(operation, "committing")
    assert operation.state == "running"
    host_says(operation, "done")
    assert operation.state == "succeeded"


def test_failed_import_says_why_and_a_retry_asks_the_host_anew(
    cast: Cast, instance: Instance
) -> None:
    file = uploaded(instance, b"REDIS0009")
    operation = run(
        instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test")
    )
    host_says(operation, "failed", code="rdb_checksum", detail="the file is damaged")
    assert (operation.state, operation.error_code, operation.error_message) == (
        "failed",
        "rdb_checksum",
        "the file is damaged",
    )
    run(operation_retry(operation=operation))
    assert task_row(operation)["state"] == "waiting"
    host_says(operation, "prepared")
    host_says(operation, "done")
    assert operation.state == "succeeded"


def test_cancelled_import_tells_the_host_to_leave_the_old_data(
    cast: Cast, instance: Instance
) -> None:
    file = uploaded(instance, b"REDIS0009")
    operation = run(
        instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test")
    )
    host_says(operation, "prepared")
    operation_cancel(operation=operation)
    assert task_row(operation)["wish"] == "cancel"
    assert run(operation).state == "cancelled"


def test_import_that_is_being_put_in_place_cannot_be_cancelled_and_goes_on(
    cast: Cast, instance: Instance
) -> None:
    file = uploaded(instance, b"REDIS0009")
    operation = run(
        instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test")
    )
    host_says(operation, "prepared")
    host_says(operation, "committing")
    with pytest.raises(ConflictError) as refused:
        operation_cancel(operation=operation)
    assert refused.value.code == "too_late"
    host_says(operation, "done")
    assert operation.state == "succeeded"


def test_export_that_failed_or_was_cancelled_leaves_no_file(instance: Instance) -> None:
    for end in ("cancelled", "failed"):
        operation = run(instance_export(instance=instance, actor="test"))
        if end == "cancelled":
            operation_cancel(operation=operation)
            run(operation)
        else:
            with transaction.atomic():
                operation_fail(operation=operation, code="deadline", message="it took too long")
        assert operation.state == end
        assert task_row(operation)["wish"] == "cancel"
        file = DataFile.objects.get(pk=operation.params["file_id"])
        assert file.state == "writing"
        assert not files.file_list(instance=instance).exists()
        assert files.files_sweep() == 0, "the host may still write"
    DataFile.objects.update(expires_at=timezone.now() - files.LET_GO_AFTER)
    assert files.files_sweep() == 2
    with pytest.raises(ConflictError) as refused:
        operation_retry(operation=operation)
    assert refused.value.code == "file_expired"


def test_one_operation_at_a_time(cast: Cast, instance: Instance) -> None:
    file = uploaded(instance, b"REDIS0009")
    operation = instance_export(instance=instance, actor="test")
    for other in (
        lambda: instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test"),
        lambda: instance_export(instance=instance, actor="test"),
        lambda: instance_suspend(instance=instance, actor="test"),
    ):
        with pytest.raises(LockedError) as refused:
            other()
        assert refused.value.extra == {"operation_id": str(operation.pk)}


def test_repeated_export_is_one_operation_with_one_file(instance: Instance) -> None:
    first = instance_export(instance=instance, actor="test", idempotency_key="k")
    second = instance_export(instance=instance, actor="test", idempotency_key="k")
    assert first == second
    assert DataFile.objects.count() == 1


def test_charlie_imports_no_file_of_another_tenant(cast: Cast, instance: Instance) -> None:
    theirs = serving_instance(cast.globex, "theirs", engine="inmemory")
    file = finished_export(instance, b"REDIS0009")
    body = {"file": str(file.pk)}
    answer = signed_in(cast.charlie).post(
        address(theirs, "import"), body, content_type="application/json"
    )
    assert answer.status_code == 404
    for tenant, found in (("globex", theirs), ("acme", instance)):
        stolen = f"/api/v1/tenants/{tenant}/instances/{found.handle}/files/{file.pk}/content"
        assert signed_in(cast.charlie).get(stolen).status_code == 404


def test_export_of_one_instance_is_imported_into_another_of_the_tenant(
    cast: Cast, instance: Instance
) -> None:
    other = serving_instance(cast.acme, "other", engine="inmemory")
    file = finished_export(instance, b"REDIS0009")
    started = signed_in(cast.bob).post(
        address(other, "import"), {"file": str(file.pk)}, content_type="application/json"
    )
    operation = run(Operation.objects.get(pk=started.json()["id"]))
    assert task_row(operation)["parameters"]["file"] == file.storage_name


def test_file_that_is_not_whole_is_not_imported(cast: Cast, instance: Instance) -> None:
    file = files.file_create(instance=instance, actor="test", size_bytes=9, sha256="0" * 64)
    with pytest.raises(ConflictError) as refused:
        instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test")
    assert refused.value.code == "file_not_ready"


def test_engine_without_export_and_import_says_so(
    cast: Cast, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(files.IMPORTS, Placement.REDIS_SERVER)
    alice = signed_in(cast.alice)
    bodies = {
        "export": {},
        "import": {"file": str(UUID(int=1))},
        "files": {"size_bytes": 9, "sha256": "0" * 64},
    }
    for path, body in bodies.items():
        answer = alice.post(address(instance, path), body, content_type="application/json")
        assert (answer.status_code, answer.json()["code"]) == (409, "engine_unsupported")


def test_relational_instance_is_dumped_and_loaded_as_large_as_its_storage(cast: Cast) -> None:
    relational = serving_instance(cast.acme)
    limits = limits_of(plan=relational.plan, blocks=relational.blocks, engine="relational")
    most = limits.storage_bytes or files.FILE_BYTES_MAX
    assert files.size_bytes_max(instance=relational) == most
    assert most > limits.memory_bytes
    file = finished_export(relational, b"PGDMP")
    exported = Operation.objects.get(params__file_id=str(file.pk))
    assert task_row(exported)["kind"] == Kind.PG_DUMP
    loading = instance_import(instance=relational, tenant=cast.acme, file_id=file.pk, actor="test")
    assert task_row(run(loading))["kind"] == Kind.PG_LOAD


def test_expired_files_are_not_found_and_then_removed(cast: Cast, instance: Instance) -> None:
    kept, old = uploaded(instance, b"REDIS0001"), finished_export(instance, b"REDIS0002")
    DataFile.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(NotFoundError):
        files.file_get(instance=instance, file_id=old.pk)
    assert files.files_sweep() == 1
    assert list(DataFile.objects.all()) == [kept]
    assert not storages["files"].exists(old.storage_name)
    assert storages["files"].exists(kept.storage_name)


def test_file_in_use_is_neither_deleted_nor_swept(
    cast: Cast, instance: Instance, django_capture_on_commit_callbacks: Any
) -> None:
    file = uploaded(instance, b"REDIS0009")
    operation = run(
        instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test")
    )
    with pytest.raises(ConflictError) as refused:
        files.file_delete(file=file)
    assert refused.value.code == "file_in_use"
    DataFile.objects.filter(pk=file.pk).update(expires_at=timezone.now())
    assert files.files_sweep() == 0
    host_says(operation, "failed", code="not_rdb", detail="the file is no RDB file")
    with django_capture_on_commit_callbacks(execute=True):
        files.file_delete(file=file)
    assert not storages["files"].exists(file.storage_name)
    assert DataFile.objects.count() == 0


def test_instance_has_a_bounded_number_of_files(instance: Instance, settings: Any) -> None:
    settings.FILES_PER_INSTANCE_MAX = 2
    for _ in range(2):
        uploaded(instance, b"REDIS0009")
    with pytest.raises(LimitError):
        uploaded(instance, b"REDIS0009")
    with pytest.raises(LimitError):
        instance_export(instance=instance, actor="test")
    assert not Operation.objects.filter(kind="export").exists()


def test_old_tasks_are_forgotten_and_open_ones_kept(instance: Instance) -> None:
    finished_export(instance, b"REDIS0009")
    operation = run(instance_export(instance=instance, actor="test"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE publish.task SET changed_at = now() - interval '2 days'")
    assert tasks_forget() == 1
    assert task_row(operation)["state"] == "waiting"


def test_every_step_stands_being_done_twice(cast: Cast, instance: Instance) -> None:
    file = uploaded(instance, b"REDIS0009")
    operation = instance_import(instance=instance, tenant=cast.acme, file_id=file.pk, actor="test")
    job = Job(instance, operation.params, operation.pk)
    facts = {"request": "prepared", "load": "prepared", "switch": "done"}
    for step in KINDS["import"].steps:
        for _ in range(2):
            step.do(job)
        before = task_row(operation)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE publish.task SET state = %s", [facts[step.name]])
        assert step.do(job) is None
        assert task_row(operation)["parameters"] == before["parameters"]
    assert task_row(operation)["wish"] == "commit"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE publish.task SET wish = 'commit'",
        "UPDATE publish.task SET parameters = '{}'",
        "DELETE FROM publish.task",
        "INSERT INTO publish.task (task_id, instance_id, host, kind) "
        "VALUES (gen_random_uuid(), gen_random_uuid(), 'local', 'rdb_export')",
    ],
)
def test_a_data_plane_writes_only_how_far_it_is(instance: Instance, statement: str) -> None:
    run(instance_export(instance=instance, actor="test"))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE weftkit_dataplane")
        cursor.execute("UPDATE publish.task SET state = 'running'")
        assert cursor.rowcount == 1
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            cursor.execute(statement)
