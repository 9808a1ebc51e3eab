"""Waiting for the instance host's word: LISTEN on a connection of its own, bounded."""

from __future__ import annotations

from types import TracebackType
from uuid import UUID

import psycopg
from django.db import connection

from engines.kit.exchange import OBSERVED_CHANNEL


class HostReports:
    """The reports about one instance, from `open` on."""

    def __init__(self) -> None:
        self._listener: psycopg.Connection | None = None
        self._instance_id = ""

    def __enter__(self) -> HostReports:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.close()

    def open(self, instance_id: UUID) -> bool:
        """Begin to listen; True if that is new, so that the caller looks once more first."""
        if self._listener is not None:
            return False
        self._listener = psycopg.connect(**connection.get_connection_params(), autocommit=True)
        self._listener.execute(f"LISTEN {OBSERVED_CHANNEL}")
        self._instance_id = str(instance_id)
        return True

    def wait(self, seconds: float) -> None:
        """Return when the host reports about the instance, or after `seconds`."""
        assert self._listener is not None
        for report in self._listener.notifies(timeout=seconds):
            if report.payload == self._instance_id:
                return
