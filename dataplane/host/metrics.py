"""What the host counts. It has no port: the text goes to a file that the admin port shows too.

The file is replaced after every change, so it is as new as the host is alive; counters begin at
zero with every start of the host, as Prometheus expects of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dataplane.files import write_atomically

REGISTRY = CollectorRegistry()

_WAKE_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

INSTANCES = Gauge(
    "weftkit_instances",
    "Instances by the state of their server.",
    ["engine", "state"],
    registry=REGISTRY,
)
HIBERNATIONS = Counter(
    "weftkit_hibernations_total",
    "Instances that were put to sleep.",
    ["engine"],
    registry=REGISTRY,
)
# Its count is the number of wakes.
WAKE_SECONDS = Histogram(
    "weftkit_wake_seconds",
    "From a data plane's question to a server that takes its clients.",
    ["engine"],
    buckets=_WAKE_BUCKETS,
    registry=REGISTRY,
)


def write(path: Path, states: Iterable[tuple[str, str]]) -> None:
    """Replace the file; `states` are engine and state of every instance. Raises OSError."""
    INSTANCES.clear()
    for engine, state in states:
        INSTANCES.labels(engine, state).inc()
    write_atomically(path, generate_latest(REGISTRY))
