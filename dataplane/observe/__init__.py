"""What leaves a worker for people and bills: logs, metrics, usage, audit events.

log          JSON lines; one logger a connection, so that no line mixes two tenants
metrics      Prometheus; labels are engine, class and outcome, never a tenant
tally        what each connection adds to them, kept for a moment and written at once
counters     the mmap'ed file in which a worker counts, and its life after the worker's death
meter        counters -> deltas in fsynced spool files
audit        audit events, bounded in memory and in rate
key_seen     when a key was last used
outbox       the one connection over which all of this reaches the control database
"""
