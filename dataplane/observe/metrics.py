"""Every metric of the data plane, and the page that shows them summed over all workers.

Names end in their unit; labels are engine, class and outcome. Workers meet in the files of
prometheus_client's multiprocess mode (`PROMETHEUS_MULTIPROC_DIR`, set by the master, which also
clears it), so that any worker can answer for all. Units and bytes are added from the meter's own
deltas: what is billed and what is shown are the same count.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SIGN_IN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
HTTP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LEASE_BUCKETS = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)

CONNECTIONS = Gauge(
    "weftkit_connections_open", "Signed-in connections.", ["engine"], multiprocess_mode="livesum"
)
HANDSHAKES = Gauge(
    "weftkit_handshakes_open",
    "Connections that have not signed in yet.",
    ["engine"],
    multiprocess_mode="livesum",
)
ACCEPTED = Counter(
    "weftkit_connections_total", "Connections by what the listener did.", ["engine", "outcome"]
)
SIGN_INS = Counter("weftkit_sign_ins_total", "Sign-ins by outcome.", ["engine", "outcome"])
SIGN_IN_SECONDS = Histogram(
    "weftkit_sign_in_seconds",
    "From the accepted socket to the relay.",
    ["engine"],
    buckets=SIGN_IN_BUCKETS,
)
HTTP_REQUESTS = Counter(
    "weftkit_http_requests_total",
    "Requests to engines over HTTP by operation and status.",
    ["engine", "operation", "status"],
)
HTTP_SECONDS = Histogram(
    "weftkit_http_request_seconds",
    "From the whole request to its answer.",
    ["engine", "operation"],
    buckets=HTTP_BUCKETS,
)
SERVER_SESSIONS = Counter(
    "weftkit_server_sessions_total",
    "Sessions with instances' servers that clients got, opened or reused.",
    ["engine", "outcome"],
)
SESSIONS_ENDED = Counter(
    "weftkit_sessions_ended_total", "Sessions that we ended, by reason.", ["engine", "outcome"]
)
UNITS = Counter(
    "weftkit_request_units_total",
    "Request units by class; outcome is admitted or refused.",
    ["engine", "class", "outcome"],
)
BYTES = Counter("weftkit_client_bytes_total", "Bytes by direction.", ["engine", "direction"])
LEASE_SECONDS = Histogram(
    "weftkit_lease_seconds", "Fetching units from the common window.", buckets=_LEASE_BUCKETS
)
LEASES = Counter("weftkit_leases_total", "Leases of units by outcome.", ["outcome"])
RECORDS = Gauge("weftkit_records_known", "Published records held.", multiprocess_mode="livemin")
FOLLOWING = Gauge(
    "weftkit_control_database_connected",
    "1 while the records are followed live (the least of all workers).",
    multiprocess_mode="livemin",
)
RECORDS_REFUSED = Counter("weftkit_records_refused_total", "Records that could not be read.")
SPOOLED = Gauge(
    "weftkit_spool_files_pending", "Spool files not delivered yet.", multiprocess_mode="livemax"
)
AUDIT_EVENTS = Counter("weftkit_audit_events_total", "Audit events by outcome.", ["outcome"])
FORWARDED = Counter(
    "weftkit_tokens_forwarded_total", "Tokens asked of another worker, by outcome.", ["outcome"]
)
WORKERS = Gauge("weftkit_workers_running", "Workers running.", multiprocess_mode="livesum")


def page(host_metrics: Path) -> bytes:
    """Return the metrics of all workers, and the host's, in Prometheus' text format."""
    return _workers() + _host(host_metrics)


def _workers() -> bytes:
    if not os.environ.get(DIRECTORY_VARIABLE):
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _host(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        # No host runs here now; the absence of its metrics says so.
        return b""
