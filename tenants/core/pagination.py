"""Pages of a list: newest first, by cursor, so that rows that come meanwhile shift nothing.

{"items": [...], "next": "<address of the next page>" | null, "previous": ... | null}
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.core.errors import invalid_field

LIMIT = re.compile("[0-9]{1,9}")


class NewestFirst(CursorPagination):
    # Ids are UUIDs of version 7: their order is the order of creation, and it is total.
    ordering = "-id"
    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Read the cursor; a caller may have made one up."""
        cursor: Cursor | None = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            try:
                UUID(str(cursor.position))
            except ValueError as error:
                raise NotFound(self.invalid_cursor_message) from error
        return cursor

    def get_page_size(self, request: Request) -> int:
        """Read `limit`; what is no number, or out of bounds, is not taken for another one."""
        given = request.query_params.getlist("limit")
        if not given:
            return int(self.page_size)
        if len(given) > 1 or not LIMIT.fullmatch(given[0]):
            raise invalid_field("limit", f"one number from 1 to {self.max_page_size}")
        if not 1 <= int(given[0]) <= self.max_page_size:
            raise invalid_field("limit", f"from 1 to {self.max_page_size}")
        return int(given[0])

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Declare the parameters, with the bounds of `limit`."""
        declared: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        for each in declared:
            if each["name"] == "limit":
                each["schema"] |= {"minimum": 1, "maximum": self.max_page_size}
        return declared

    def get_paginated_response(self, data: Any) -> Response:
        return Response(
            {"items": data, "next": self.get_next_link(), "previous": self.get_previous_link()}
        )

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["items", "next", "previous"],
            "properties": {
                "items": schema,
                "next": {**link, "description": "The next page, if there is one."},
                "previous": {**link, "description": "The page before, if there is one."},
            },
        }
