"""Pure: months of UTC as half-open periods."""

from __future__ import annotations

from datetime import datetime, timedelta


def month_start(moment: datetime) -> datetime:
    """Return the first instant of the month of `moment` (UTC)."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(start: datetime) -> datetime:
    """Return the first instant of the next month."""
    return month_start(start + timedelta(days=31))


def month_before(start: datetime) -> datetime:
    """Return the first instant of the month before that of `start`."""
    return month_start(start - timedelta(days=1))
