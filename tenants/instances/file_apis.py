"""REST: export, import, and the files between them.

POST .../export                       an operation; its file is then in the list
GET  .../files/<id>/content           the bytes, streamed
POST .../files                        begin an upload: size and digest
PUT  .../files/<id>/content?offset=n  the next part of it, up to 4 MiB
POST .../import                       an operation; the data are replaced
"""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from engines import registry
from engines.kit.contract import Placement
from tenants.api.audited import asked_of, target_of
from tenants.api.idempotency import idempotency_key, idempotent
from tenants.api.schema import IDEMPOTENT
from tenants.api.service_api import TenantApi
from tenants.audit.services import audit_write
from tenants.core.errors import ConflictError, GoneError
from tenants.core.parsers import PartParser
from tenants.core.streaming import AnyAccept, PieceStream
from tenants.instances import files, selectors, transfers
from tenants.instances.depot import Content, content_size
from tenants.instances.models import DataFile, FileOrigin, FileState
from tenants.operations.apis import OperationOutput, accepted

BINARY = "application/octet-stream"


class FileOutput(serializers.ModelSerializer[DataFile]):
    origin = serializers.ChoiceField(FileOrigin.choices)
    state = serializers.ChoiceField(FileState.choices)

    class Meta:
        model = DataFile
        fields = [
            "id", "origin", "state", "size_bytes", "received_bytes", "sha256", "expires_at",
            "created_at", "created_by",
        ]  # fmt: skip


class FileInput(serializers.Serializer[DataFile]):
    size_bytes = serializers.IntegerField(min_value=1, max_value=2**50)
    sha256 = serializers.CharField(max_length=64, help_text="Hexadecimal, of the whole file.")


class PartInput(serializers.Serializer[Any]):
    offset = serializers.IntegerField(
        min_value=0, max_value=2**50, help_text="Where the part begins: `received_bytes`."
    )


class ImportInput(serializers.Serializer[Any]):
    file = serializers.UUIDField(help_text="A file of this tenant that is ready.")


