"""The engines: one package for each emulated database, `kit` for what they share, and `registry`.

Libraries only: no sockets, no Django, no clock of their own. Read `kit/contract.py` first (what an
engine is), then `kit/ports.py` (what it is given), then any engine in the order its package lists.
"""
