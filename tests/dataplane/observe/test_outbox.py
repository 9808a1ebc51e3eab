"""The way out to a real control database, with only the data plane's own rights."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dataplane.config import Config
from dataplane.observe.audit import AuditTrail
from dataplane.observe.counters import BYTES_IN_WORD, BYTES_OUT_WORD, COUNTER_WORD
from dataplane.observe.key_seen import KeySeen
from dataplane.observe.meter import Meter
from dataplane.observe.outbox import Outbox
from dataplane.worker import SystemClock
from engines.kit.exchange import INTAKE_CHANNEL
from engines.kit.ports import RequestClass
from tests.dataplane.plane import MASTER_KEY, PEPPER, ControlDatabase, instance

RECORD = instance()


class Out:
    """An outbox with all that it empties."""

    def __init__(self, home: Path, dsn: str) -> None:
        clock = SystemClock()
        config = Config(
            home=home, run_dir=home, database_url=dsn, redis_url="", master_key=MASTER_KEY,
            peppers={1: PEPPER}, ports={}, admin_port=0,
        )  # fmt: skip
        self.meter = Meter(home / "usage", "dataplane/0", clock.now())
        self.audit = AuditTrail(home / "audit", clock)
        self.key_seen = KeySeen()
        self.outbox = Outbox(
            config,
            clock,
            self.meter,
            self.audit,
            self.key_seen,
            before_spooling=lambda: None,
        )

    def count(self, read: int) -> None:
        slot = self.meter.slot(RECORD.instance_id, "line", 1.0)
        slot.cells[slot.base + COUNTER_WORD + RequestClass.READ] += read
        slot.cells[slot.base + BYTES_IN_WORD] += 10 * read
        slot.cells[slot.base + BYTES_OUT_WORD] += 20 * read

    def emit(self) -> None:
        self.audit.emit(
            "weftkit.line.session.start", record=RECORD, initiator="wk_a", address="10.0.0.1",
            outcome="failure", reason_code=401,
        )  # fmt: skip


@pytest.fixture
def out(tmp_path: Path, database: ControlDatabase) -> Out:
    return Out(tmp_path, database.dataplane_dsn)


async def test_usage_audit_and_last_used_arrive(out: Out, database: ControlDatabase) -> None:
    out.count(read=3)
    out.emit()
    out.key_seen.note("aaaaaaaaaaaa", 1000.0)
    await out.outbox.flush()
    out.count(read=4)
    out.key_seen.note("aaaaaaaaaaaa", 900.0)
    await out.outbox.close(deliver_within_s=5)
    usage = database.usage(RECORD)
    assert (usage["read"], usage["bytes_in"], usage["bytes_out"]) == (7, 70, 140)
    ((body,),) = database.rows("SELECT body FROM publish.audit_intake")
    assert body["reason_code"] == 401
    # An older sighting never sets a newer one back.
    assert database.rows(
        "SELECT key_id, extract(epoch FROM last_used_at)::int FROM publish.key_seen"
    ) == [("aaaaaaaaaaaa", 1000)]
    left = [path.name for path in (out.meter.directory).iterdir()]
    assert left == []


async def test_intake_is_announced_with_the_instance(out: Out, database: ControlDatabase) -> None:
    listening: Any = await asyncpg.connect(database.dsn)
    heard: asyncio.Queue[str] = asyncio.Queue()
    await listening.add_listener(INTAKE_CHANNEL, lambda *event: heard.put_nowait(event[3]))
    out.count(read=1)
    await out.outbox.flush()
    async with asyncio.timeout(5):
        assert await heard.get() == RECORD.instance_id
    await listening.close()
    await out.outbox.close(deliver_within_s=5)


async def test_delivering_twice_counts_once(
    out: Out, database: ControlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process had died between the insert and the removal of the spool file."""
    out.count(read=5)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        await out.outbox.flush()
    assert len(out.meter.deliverable()) == 1
    await out.outbox.flush()
    assert out.meter.deliverable() == []
    assert database.usage(RECORD)["read"] == 5
    await out.outbox.close(deliver_within_s=5)


async def test_a_connection_cut_while_idle_is_replaced(out: Out, database: ControlDatabase) -> None:
    out.count(read=1)
    await out.outbox.flush()
    database.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'weftkit-dataplane-outbox' AND datname = current_database()"
    )
    out.count(read=1)
    await out.outbox.flush()
    await out.outbox.flush()
    assert database.usage(RECORD)["read"] == 2
    await out.outbox.close(deliver_within_s=5)


async def test_a_damaged_spool_file_is_set_aside_and_stops_no_other(
    out: Out, database: ControlDatabase
) -> None:
    damaged = [out.meter.directory / f"{'0' * 32}-1.json", out.audit._directory / "x.json"]
    for path in damaged:
        path.write_text("{half a fi")
    out.count(read=2)
    out.emit()
    await out.outbox.flush()
    assert database.usage(RECORD)["read"] == 2
    assert len(database.rows("SELECT FROM publish.audit_intake")) == 1
    assert all(path.with_suffix(".damaged").exists() for path in damaged)
    await out.outbox.close(deliver_within_s=5)


async def test_everything_waits_while_the_database_is_away(
    tmp_path: Path, database: ControlDatabase
) -> None:
    away = Out(tmp_path, "postgresql://nobody@/none?host=/nowhere")
    away.count(read=6)
    away.emit()
    away.key_seen.note("bbbbbbbbbbbb", 1000.0)
    await away.outbox.flush()
    assert away.key_seen.take() == {"bbbbbbbbbbbb": 1000.0}
    await away.outbox.close(deliver_within_s=5)
    back = Out(tmp_path, database.dataplane_dsn)
    await back.outbox.flush()
    assert database.usage(RECORD)["read"] == 6
    assert len(database.rows("SELECT FROM publish.audit_intake")) == 1
    await back.outbox.close(deliver_within_s=5)


async def test_events_that_the_database_refuses_stop_no_others(
    out: Out, database: ControlDatabase
) -> None:
    refused = out.audit._directory / "0.json"
    refused.write_text('[{"event_id": "00000000-0000-0000-0000-000000000001", "who": "\\u0000"}]')
    out.emit()
    out.key_seen.note("aaaaaaaaaaaa", 1000.0)
    await out.outbox.flush()
    assert len(database.rows("SELECT FROM publish.audit_intake")) == 1
    assert refused.with_suffix(".damaged").exists()
    assert out.key_seen.take() == {}
    await out.outbox.close(deliver_within_s=5)
