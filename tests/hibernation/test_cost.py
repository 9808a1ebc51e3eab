"""What 300 instances cost while they sleep."""

from __future__ import annotations

from tests.hibernation.rig import ENGINES, Rig
from tests.servers import wait_until

INSTANCES = {"relational": 20, "inmemory": 280}
SLEEPING_BYTES_MAX = 20 * 2**20
ASLEEP_SECONDS_MAX = 240


def test_three_hundred_sleeping_instances_cost_less_than_twenty_megabytes(rig: Rig) -> None:
    for engine in ENGINES:
        # Host and workers have done once all that they will do.
        rig.sleeper(engine, 0).wait("hibernated")
    before = rig.memory_bytes()
    made = [rig.announce(engine, 0) for engine in ENGINES for _ in range(INSTANCES[engine])]

    def all_sleep() -> bool:
        return rig.control.count("hibernated") == len(made) + len(ENGINES)

    wait_until(all_sleep, "all of them sleep", ASLEEP_SECONDS_MAX)
    cost = rig.memory_bytes() - before
    print(f"{len(made)} sleeping instances: {cost / 2**20:.1f} MiB in host and data plane")
    assert [each for each in made if each.pids] == []
    assert cost < SLEEPING_BYTES_MAX
    for each in (made[0], made[-1]):
        assert each.use() == set()
