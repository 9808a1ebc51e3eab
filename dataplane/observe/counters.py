"""The file in which one worker counts: mmap'ed, so that a SIGKILL between two instructions loses
nothing, and locked, so that others see when its worker is gone.

    header   64 bytes   magic, uid, spooled sequence, slots used, microseconds of the last spooling
    slot    192 bytes   instance UUID, engine, counters, open connections, watermarks,
                        kept server sessions

All numbers are signed 64-bit words in the machine's own order, each written whole. Counters only
grow (a refund aside) and are never reset: what was spooled already is told by the watermarks beside
them. A slot is never given to another instance; a full file is followed by a second one.

The connection words are also read by the other workers (limits/connections.py).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

MAGIC: Final = b"WKCOUNT1"
SUFFIX: Final = ".counters"
SLOTS_MAX: Final = 4096

_WORD: Final = 8
_HEADER_WORDS: Final = 8
_SLOT_WORDS: Final = 24
_SPOOLED_SEQUENCE: Final = 3
_SLOTS_USED: Final = 4
_SPOOLED_AT: Final = 5
_ENGINE_BYTES: Final = 24

# Word offsets inside a slot. The first four follow `RequestClass`.
COUNTERS: Final = ("unlimited", "read", "write", "query", "refused", "bytes_in", "bytes_out")
COUNTER_WORD: Final = 5
REFUSED_WORD: Final = COUNTER_WORD + COUNTERS.index("refused")
BYTES_IN_WORD: Final = COUNTER_WORD + COUNTERS.index("bytes_in")
BYTES_OUT_WORD: Final = COUNTER_WORD + COUNTERS.index("bytes_out")
CONNECTIONS_WORD: Final = COUNTER_WORD + len(COUNTERS)
_WATERMARK_WORD: Final = CONNECTIONS_WORD + 1
KEPT_WORD: Final = _WATERMARK_WORD + len(COUNTERS)
SHARING_WORD: Final = KEPT_WORD + 1


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one instance is counted: add to `cells[base + <..>_WORD]`."""

    cells: memoryview
    base: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What one slot counted since it was spooled last, and the watermarks that this reaches."""

    index: int
    instance_id: str
    engine: str
    counts: tuple[int, ...]  # in the order of COUNTERS
    reached: tuple[int, ...]


class CounterFile:
    """One such file: made and written by its owner, or opened to be read or collected."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        size = (_HEADER_WORDS + SLOTS_MAX * _SLOT_WORDS) * _WORD
        self._map = mmap.mmap(descriptor, size)
        self._bytes = memoryview(self._map)
        self.cells: memoryview = self._bytes.cast("q")
        self.uid = UUID(bytes=bytes(self._bytes[_WORD : 3 * _WORD])).hex

    @classmethod
    def create(cls, directory: Path, now: float) -> CounterFile:
        """Make a new file and lock it for the life of this process."""
        uid = uuid4()
        path = directory / f"{uid.hex}{SUFFIX}"
        # Locked and complete before it gets its name: nobody can take it for a dead worker's.
        unnamed = directory / f"{uid.hex}.new"
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, (_HEADER_WORDS + SLOTS_MAX * _SLOT_WORDS) * _WORD)
        os.pwrite(descriptor, MAGIC + uid.bytes, 0)
        os.rename(unnamed, path)
        made = cls(path, descriptor)
        made.cells[_SPOOLED_AT] = int(now * 1e6)
        return made

    @classmethod
    def open(cls, path: Path) -> CounterFile | None:
        """Open another process's file; None if it is gone, another user's, or no such file."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        if os.pread(descriptor, len(MAGIC), 0) != MAGIC:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def try_lock(self) -> bool:
        """Become the owner of a dead worker's file; False while its owner lives."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def is_owned(self) -> bool:
        """Say whether the process that counts here is alive."""
        try:
            # Shared, so that two workers that look at once do not take each other for the owner.
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        """Let go of the map and the lock. Slots of this file must not be used any more."""
        self.cells.release()
        self._bytes.release()
        self._map.close()
        os.close(self._descriptor)

    @property
    def slots_used(self) -> int:
        """How many slots hold an instance."""
        return self.cells[_SLOTS_USED]

    @property
    def spooled_sequence(self) -> int:
        """The number of the last spool file whose watermarks are written here."""
        return self.cells[_SPOOLED_SEQUENCE]

    @property
    def spooled_at(self) -> float:
        """When that was: the start of the next delta."""
        return self.cells[_SPOOLED_AT] / 1e6

    def allocate(self, instance_id: str, engine: str) -> Slot | None:
        """Give the instance its slot; None if the file is full."""
        index = self.slots_used
        if index == SLOTS_MAX:
            return None
        base = _HEADER_WORDS + index * _SLOT_WORDS
        name = engine.encode().ljust(_ENGINE_BYTES, b"\0")[:_ENGINE_BYTES]
        start = base * _WORD
        self._bytes[start : start + 16 + _ENGINE_BYTES] = UUID(instance_id).bytes + name
        # The slot exists for readers only from here on.
        self.cells[_SLOTS_USED] = index + 1
        return Slot(self.cells, base)

    def instances(self, start: int = 0) -> Iterator[tuple[str, int]]:
        """Yield (instance id, base) of the slots from the one with index `start` on."""
        for index in range(start, self.slots_used):
            base = _HEADER_WORDS + index * _SLOT_WORDS
            yield str(UUID(bytes=bytes(self._bytes[base * _WORD : base * _WORD + 16]))), base

    def deltas(self, *, is_final: bool = False) -> list[Delta]:
        """Return what was counted and not spooled yet.

        A refund that comes after its unit was spooled is held until new units outweigh it; a dead
        worker's last delta (`is_final`) may be negative instead.
        """
        found = []
        for index, (instance_id, base) in enumerate(self.instances()):
            marks = self.cells[base + _WATERMARK_WORD : base + _WATERMARK_WORD + len(COUNTERS)]
            counts = self.cells[base + COUNTER_WORD : base + COUNTER_WORD + len(COUNTERS)]
            reached = tuple(
                count if is_final else max(count, mark)
                for count, mark in zip(counts, marks, strict=True)
            )
            changes = tuple(new - old for new, old in zip(reached, marks, strict=True))
            if any(changes):
                start = base * _WORD + 16
                engine = bytes(self._bytes[start : start + _ENGINE_BYTES]).rstrip(b"\0").decode()
                found.append(Delta(index, instance_id, engine, changes, reached))
        return found

    def advance(self, sequence: int, at: float, reached: dict[int, tuple[int, ...]]) -> None:
        """Note that the spool file `sequence` is durable and what it reached; safe to repeat."""
        for index, marks in reached.items():
            base = _HEADER_WORDS + index * _SLOT_WORDS + _WATERMARK_WORD
            for offset, mark in enumerate(marks):
                self.cells[base + offset] = mark
        self.cells[_SPOOLED_AT] = int(at * 1e6)
        self.cells[_SPOOLED_SEQUENCE] = sequence
        self._map.flush()
