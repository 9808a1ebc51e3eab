"""Conditional requests (RFC 9110 section 13): ETag, If-None-Match, If-Match.

The tag of a resource is a digest of what GET answers, so it changes whenever the answer does. A
change that names a tag is made only if the resource still is what the caller saw: of two callers
with the same tag one gets 412, because changes of one address take turns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from tenants.core.errors import ServiceError

if TYPE_CHECKING:
    from tenants.api.service_api import ServiceApi, TenantApi

CONDITIONAL = frozenset({"PATCH", "DELETE"})
TAGS_BYTES_MAX = 4096
# An answer's attribute: its JSON, once it is known.
WRITTEN = "written_json"
_TAG = re.compile(r'(?:W/)?"[^"\x00-\x20\x7f]*"')


class PreconditionFailedError(ServiceError):
    """The resource is no longer what the caller saw."""

    status = 412
    code = "precondition_failed"


class PreconditionRequiredError(ServiceError):
    """This installation changes nothing without If-Match."""

    status = 428
    code = "precondition_required"


class TaggedRenderer(JSONRenderer):
    """Writes an answer's JSON, unless it was written for its tag already."""

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        context = renderer_context or {}
        written: bytes | None = getattr(context.get("response"), WRITTEN, None)
        # Who accepts JSON with an indent gets the same, written otherwise.
        if written is None or self.get_indent(accepted_media_type or "", dict(context)) is not None:
            written = super().render(data, accepted_media_type, renderer_context)
        return written


def etag_of(written: bytes) -> str:
    """Return the strong tag of an answer's JSON."""
    return f'"{hashlib.sha256(written).hexdigest()[:32]}"'


def precondition_check(api: TenantApi, **kwargs: Any) -> None:
    """Refuse a change whose If-Match does not hold; changes of one address wait for each other.

    Must run in the transaction of the change. Views that cannot be read have nothing to match.
    """
    if api.request.method not in CONDITIONAL or not hasattr(api, "get"):
        return
    wanted = api.request.headers.get("If-Match", "")
    if not wanted and not settings.API_REQUIRES_IF_MATCH:
        return
    if not wanted:
        raise PreconditionRequiredError("send the resource's ETag as If-Match")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [api.request.path])
    current = etag_of(JSONRenderer().render(api.get(api.request, **kwargs).data))
    if not _names(wanted, current, weak=False):
        raise PreconditionFailedError(
            "the resource has changed since; get it again and look", extra={"etag": current}
        )


def tagged(api: ServiceApi, response: Response) -> Response:
    """Give an answer its ETag; 304 without a body to who has it already."""
    method = api.request.method
    if method not in ("GET", "HEAD", "PATCH") or response.status_code != 200:
        return response
    if not isinstance(getattr(response, "data", None), dict | list):
        return response
    written = JSONRenderer().render(response.data)
    tag = etag_of(written)
    known = api.request.headers.get("If-None-Match", "")
    if method != "PATCH" and known and _names(known, tag, weak=True):
        response = Response(status=304)
    else:
        setattr(response, WRITTEN, written)
    response["ETag"] = tag
    # What is the caller's own is nobody else's, and must be asked for again.
    response.headers.setdefault("Cache-Control", "private, no-cache")
    return response


def _names(header: str, tag: str, *, weak: bool) -> bool:
    """Say whether a list of tags has `tag`; If-Match compares strongly, If-None-Match weakly."""
    if len(header) > TAGS_BYTES_MAX:
        return False
    if header.strip() == "*":
        return True
    found = _TAG.findall(header)
    return any((each.removeprefix("W/") if weak else each) == tag for each in found)
