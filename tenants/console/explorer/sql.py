"""Runs the text of the SQL console: within a time, a number of rows, and a number of bytes.

The text is sent as it is, and may hold several statements. Rows come one by one, so that a result
that is too large is given up while it arrives, not when it is in memory. A running text can be
cancelled by another request of the same person (`running`), at whatever web process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
from psycopg import postgres, pq

from engines.kit.records import Role
from tenants.console.explorer.access import KEYRING, Access
from tenants.console.explorer.running import running

DATABASE = "weftkit"  # of every relational instance
TEXT_CHARACTERS_MAX = 100_000
BYTES_MAX = 8 * 2**20
ROWS_MAX = 1000
SECONDS_MAX = 60
RESULTS_MAX = 20
NOTICES_MAX = 20
CONNECT_SECONDS = 5
# The data plane learns of a new credential within a second.
NEW_SECONDS = 5.0
LOOK_SECONDS = 0.5
# What a text takes beside its statement: to sign in, and to be told that it was too late.
SPARE_SECONDS = round(NEW_SECONDS + 3 * CONNECT_SECONDS)
# Where Linux' struct tcp_info has tcpi_bytes_received.
RECEIVED_AT = 128

STATUS, FIELD = pq.ExecStatus, pq.DiagnosticField


@dataclass(slots=True)
class Result:
    """One statement's result; a value None is NULL."""

    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: list[list[str | None]] = field(default_factory=list)
    tag: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """What the server, or a limit of the console, refused. `position` counts characters from 1."""

    message: str
    sqlstate: str = ""
    detail: str = ""
    hint: str = ""
    position: int = 0


@dataclass(slots=True)
class Run:
    """What became of a text: the results before the failure, if there was one."""

    results: list[Result] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    failure: Failure | None = None
    milliseconds: int = 0


class _TooLargeError(Exception):
    pass


class _TooLateError(Exception):
    pass


def sql_run(
    *, access: Access, text: str, who: str, run_id: str, seconds: int = 10, rows: int = 100
) -> Run:
    """Run `text`. What the server refuses is in the result, not raised."""
    seconds, rows = min(seconds, SECONDS_MAX), min(rows, ROWS_MAX)
    run = Run()
    texts = running()
    with texts.entered(who, run_id, seconds + SPARE_SECONDS):
        started = time.monotonic()
        try:
            with _connected(access, seconds) as connection:
                texts.connected(who, run_id, functools.partial(_ask_to_cancel, connection))
                if texts.is_cancelled(who, run_id):
                    run.failure = Failure("It was cancelled before it began.", "57014")
                else:
                    deadline = time.monotonic() + seconds
                    look = functools.partial(_cancel_again, connection, who, run_id)
                    _collect(connection, text, run, rows, deadline, look)
        except psycopg.Error as error:
            run.failure = run.failure or _failure_of(error)
        run.milliseconds = round((time.monotonic() - started) * 1000)
    return run


@contextlib.contextmanager
def _connected(access: Access, seconds: int) -> Iterator[psycopg.Connection]:
    read_only = "on" if access.role is Role.READ else "off"
    options = f"-c statement_timeout={seconds * 1000} -c default_transaction_read_only={read_only}"
    connection = _signed_in(access, options)
    try:
        yield connection
    finally:
        connection.close()


