"""What no well-behaved client does: one byte at a time, never reading, hanging up, plain garbage.

All of it goes through the whole stack with one data-plane worker, whose memory, descriptors and
pid are watched from outside (`watch.py`). `splitter.py` cuts a real driver's stream into pieces;
`raw.py` signs in by hand, for sessions that no driver would hold.
"""
