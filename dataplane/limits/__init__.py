"""What an instance may use, decided before work is done.

    leases        the one-second window that all workers share in Redis, and life without Redis
    admission     the state of an instance in this worker, and the gate that every connection has
    connections   the plan's bound on open connections, over all workers of the host

An unmetered plan costs one addition a request. The figures are those of engines/kit/limits.py.
"""