def _signed_in(access: Access, options: str) -> psycopg.Connection:
    deadline = access.made_at + NEW_SECONDS
    while True:
        try:
            return psycopg.connect(
                host=access.host,
                port=access.port,
                user=access.username,
                password=access.password,
                dbname=DATABASE,
                sslmode="prefer",
                connect_timeout=CONNECT_SECONDS,
                application_name="weftkit-console",
                options=options,
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            if "28P01" not in str(error.sqlstate or "") and "password" not in str(error):
                raise
            if time.monotonic() > deadline:
                KEYRING.forget(access)
                raise
        time.sleep(0.1)


def _collect(
    connection: psycopg.Connection,
    text: str,
    run: Run,
    rows: int,
    deadline: float,
    look: Callable[[], None],
) -> None:
    """Send `text` and fill `run`; what was too much ends the connection."""
    raw = connection.pgconn
    connection.add_notice_handler(lambda notice: _note(run, notice))
    raw.send_query(text.encode())
    raw.set_single_row_mode()
    # The server's own limit comes first; this is for one that does not answer.
    reader = _Reader(raw, deadline + CONNECT_SECONDS, look)
    current = Result()
    try:
        while (answer := reader.next()) is not None:
            status = answer.status
            if status == STATUS.FATAL_ERROR:
                run.failure = _failure_of_result(answer)
            elif status == STATUS.SINGLE_TUPLE:
                current = _with_row(run, current, answer, rows)
            elif status in (STATUS.TUPLES_OK, STATUS.COMMAND_OK, STATUS.EMPTY_QUERY):
                _ended(run, current, answer)
                current = Result()
            else:
                run.failure = Failure("COPY to and from the client is not part of this console.")
                raise _TooLateError
            if current.is_cut and len(current.rows) >= rows:
                _cut(connection, run)
                return
    except _TooLargeError:
        run.failure = Failure(f"The result is larger than {BYTES_MAX // 2**20} MiB.")
        _cut(connection, run)
    except _TooLateError:
        run.failure = run.failure or Failure("The server did not answer in time.")
        _cut(connection, run)


class _Reader:
    """Results one after another, with a deadline and a count of the bytes that came."""

    def __init__(self, raw: pq.abc.PGconn, deadline: float, look: Callable[[], None]) -> None:
        self._raw = raw
        self._deadline = deadline
        self._look = look
        self._look_at = time.monotonic() + LOOK_SECONDS

    def next(self) -> pq.abc.PGresult | None:
        while self._raw.is_busy():
            now = time.monotonic()
            if now >= self._deadline:
                raise _TooLateError
            if now >= self._look_at:
                self._look()
                self._look_at = time.monotonic() + LOOK_SECONDS
            patience = min(self._deadline - now, LOOK_SECONDS)
            if not select.select([self._raw.socket], [], [], patience)[0]:
                continue
            if _received_bytes(self._raw.socket) > BYTES_MAX:
                raise _TooLargeError
            self._raw.consume_input()
        if _received_bytes(self._raw.socket) > BYTES_MAX:
            raise _TooLargeError
        return self._raw.get_result()


def _received_bytes(descriptor: int) -> int:
    """Return how many bytes the kernel has received on a TCP connection (tcpi_bytes_received)."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[RECEIVED_AT : RECEIVED_AT + 8], sys.byteorder)


def _with_row(run: Run, current: Result, answer: pq.abc.PGresult, rows: int) -> Result:
    if not current.columns:
        current.columns = _columns(answer)
        if len(run.results) < RESULTS_MAX:
            run.results.append(current)
    if len(current.rows) >= rows:
        current.is_cut = True
    else:
        current.rows.append([_text(answer.get_value(0, i)) for i in range(answer.nfields)])
    return current


def _ended(run: Run, current: Result, answer: pq.abc.PGresult) -> None:
    current.tag = (answer.command_status or b"").decode(errors="replace")
    if not current.columns:
        current.columns = _columns(answer)
        if current.tag and len(run.results) < RESULTS_MAX:
            run.results.append(current)


def _cut(connection: psycopg.Connection, run: Run) -> None:
    """Stop the server's work on what nobody will read; the rest of the text is not run."""
    _ask_to_cancel(connection)
    connection.close()
    if run.results and run.results[-1].is_cut:
        run.results[-1].tag = run.results[-1].tag or "more rows were not read"


def _cancel_again(connection: psycopg.Connection, who: str, run_id: str) -> None:
    if running().is_cancelled(who, run_id):
        _ask_to_cancel(connection)


def _ask_to_cancel(connection: psycopg.Connection) -> None:
    if not connection.closed:
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=CONNECT_SECONDS)


def _columns(answer: pq.abc.PGresult) -> list[tuple[str, str]]:
    found = []
    for index in range(answer.nfields):
        known = postgres.types.get(answer.ftype(index))
        name = (answer.fname(index) or b"").decode(errors="replace")
        found.append((name, known.name if known else str(answer.ftype(index))))
    return found


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _note(run: Run, notice: psycopg.errors.Diagnostic) -> None:
    if len(run.notices) < NOTICES_MAX:
        run.notices.append(f"{notice.severity}: {notice.message_primary}"[:1000])


def _failure_of(error: psycopg.Error) -> Failure:
    diagnostic = error.diag
    return Failure(
        message=(diagnostic.message_primary or str(error).strip() or "The connection failed.")[
            :2000
        ],
        sqlstate=error.sqlstate or "",
        detail=diagnostic.message_detail or "",
        hint=diagnostic.message_hint or "",
    )


def _failure_of_result(answer: pq.abc.PGresult) -> Failure:
    def part(name: pq.DiagnosticField) -> str:
        return (answer.error_field(name) or b"").decode(errors="replace")

    position = part(FIELD.STATEMENT_POSITION)
    return Failure(
        message=part(FIELD.MESSAGE_PRIMARY) or "The server refused the statement.",
        sqlstate=part(FIELD.SQLSTATE),
        detail=part(FIELD.MESSAGE_DETAIL),
        hint=part(FIELD.MESSAGE_HINT),
        position=int(position) if position.isdecimal() else 0,
    )
