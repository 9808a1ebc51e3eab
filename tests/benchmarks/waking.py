"""How long a client waits whose instance sleeps: `python -m tests.benchmarks.waking`.

From the client's connect to the answer to its first request, with sign-in, through the data plane;
beside it the same on an instance that is awake. Nothing else runs on this rig; what runs beside it
on the machine is in the figures. Part of the wake is also measured by the host alone: from the
question to the open door.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from tests.hibernation.rig import ENGINES, Rig, Sleeper, running_rig
from tests.servers import run_postgres, run_redis, temporary_home

ROUNDS = 60
ROWS = 1000


def main() -> None:
    """Measure both engines and print a table."""
    with ExitStack() as held:
        root = held.enter_context(temporary_home())
        postgres = held.enter_context(run_postgres(root))
        redis = held.enter_context(run_redis(root))
        rig = held.enter_context(running_rig(postgres, redis, "waking"))
        print(f"{'':24}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}   {ROUNDS} rounds")
        for engine in ENGINES:
            _measure(rig, engine)


def _measure(rig: Rig, engine: str) -> None:
    # After 0 s: as soon as nobody is there.
    asleep, awake = rig.sleeper(engine, 0), rig.sleeper(engine, None)
    for each in (asleep, awake):
        with each.client() as client:
            for number in range(ROWS):
                client.write(number)
    warm = [_seconds(awake) for _ in range(ROUNDS)]
    cold = []
    for _ in range(ROUNDS):
        asleep.wait("hibernated")
        cold.append(_seconds(asleep))
    host = [event["milliseconds"] / 1000 for event in asleep.events("woken")][-ROUNDS:]
    for name, seconds in (("wakes", cold), ("is awake", warm), ("wake, host's part", host)):
        cuts = statistics.quantiles(seconds, n=20)
        row = (cuts[9], cuts[18], max(seconds))
        print(f"{engine + ' ' + name:28}".ljust(24) + "".join(f"{s * 1000:9.1f}" for s in row))


def _seconds(sleeper: Sleeper) -> float:
    started = time.perf_counter()
    with sleeper.client() as client:
        client.first()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
