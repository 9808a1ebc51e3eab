"""The operator's port: metrics summed over workers, health, readiness."""

from __future__ import annotations

from collections.abc import Callable

from tests.dataplane.plane import ControlDatabase, Plane, instance, key, metric, until

NewPlane = Callable[..., Plane]


async def test_metrics_are_summed_over_all_workers(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    record = database.publish(instance(credential))
    plane = new_plane(workers=2)
    plane.start()
    await plane.serve(record)
    clients = [await plane.login(credential, password) for _ in range(12)]
    for client in clients:
        assert await client.ask("r one") == "r one"
        assert await client.ask("w two") == "w two"

    def connections() -> float:
        return metric(plane.admin("/metrics")[1], "weftkit_connections_open", engine="line")

    await until(lambda: connections() == 12, "both workers have written theirs")
    page = plane.admin("/metrics")[1]
    assert metric(page, "weftkit_workers_running") == 2
    assert metric(page, "weftkit_connections_open", engine="line") == 12
    assert metric(page, "weftkit_sign_ins_total", engine="line", outcome="admitted") == 12
    assert metric(page, "weftkit_sign_in_seconds_count", engine="line") == 12
    assert metric(page, "weftkit_control_database_connected") == 1
    assert metric(page, "weftkit_records_known") == 1

    def units(name: str) -> float:
        labels = {"engine": "line", "class": name, "outcome": "admitted"}
        return metric(plane.admin("/metrics")[1], "weftkit_request_units_total", **labels)

    await until(lambda: (units("read"), units("write")) == (12, 12), "the units")
    page = plane.admin("/metrics")[1]
    assert metric(page, "weftkit_client_bytes_total", engine="line", direction="in") == 12 * 12
    assert metric(page, "weftkit_client_bytes_total", engine="line", direction="out") == 12 * 12
    for name in (record.handle, record.instance_id, record.tenant, credential.username):
        assert name not in page, "a metric names a tenant's thing"


async def test_a_killed_workers_gauges_go_and_its_counters_stay(
    new_plane: NewPlane, database: ControlDatabase
) -> None:
    credential, password = key()
    record = database.publish(instance(credential))
    plane = new_plane()
    plane.start()
    await plane.serve(record)
    client = await plane.login(credential, password)
    # The worker's own page has all; a moment later it is in the worker's file as well.
    assert metric(plane.admin("/metrics")[1], "weftkit_connections_open") == 1
    await plane.kill_workers()
    assert await client.rest() in ("", "reset")
    page = plane.admin("/metrics")[1]
    assert metric(page, "weftkit_connections_open") == 0
    assert metric(page, "weftkit_sign_ins_total", outcome="admitted") == 1


async def test_health_and_readiness(plane: Plane) -> None:
    assert plane.admin("/healthz") == (200, "ok\n")
    assert plane.admin("/readyz") == (200, "ready\n")


async def test_other_paths_and_methods_are_refused(plane: Plane) -> None:
    assert plane.admin("/nothing") == (404, "not found\n")
    assert plane.admin("/metrics", method="POST") == (405, "method not allowed\n")
