"""Names and numbers of the write-ahead log: an LSN is a byte's position, a segment a file of it."""

from __future__ import annotations

from collections.abc import Sequence

from dataplane.host.template import WAL_SEGMENT_MEGABYTES

SEGMENT_BYTES = WAL_SEGMENT_MEGABYTES * 1024 * 1024
# A name counts segments in two words; the lower one goes up to 4 GiB of log.
SEGMENTS_PER_WORD = 2**32 // SEGMENT_BYTES


def lsn_number(text: str) -> int:
    """Return the position that `X/Y` names. Raises ValueError."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def segment_name(timeline: int, lsn: int) -> str:
    """Return the name of the segment in which a byte is."""
    high, low = divmod(lsn // SEGMENT_BYTES, SEGMENTS_PER_WORD)
    return f"{timeline:08X}{high:08X}{low:08X}"


def segment_place(name: str) -> tuple[int, int]:
    """Return timeline and number of the segment of that name."""
    timeline, high, low = (int(name[at : at + 8], 16) for at in (0, 8, 16))
    return timeline, high * SEGMENTS_PER_WORD + low


def is_segment(name: str) -> bool:
    """Say whether it is a segment's name; else it is that of a timeline's history."""
    return "." not in name


def first_gap(names: Sequence[str], needed: str) -> str:
    """Return the name of the first segment that is missing from `needed` on; "" where none is.

    A timeline begins in the segment in which the one before it was left.
    """
    places = sorted(segment_place(name) for name in names if is_segment(name))
    timeline, number = segment_place(needed)
    for found_timeline, found in places:
        if (found_timeline, found) < (timeline, number):
            continue  # older than what is needed, or the other timeline's end
        if found_timeline != timeline and found <= number:
            timeline, number = found_timeline, found
        if (found_timeline, found) != (timeline, number):
            return segment_name(timeline, number * SEGMENT_BYTES)
        number += 1
    return ""