class InstanceExportApi(TenantApi):
    actions = {"POST": "instances.export"}

    @extend_schema(
        operation_id="instance_export",
        request=None,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Save the data of an inmemory instance as an RDB file; clients are served meanwhile.

        When the operation has succeeded the file is in the instance's list of files.
        """
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        operation = transfers.instance_export(
            instance=found, actor=self.actor.name, idempotency_key=idempotency_key(request)
        )
        return accepted(operation)


class InstanceImportApi(TenantApi):
    actions = {"POST": "instances.import"}

    @extend_schema(
        operation_id="instance_import",
        request=ImportInput,
        responses={202: OperationOutput},
        parameters=[IDEMPOTENT],
        examples=[
            OpenApiExample(
                "An uploaded file, or an export of another instance",
                {"file": "01931f6e-4c1d-7b52-9d0e-5f0f3f2d8a11"},
                request_only=True,
            )
        ],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Replace all data of an inmemory instance by those of an RDB file.

        Until the file has been loaded the old data are served; if it cannot be loaded they stay.
        """
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        operation = transfers.instance_import(
            instance=found,
            tenant=self.actor.tenant,
            file_id=self.validated(ImportInput)["file"],
            actor=self.actor.name,
            idempotency_key=idempotency_key(request),
        )
        return accepted(operation)


class FileListApi(TenantApi):
    actions = {"GET": "files.read", "POST": "files.manage"}

    @extend_schema(operation_id="file_list", responses=FileOutput(many=True))
    def get(self, request: Request, tenant: str, instance: str) -> Response:
        """List the instance's exports and uploads."""
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        return self.page(files.file_list(instance=found), FileOutput)

    @extend_schema(
        operation_id="file_create",
        request=FileInput,
        responses={201: FileOutput},
        parameters=[IDEMPOTENT],
        examples=[
            OpenApiExample(
                "A file of 10 MiB",
                {"size_bytes": 10485760, "sha256": "9f86d081" * 8},
                request_only=True,
            )
        ],
    )
    @idempotent
    def post(self, request: Request, tenant: str, instance: str) -> Response:
        """Begin to upload a file; its parts follow in order."""
        found = selectors.instance_get(tenant=self.actor.tenant, handle=instance)
        made = files.file_create(instance=found, actor=self.actor.name, **self.validated(FileInput))
        return Response(FileOutput(made).data, status=201)


class FileDetailApi(TenantApi):
    actions = {"GET": "files.read", "DELETE": "files.manage"}

    @extend_schema(operation_id="file_get", responses=FileOutput)
    def get(self, request: Request, tenant: str, instance: str, file_id: UUID) -> Response:
        """Get one file, without its content."""
        return Response(FileOutput(_file(self, instance, file_id)).data)

    @extend_schema(operation_id="file_delete", responses={204: None})
    def delete(self, request: Request, tenant: str, instance: str, file_id: UUID) -> Response:
        """Delete a file before it expires."""
        files.file_delete(file=_file(self, instance, file_id))
        return Response(status=204)


# How the files of each kind of server are called: RDB, and pg_dump's custom format.
SUFFIXES = {Placement.REDIS_SERVER: ".rdb", Placement.POSTGRES_SERVER: ".dump"}


class FileContentApi(TenantApi):
    actions = {"GET": "instances.export", "PUT": "files.manage"}
    # No HEAD: the list says size and digest, and nothing need be opened for it.
    http_method_names = ["get", "put"]
    parser_classes = [PartParser]
    content_negotiation_class = AnyAccept

    @extend_schema(operation_id="file_download", responses={(200, BINARY): OpenApiTypes.BINARY})
    def get(
        self, request: Request, tenant: str, instance: str, file_id: UUID
    ) -> StreamingHttpResponse:
        """Download a file."""
        file = _file(self, instance, file_id)
        if file.state != FileState.READY:
            raise ConflictError(f"the file is {file.state}", code="file_not_ready")
        if content_size(name=file.storage_name) != file.size_bytes:
            raise GoneError("the file's bytes are gone: export again")
        self._note_download(request)
        suffix = SUFFIXES[registry.load(file.instance.engine).placement]
        name = f"{instance}-{file.created_at:%Y%m%d-%H%M%S}{suffix}"
        headers = {
            "Content-Length": str(file.size_bytes),
            "Content-Disposition": f'attachment; filename="{name}"',
            "ETag": f'"{file.sha256}"',
            "Cache-Control": "private, no-store",
        }
        return PieceStream(Content(file.storage_name), headers, content_type=BINARY)

    @extend_schema(
        operation_id="file_upload",
        parameters=[PartInput],
        request={BINARY: OpenApiTypes.BINARY},
        responses=FileOutput,
    )
    def put(self, request: Request, tenant: str, instance: str, file_id: UUID) -> Response:
        """Upload the next part, 64 KiB to 4 MiB; the last may be shorter.

        Refused with `wrong_offset` and `received_bytes` where it is not the next: go on from there.
        """
        file = _file(self, instance, file_id)
        offset = self.query(PartInput)["offset"]
        body = cast(dict[str, bytes], request.data)
        part = body.get("part", b"")  # an empty body is not parsed
        changed = files.file_append(file=file, offset=offset, data=part)
        return Response(FileOutput(changed).data)

    def _note_download(self, request: Request) -> None:
        """A download takes data out of the instance, so it leaves an event although it reads."""
        audit_write(
            tenant_id=self.actor.tenant.pk,
            action="weftkit.file.download",
            initiator=self.actor.name,
            target=target_of(request),
            asked=asked_of(request),
        )


def _file(api: TenantApi, handle: str, file_id: UUID) -> DataFile:
    instance = selectors.instance_get(tenant=api.actor.tenant, handle=handle)
    return files.file_get(instance=instance, file_id=file_id)
