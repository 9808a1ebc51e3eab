"""The bodies that the API reads: JSON, and no more of it than any request of ours can need; and
the bytes of one part of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser, JSONParser

BODY_BYTES_MAX = 256 * 1024


class BodyTooLargeError(APIException):
    status_code = 413
    default_detail = f"The body is larger than {BODY_BYTES_MAX} bytes."
    default_code = "body_too_large"


class BoundedJSONParser(JSONParser):
    """Counts before it reads on, whatever Content-Length says."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        body = stream.read(BODY_BYTES_MAX + 1)
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLargeError
        try:
            return super().parse(BytesIO(body), media_type, parser_context)
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error


class PartParser(BaseParser):
    """Takes one part of a file, whole: nothing larger reaches us (`bounded_daphne`)."""

    media_type = "application/octet-stream"
    bytes_max = 4 * 1024 * 1024

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        body = stream.read(self.bytes_max + 1)
        if len(body) > self.bytes_max:
            raise BodyTooLargeError(f"A part has at most {self.bytes_max} bytes.")
        return {"part": body}
