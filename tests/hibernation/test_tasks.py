"""A task of the control plane on an instance that sleeps."""

from __future__ import annotations

from engines.kit.tasks import Kind, State
from tests.hibernation.rig import Rig
from tests.host.rdb_files import new_export


def test_the_export_of_a_sleeping_instance_wakes_it(rig: Rig) -> None:
    sleeper = rig.sleeper("inmemory")
    with sleeper.client() as client:
        client.write(1)
    sleeper.wait("hibernated")
    task = rig.control.start_task(sleeper.record, Kind.RDB_EXPORT, file=new_export())
    result = rig.control.wait_task(task, State.DONE)["result"]
    assert result["size_bytes"] > 0
    sleeper.wait("hibernated")
    assert sleeper.use() == {1}
