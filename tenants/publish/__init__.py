"""The only writer of the records that the data plane reads, and the reader of what it reports.

The tables are `engines/kit/exchange.py`'s and no Django models: a data plane without Django shares
them. `host_tasks` has the long work that hosts are given.
"""
