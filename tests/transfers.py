"""Exports and imports through the REST API, as a script makes them."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx

from tests.admin import Admin
from tests.stack import Stack

PART_BYTES = 1 << 20


class Transfers:
    """Files of the tenant `demo`."""

    def __init__(self, stack: Stack, admin: Admin) -> None:
        self._stack = stack
        self._admin = admin

    def export(self, instance: str) -> dict[str, Any]:
        """Export an instance; return its newest file."""
        self._admin.finish(self._admin.call("POST", f"instances/{instance}/export"))
        newest: dict[str, Any] = self._admin.call("GET", f"instances/{instance}/files")["items"][0]
        assert newest["state"] == "ready"
        return newest

    def download(self, instance: str, file: dict[str, Any]) -> bytes:
        """Return the content of a file, and check its digest."""
        digest = hashlib.sha256()
        pieces = []
        path = f"tenants/demo/instances/{instance}/files/{file['id']}/content"
        with self._stack.api() as client, client.stream("GET", path) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Length"] == str(file["size_bytes"])
            for piece in answer.iter_bytes():
                digest.update(piece)
                pieces.append(piece)
        assert digest.hexdigest() == file["sha256"]
        return b"".join(pieces)

    def upload(self, instance: str, content: bytes) -> dict[str, Any]:
        """Upload a file part by part; return it."""
        file = self._admin.call(
            "POST",
            f"instances/{instance}/files",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        with self._stack.api() as client:
            for offset in range(0, len(content), PART_BYTES):
                file = self._part(client, instance, file, content[offset : offset + PART_BYTES])
        assert file["state"] == "ready"
        return file

    def _part(
        self, client: httpx.Client, instance: str, file: dict[str, Any], part: bytes
    ) -> dict[str, Any]:
        answer = client.put(
            f"tenants/demo/instances/{instance}/files/{file['id']}/content",
            params={"offset": file["received_bytes"]},
            content=part,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert answer.status_code == 200, answer.text
        changed: dict[str, Any] = answer.json()
        return changed

    def start_import(self, instance: str, file: dict[str, Any]) -> dict[str, Any]:
        """Start an import; return its operation."""
        return self._admin.call("POST", f"instances/{instance}/import", file=file["id"])
