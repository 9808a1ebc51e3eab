"""Names and numbers of the write-ahead log: an LSN is a byte's position, a segment a file of it.

How large the segments are was said when the data were made (initdb), so it is read from a server or
from its control file, and handed to all that counts in segments.
"""

from __future__ import annotations

from collections.abc import Sequence

# A name counts segments in two words; the lower one goes up to 4 GiB of log.
WORD_BYTES = 2**32
SEGMENT_BYTES = "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'"


def segment_name(timeline: int, lsn: int, segment_bytes: int) -> str:
    """Return the name of the segment in which a byte is."""
    high, low = divmod(lsn // segment_bytes, WORD_BYTES // segment_bytes)
    return f"{timeline:08X}{high:08X}{low:08X}"


def segment_place(name: str, segment_bytes: int) -> tuple[int, int]:
    """Return timeline and number of the segment of that name."""
    timeline, high, low = (int(name[at : at + 8], 16) for at in (0, 8, 16))
    return timeline, high * (WORD_BYTES // segment_bytes) + low


def is_segment(name: str) -> bool:
    """Say whether it is a segment's name; else it is that of a timeline's history."""
    return "." not in name


def first_gap(names: Sequence[str], needed: str, segment_bytes: int) -> str:
    """Return the name of the first segment that is missing from `needed` on; "" where none is.

    A timeline begins in the segment in which the one before it was left.
    """
    places = sorted(segment_place(name, segment_bytes) for name in names if is_segment(name))
    timeline, number = segment_place(needed, segment_bytes)
    for found_timeline, found in places:
        if (found_timeline, found) < (timeline, number):
            continue  # older than what is needed, or the other timeline's end
        if found_timeline != timeline and found <= number:
            timeline, number = found_timeline, found
        if (found_timeline, found) != (timeline, number):
            return segment_name(timeline, number * segment_bytes, segment_bytes)
        number += 1
    return ""
