"""Micro-units as decimal text and back. No float ever holds money."""

from __future__ import annotations

import re

MICROS = 10**6
CENT = 10**4
AMOUNT = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?", re.ASCII)


def decimal_text(micros: int, places: int = 6) -> str:
    """Return e.g. "-12.345678"; with fewer places what is below is rounded, half up."""
    step = 10 ** (6 - places)
    steps = (2 * abs(micros) + step) // (2 * step)
    whole, rest = divmod(steps, 10**places)
    sign = "-" if micros < 0 and steps else ""
    return f"{sign}{whole}.{rest:0{places}d}" if places else f"{sign}{whole}"


def unit_price_text(micros: int, per: int, unit_size: int) -> str:
    """Return the price of `unit_size` of what costs `micros` for each `per`."""
    return decimal_text((2 * micros * unit_size + per) // (2 * per))


def quantity_text(quantity: int, per: int, places: int = 9) -> str:
    """Return `quantity` in units of `per`, rounded half up, without trailing zeros."""
    scale = 10**places
    steps = (2 * quantity * scale + per) // (2 * per)
    whole, rest = divmod(steps, scale)
    return f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".")


def micros_of(text: str) -> int | None:
    """Return the micro-units of an amount that a person wrote, None if it is not one."""
    match = AMOUNT.fullmatch(text.strip())
    if match is None:
        return None
    return int(match[1]) * MICROS + int((match[2] or "").ljust(6, "0"))
