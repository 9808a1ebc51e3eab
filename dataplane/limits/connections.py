"""The plan's bound on connections of one instance, exact over all workers of this host.

Every worker keeps its number of open connections of an instance in its counter file
(observe/counters.py) and adds up those of the others, by shared memory: no message, no wait. A
worker that dies takes its number with it, because its file's lock is free then. The instance's
server is on this host too, so workers elsewhere have no part in the sum.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from dataplane.observe.counters import CONNECTIONS_WORD, KEPT_WORD, SUFFIX, CounterFile, Slot
from dataplane.observe.meter import Meter

_SETTLED_NS = 100_000_000


class _Peer:
    """Another worker's counter file, with the slots that were found in it so far."""

    def __init__(self, file: CounterFile) -> None:
        self.file = file
        self._bases: dict[str, int] = {}
        self._slots_seen = 0

    def number(self, instance_id: str, word: int) -> int:
        if self._slots_seen < self.file.slots_used:
            self._bases.update(self.file.instances(self._slots_seen))
            self._slots_seen = len(self._bases)
        base = self._bases.get(instance_id)
        return self.file.cells[base + word] if base is not None else 0


class ConnectionCounts:
    """Counts of this worker and of its peers."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._directory = str(meter.directory)
        self._peers: dict[Path, _Peer] = {}
        # When the directory had last changed at our last look, and whether that look may have
        # missed a change of the same moment.
        self._seen_ns = -1

    def open(
        self, instance_id: str, slot: Slot, connections_max: int, kind: int = CONNECTIONS_WORD
    ) -> bool:
        """Count one more connection; False (and not counted) if that is over the bound.

        Clients that share the server's sessions are counted apart (SHARING_WORD).
        """
        word = slot.base + kind
        # Count first, then look: two workers at once may both refuse, never both admit.
        slot.cells[word] += 1
        self._find_peers()
        if self._sum(instance_id, slot, kind) <= connections_max:
            return True
        self._drop_dead_peers()
        if self._sum(instance_id, slot, kind) <= connections_max:
            return True
        slot.cells[word] -= 1
        return False

    def close(self, slot: Slot, kind: int = CONNECTIONS_WORD) -> None:
        """Count one less."""
        slot.cells[slot.base + kind] -= 1

    def keep(self, slot: Slot, change: int) -> None:
        """Count sessions with the instance's server that are kept for the next client."""
        slot.cells[slot.base + KEPT_WORD] += change

    def kept(self, instance_id: str, slot: Slot) -> int:
        """Return how many sessions all workers keep."""
        return self._sum(instance_id, slot, KEPT_WORD)

    def is_over(self, instance_id: str, slot: Slot, connections_max: int) -> bool:
        """Say whether clients and kept sessions together are more than that."""
        return self._in_use(instance_id, slot) + self.kept(instance_id, slot) > connections_max

    def _in_use(self, instance_id: str, slot: Slot) -> int:
        return self._sum(instance_id, slot, CONNECTIONS_WORD)

    def _sum(self, instance_id: str, slot: Slot, word: int) -> int:
        own: int = slot.cells[slot.base + word]
        return own + sum(peer.number(instance_id, word) for peer in self._peers.values())

    def _find_peers(self) -> None:
        """Follow the workers that come and go, which shows in their directory's time."""
        changed_ns = os.stat(self._directory).st_mtime_ns
        if changed_ns == self._seen_ns:
            return
        # File systems count time in ticks: two changes may bear the same one.
        is_settled = time.time_ns() - changed_ns > _SETTLED_NS
        self._seen_ns = changed_ns if is_settled else -1
        present = set(self._meter.directory.glob(f"*{SUFFIX}")) - self._meter.own_paths
        for path in self._peers.keys() - present:
            self._peers.pop(path).file.close()
        for path in present - self._peers.keys():
            file = CounterFile.open(path)
            if file is not None:
                self._peers[path] = _Peer(file)

    def _drop_dead_peers(self) -> None:
        """Forget workers that were killed; asked only when their number would matter."""
        for path in [path for path, peer in self._peers.items() if not peer.file.is_owned()]:
            self._peers.pop(path).file.close()
