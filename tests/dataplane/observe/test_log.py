"""Log lines: JSON, bound to one connection, never blocking."""

from __future__ import annotations

import json
import os
import threading

import pytest

from dataplane.observe import log


def lines_of(read_end: int) -> list[dict[str, object]]:
    with os.fdopen(read_end) as stream:
        return [json.loads(line) for line in stream]


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def test_a_line_carries_only_what_its_own_logger_was_bound_to(pipe: tuple[int, int]) -> None:
    writer = log.LineWriter(pipe[1])
    log.configure("info", writer)
    first = log.get_logger("listener").bind(connection_id="1", instance="blue")
    second = log.get_logger("listener").bind(connection_id="2")
    first.info("signed_in")
    second.info("signed_in")
    second.debug("too quiet")
    writer.close()
    os.close(pipe[1])
    one, two = lines_of(pipe[0])
    assert (one["connection_id"], one["instance"], one["level"]) == ("1", "blue", "info")
    assert two["connection_id"] == "2"
    assert "instance" not in two


def test_an_error_carries_its_traceback_in_the_same_line(pipe: tuple[int, int]) -> None:
    writer = log.LineWriter(pipe[1])
    log.configure("info", writer)
    error = ValueError("who\nknows")
    log.get_logger("test").error("failed", exc_info=error)
    writer.close()
    os.close(pipe[1])
    (line,) = lines_of(pipe[0])
    assert "ValueError: who\nknows" in str(line["exception"])


def test_a_reader_that_does_not_read_costs_lines_but_no_time(pipe: tuple[int, int]) -> None:
    writer = log.LineWriter(pipe[1])
    log.configure("info", writer)
    logger = log.get_logger("test")
    # Far beyond what a pipe and the queue can hold.
    for number in range(log.LINES_MAX * 3):
        logger.info("line", number=number, filler="x" * 100)
    found: list[dict[str, object]] = []
    reader = threading.Thread(target=lambda: found.extend(lines_of(pipe[0])))
    reader.start()
    writer.close()
    os.close(pipe[1])
    reader.join()
    numbers = [int(str(line["number"])) for line in found if line["event"] == "line"]
    lost = sum(int(str(line["count"])) for line in found if line["event"] == "log_lines_lost")
    assert numbers == sorted(numbers)
    assert 1000 < len(numbers) < log.LINES_MAX * 3
    # Those at the very end had no line behind them that could tell of them.
    assert len(numbers) + lost <= log.LINES_MAX * 3
