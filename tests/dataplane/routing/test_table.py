"""Records in memory: versions only rise, indexes follow, subscribers hear of each change."""

from __future__ import annotations

import dataclasses

from dataplane.routing.table import Entry, RecordTable
from engines.kit.records import InstanceRecord
from tests.dataplane.plane import instance, key

Heard = list[tuple[InstanceRecord | None, InstanceRecord | None]]


def listened() -> tuple[RecordTable, Heard]:
    table, heard = RecordTable(), []
    table.subscribe(lambda old, new: heard.append((old, new)))
    return table, heard


def test_an_older_version_changes_nothing() -> None:
    table, heard = listened()
    new = instance(handle="new", version=5)
    assert table.put(Entry(new, "b"))
    assert not table.put(Entry(dataclasses.replace(new, handle="old", version=4), "a"))
    assert not table.put(Entry(dataclasses.replace(new, handle="same", version=5), "a"))
    assert table.get(new.instance_id) is new
    assert heard == [(None, new)]


def test_indexes_follow_a_change() -> None:
    table, heard = listened()
    (alice, _), (bob, _) = key(), key()
    old = instance(alice, handle="old", version=1, is_default=True)
    new = dataclasses.replace(old, credentials=(bob,), handle="new", version=2, is_default=False)
    table.put(Entry(old, ""))
    assert table.by_key(alice.key_id) == (old, alice)
    table.put(Entry(new, ""))
    assert table.by_key(alice.key_id) is None
    assert table.by_user(new.instance_id, alice.username) is None
    assert table.by_handle("old") is None
    assert table.default("line") is None
    assert table.by_key(bob.key_id) == (new, bob)
    assert table.by_handle("new") is new
    assert heard[-1] == (old, new)


def test_a_removed_instance_leaves_nothing_behind() -> None:
    table, heard = listened()
    alice, _ = key()
    record = instance(alice, is_default=True)
    table.put(Entry(record, ""))
    table.observe(record.instance_id, 7)
    assert table.remove(record.instance_id)
    assert not table.remove(record.instance_id)
    assert len(table) == 0
    assert table.by_handle(record.handle) is None
    assert table.by_key(alice.key_id) is None
    assert table.default("line") is None
    assert table.storage_bytes == {}
    assert heard[-1] == (record, None)


def test_a_handle_that_moved_stays_with_its_new_instance() -> None:
    table, _ = listened()
    first, second = instance(handle="h", version=1), instance(handle="h", version=2)
    table.put(Entry(first, ""))
    table.put(Entry(second, ""))
    table.remove(first.instance_id)
    assert table.by_handle("h") is second


def test_observed_size_is_told_once() -> None:
    table, heard = listened()
    record = instance()
    table.put(Entry(record, ""))
    table.observe(record.instance_id, 7)
    table.observe(record.instance_id, 7)
    table.observe("00000000-0000-0000-0000-000000000000", 7)
    assert heard[1:] == [(record, record)]
