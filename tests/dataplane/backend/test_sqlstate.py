"""SQLSTATE -> Reason."""

from __future__ import annotations

import pytest

from dataplane.backend.sqlstate import CLASSES, CODES, to_request_error
from engines.kit.errors import Reason


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("23505", Reason.CONFLICT),
        ("23514", Reason.CONFLICT),
        ("40001", Reason.CONFLICT),
        ("42P01", Reason.NOT_FOUND),
        ("42601", Reason.INTERNAL),
        ("57014", Reason.TIMEOUT),
        ("53100", Reason.QUOTA),
        ("08006", Reason.BACKEND),
        ("22012", Reason.MALFORMED),
        ("", Reason.INTERNAL),
    ],
)
def test_the_whole_code_wins_over_its_class(sqlstate: str, reason: Reason) -> None:
    error = to_request_error(sqlstate)
    assert (error.reason, error.sqlstate) == (reason, sqlstate)


def test_tables_are_well_formed() -> None:
    assert all(len(code) == 5 for code in CODES)
    assert all(len(code) == 2 for code in CLASSES)
    assert list(CODES) == sorted(CODES)
