"""Tests of the data plane: parts alone, and real worker processes with a small engine of their own.

`line_engine` is that engine, `line_process` runs it as worker or master, `plane` starts them
against the fixtures' PostgreSQL and Redis and publishes records.
"""
