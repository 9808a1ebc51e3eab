"""A TCP proxy that hands bytes on in pieces of its choice, in both directions."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.stack import Connection

READ_BYTES_MAX = 65536

# Returns how long the next piece is.
Cut = Callable[[random.Random], int]


def one_byte(_: random.Random) -> int:
    """Every byte alone."""
    return 1


def ragged(dice: random.Random) -> int:
    """Mostly a few bytes, around the sizes of headers, and now and then many."""
    return dice.choice((1, 1, 2, 3, 4, 5, 6, 7, 9, 14, 64, 1000, 8191, 8192, 8193))


@dataclass
class Splitter:
    """Passes every connection of `port` on to `target`, cut by `cut`."""

    target: tuple[str, int]
    cut: Cut
    seed: int

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self.pieces = 0
        self._threads[0].start()

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return int(self._listening.getsockname()[1])

    def reached(self, row: Connection) -> Connection:
        """Return `row` with this proxy in its way."""
        return replace(row, uri=row.uri.replace(f":{row.port}/", f":{self.port}/"), port=self.port)

    def close(self) -> None:
        """Hang up everything."""
        for each in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listening, *self._sockets):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            self._sockets += client, server
            for number, ends in enumerate(((client, server), (server, client))):
                thread = threading.Thread(target=self._pass_on, args=(*ends, number))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, number: int) -> None:
        dice = random.Random(self.seed + number)
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            while data := source.recv(READ_BYTES_MAX):
                position = 0
                while position < len(data):
                    size = self.cut(dice)
                    sink.sendall(data[position : position + size])
                    position += size
                    self.pieces += 1
                    # Let the other end read this piece before the next one joins it.
                    os.sched_yield()
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def split(row: Connection, cut: Cut, seed: int) -> Iterator[Connection]:
    """Return `row` as it is reached through a splitter, for the length of the block."""
    splitter = Splitter(("127.0.0.1", row.port), cut, seed)
    try:
        yield splitter.reached(row)
    finally:
        splitter.close()
