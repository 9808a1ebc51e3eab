"""Going round the instances of a schema engine, for work of theirs that is due (`EngineSpec.look`).

Each worker of a data plane has its share of the instances. A round takes `intervals.look_s`, and
more where there are so many that it would be a burden.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby

from dataplane.config import Config
from dataplane.observe.log import get_logger
from dataplane.routing.table import RecordTable
from engines.kit.contract import EngineSpec
from engines.kit.errors import RequestError
from engines.kit.http.whole import HttpPorts
from engines.kit.records import InstanceRecord, Status

# How many instances are looked at with one statement, and the least time between two of these.
SLICE_INSTANCES = 100
SLICE_SECONDS_MIN = 0.25


class Rounds:
    """The rounds of one engine in one worker."""

    def __init__(
        self, spec: EngineSpec, ports: HttpPorts, table: RecordTable, config: Config, number: int
    ) -> None:
        assert spec.look is not None, f"{spec.name} has no work of its own"
        self._engine = spec.name
        self._look = spec.look
        self._ports = ports
        self._table = table
        self._round_s = config.intervals.look_s
        self._workers = config.workers
        self._number = number
        self._log = get_logger("rounds", engine=spec.name)

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            slices = list(self._slices())
            pause_s = max(SLICE_SECONDS_MIN, self._round_s / max(1, len(slices)))
            for records in slices:
                await self._look_at(records)
                await asyncio.sleep(pause_s)
            if not slices:
                await asyncio.sleep(self._round_s)

    def _slices(self) -> Iterator[Sequence[InstanceRecord]]:
        """Yield this worker's share of the instances in service, each slice of one cell."""
        mine = [
            entry.record
            for entry in self._table.entries()
            if entry.record.engine == self._engine
            and entry.record.status is Status.ACTIVE
            and zlib.crc32(entry.record.instance_id.encode()) % self._workers == self._number
        ]
        mine.sort(key=lambda record: record.cell)
        for _, group in groupby(mine, key=lambda record: record.cell):
            records = list(group)
            for at in range(0, len(records), SLICE_INSTANCES):
                yield records[at : at + SLICE_INSTANCES]

    async def _look_at(self, records: Sequence[InstanceRecord]) -> None:
        try:
            await self._look(self._ports, records)
        except RequestError as error:
            # The cell is away; the next round comes.
            self._log.info("look_ended", cell=records[0].cell, reason=error.reason.value)
        except Exception:  # noqa: BLE001 - one cell's fault must not end the rounds of the others
            self._log.exception("look_failed", cell=records[0].cell)
