"""All HTTP connections of one engine in one worker: made, watched, counted, ended.

The listener accepts and does TLS as for every engine, then hands the client over (`take`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from dataplane.config import Bounds
from dataplane.observe import metrics
from dataplane.observe.log import ConnectionLog
from dataplane.observe.tally import Spread, Tally, tally_of
from dataplane.server.channel import ClientStream
from dataplane.server.web.connection import HttpConnection
from dataplane.server.web.framing import BodyRoom, FramingError
from dataplane.server.web.http_ports import EngineHttpPorts
from engines.kit.contract import EngineSpec
from engines.kit.errors import Reason
from engines.kit.http.whole import HttpAnswer

# How often deadlines are looked at; a wait may be longer than its bound by so much.
_LOOK_S = 0.25
# What an operator should see; that the storage is away says its own process.
_OUR_FAULT = {Reason.INTERNAL}


class HttpFront:
    """The connections of one engine."""

    def __init__(self, spec: EngineSpec, ports: EngineHttpPorts, bounds: Bounds) -> None:
        assert spec.serve is not None, f"{spec.name} serves no HTTP"
        self._spec = spec
        self._ports = ports
        self.bounds = bounds
        self.loop = asyncio.get_running_loop()
        self.body_bytes_max = spec.body_bytes_max
        self.room = BodyRoom(bounds.bodies_bytes_max)
        self.handler = spec.serve(ports)
        self._connections: set[HttpConnection] = set()
        # By operation and status, of both of which there are few.
        self._tallies: dict[tuple[str, int], tuple[Tally, Spread]] = {}
        self._spreads: dict[str, Spread] = {}
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[HttpConnection]:
        return iter(list(self._connections))

    def take(self, client: ClientStream, log: ConnectionLog) -> None:
        """Serve a client from now on."""
        connection = HttpConnection(self, client, log)
        self._connections.add(connection)
        self._ports.opened(connection)
        connection.start(client)
        if self._look is None:
            self._look = self.loop.call_later(_LOOK_S, self._look_at_deadlines)

    def observe(self, answer: HttpAnswer, seconds: float, log: ConnectionLog) -> None:
        """Count an answer, by what it was for; log what is our own fault."""
        tallies = self._tallies.get((answer.operation, answer.status))
        if tallies is None:
            tallies = self._tallies_of(answer.operation, answer.status)
        tallies[0].add()
        tallies[1].observe(seconds)
        if answer.error is not None and answer.error.reason in _OUR_FAULT:
            log.error("request_failed", operation=answer.operation, exc_info=answer.error)

    def refusal(self, status: int) -> HttpAnswer:
        """Return what is answered to what is no request."""
        return self._spec.refuse(status) if self._spec.refuse else HttpAnswer(status)

    def refused(self, connection: HttpConnection, fault: FramingError) -> None:
        """Count and log a connection that is ended by a refusal."""
        self._tallies_of("", fault.status)[0].add()
        connection.log.info("request_refused", status=fault.status, reason=str(fault))

    def closed(self, connection: HttpConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._ports.closed(connection)

    def drain(self) -> None:
        """Close what is idle; let the rest finish what it has begun."""
        for connection in self:
            connection.end_when_idle()

    def abort(self) -> None:
        """Close all that is left."""
        for connection in self:
            connection.abort()

    def _look_at_deadlines(self) -> None:
        now = self.loop.time()
        for connection in self:
            if connection.deadline <= now:
                connection.overdue(now)
        self._look = (
            self.loop.call_later(_LOOK_S, self._look_at_deadlines) if self._connections else None
        )

    def _tallies_of(self, operation: str, status: int) -> tuple[Tally, Spread]:
        key = (operation, status)
        if key not in self._tallies:
            name, shown = self._spec.name, operation or "none"
            if shown not in self._spreads:
                seconds = metrics.HTTP_SECONDS.labels(name, shown)
                self._spreads[shown] = Spread(seconds, metrics.HTTP_BUCKETS)
            counted = tally_of(metrics.HTTP_REQUESTS, name, shown, str(status))
            self._tallies[key] = (counted, self._spreads[shown])
        return self._tallies[key]
