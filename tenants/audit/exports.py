"""Events as files: JSON Lines and CSV, plain or gzipped, in pieces of bounded memory."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from tenants.audit.models import AuditEvent
from tenants.audit.selectors import Placed, audit_batches
from tenants.core.errors import invalid_field

DAYS_MAX = 400
ROWS_MAX = 1_000_000
GZIP_WINDOW = 16 + zlib.MAX_WBITS
# What a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "id": lambda body: body["id"],
    "eventTime": lambda body: body["eventTime"],
    "action": lambda body: body["action"],
    "outcome": lambda body: body["outcome"],
    "severity": lambda body: body["severity"],
    "message": lambda body: body["message"],
    "initiator.id": lambda body: body["initiator"]["id"],
    "initiator.name": lambda body: body["initiator"]["name"],
    "initiator.credential.type": lambda body: body["initiator"]["credential"]["type"],
    "initiator.host.address": lambda body: body["initiator"]["host"]["address"],
    "initiator.host.agent": lambda body: body["initiator"]["host"]["agent"],
    "target.id": lambda body: body["target"]["id"],
    "target.name": lambda body: body["target"]["name"],
    "reason.reasonCode": lambda body: body["reason"]["reasonCode"],
    "reason.reasonType": lambda body: body["reason"]["reasonType"],
    "reason.reasonForFailure": lambda body: body["reason"].get("reasonForFailure", ""),
    "correlationId": lambda body: body["correlationId"],
    "dataEvent": lambda body: "true" if body["dataEvent"] else "false",
    "requestData": lambda body: json.dumps(body["requestData"]),
    "responseData": lambda body: json.dumps(body["responseData"]),
}
CHAIN_COLUMNS = ("sequence", "previous", "digest")


def range_check(since: datetime | None, until: datetime) -> datetime:
    """Return where an export begins: `since`, or 30 days before its end."""
    since = until - timedelta(days=30) if since is None else since
    if since >= until:
        raise invalid_field("from", "it is not before `to`")
    if until - since > timedelta(days=DAYS_MAX):
        raise invalid_field("from", f"an export covers at most {DAYS_MAX} days")
    return since


def rows_check(events: QuerySet[AuditEvent]) -> None:
    """Refuse more rows than one export has; counting stops there."""
    if events.order_by()[: ROWS_MAX + 1].count() > ROWS_MAX:
        raise invalid_field("from", f"an export has at most {ROWS_MAX} events; narrow the range")


def as_json_lines(events: QuerySet[AuditEvent]) -> Iterator[bytes]:
    """Yield one event a line, with its place in the chain, so that the file can be verified."""
    for batch in audit_batches(events):
        yield json_lines(batch)


def json_lines(batch: Iterable[Placed]) -> bytes:
    """Return events as lines: the body of each, and `chain`, the place that covers it."""
    return "".join(
        f'{event.body[:-1]}, "chain": {json.dumps(event.chain())}}}\n' for event in batch
    ).encode()


def as_csv(events: QuerySet[AuditEvent]) -> Iterator[bytes]:
    """Yield a table with a header; no cell can be taken for a formula."""
    yield _rows([[*COLUMNS, *CHAIN_COLUMNS]])
    for batch in audit_batches(events):
        yield _rows(
            [
                *(_cell(column(body)) for column in COLUMNS.values()),
                *(getattr(event, name) for name in CHAIN_COLUMNS),
            ]
            for event, body in ((event, json.loads(event.body)) for event in batch)
        )


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `pieces` compressed."""
    squeeze = zlib.compressobj(wbits=GZIP_WINDOW)
    for piece in pieces:
        if squeezed := squeeze.compress(piece):
            yield squeezed
    yield squeeze.flush()


# Name -> what makes it, its media type.
FORMATS: Mapping[str, tuple[Callable[[QuerySet[AuditEvent]], Iterator[bytes]], str]] = {
    "jsonl": (as_json_lines, "application/x-ndjson"),
    "csv": (as_csv, "text/csv; charset=utf-8"),
}


def _rows(rows: Iterable[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
