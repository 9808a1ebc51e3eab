"""The tables and channels in which the two planes meet; nothing else is shared between them.

The control plane writes `publish.record` and reads the rest; the data plane and the instance hosts
do the opposite. `publish.task` is written by both: the control plane makes the row and says what it
wishes, the host says how far it is. Every write is followed by a NOTIFY in the same transaction, so
that listeners hear of it only once it is durable. The DDL is run by migrations of
`tenants/publish` and by the data plane's own tests.
"""

from __future__ import annotations

SCHEMA = "publish"

# Payload of each NOTIFY: the instance's id. A listener then reads the row; a lost notification is
# made good by the periodic comparison of versions.
RECORD_CHANNEL = "weftkit_record"
OBSERVED_CHANNEL = "weftkit_observed"
INTAKE_CHANNEL = "weftkit_intake"
TASK_CHANNEL = "weftkit_task"

# What an instance host can say of an instance. `hibernated`: stopped while nobody uses it; the next
# connection wakes it, and so does a newer generation.
OBSERVED_STATES = ("starting", "running", "hibernated", "stopped", "absent", "failed")
_OBSERVED_CHECK = f"CHECK (state IN {OBSERVED_STATES})"
# For tables that were made when there were fewer states.
OBSERVED_STATES_DDL = (
    "ALTER TABLE publish.observed DROP CONSTRAINT IF EXISTS observed_state_check",
    f"ALTER TABLE publish.observed ADD CONSTRAINT observed_state_check {_OBSERVED_CHECK}",
)

# The database role of data planes and instance hosts: it can do what `GRANTS` says, nothing more.
DATAPLANE_ROLE = "weftkit_dataplane"

DDL: tuple[str, ...] = (
    "CREATE SCHEMA IF NOT EXISTS publish",
    # One row an instance; `body` is `records.InstanceRecord` as JSON.
    """
    CREATE TABLE IF NOT EXISTS publish.record (
        instance_id uuid PRIMARY KEY,
        version bigint NOT NULL,
        body jsonb NOT NULL,
        published_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    # What the instance host made true: `generation` says up to which request.
    f"""
    CREATE TABLE IF NOT EXISTS publish.observed (
        instance_id uuid PRIMARY KEY,
        host text NOT NULL,
        generation bigint NOT NULL,
        state text NOT NULL CONSTRAINT observed_state_check {_OBSERVED_CHECK},
        detail text NOT NULL DEFAULT '',
        storage_bytes bigint NOT NULL DEFAULT 0,
        memory_bytes bigint NOT NULL DEFAULT 0,
        observed_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    # Usage deltas. The key is claimed by the same statement that stores the record.
    """
    CREATE TABLE IF NOT EXISTS publish.usage_intake (
        idempotency_key text PRIMARY KEY,
        instance_id uuid NOT NULL,
        source text NOT NULL,
        started_at timestamptz NOT NULL,
        stopped_at timestamptz NOT NULL,
        read_units bigint NOT NULL DEFAULT 0,
        write_units bigint NOT NULL DEFAULT 0,
        query_units bigint NOT NULL DEFAULT 0,
        unlimited_units bigint NOT NULL DEFAULT 0,
        refused_units bigint NOT NULL DEFAULT 0,
        bytes_in bigint NOT NULL DEFAULT 0,
        bytes_out bigint NOT NULL DEFAULT 0,
        received_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS publish.audit_intake (
        event_id uuid PRIMARY KEY,
        body jsonb NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS publish.key_seen (
        key_id text PRIMARY KEY,
        last_used_at timestamptz NOT NULL
    )
    """,
    # One piece of long work of an instance host (`engines/kit/tasks.py` has the words). The host
    # writes what follows `state`; the rest is the control plane's.
    """
    CREATE TABLE IF NOT EXISTS publish.task (
        task_id uuid PRIMARY KEY,
        instance_id uuid NOT NULL,
        host text NOT NULL,
        kind text NOT NULL,
        parameters jsonb NOT NULL DEFAULT '{}',
        wish text NOT NULL DEFAULT 'prepare' CHECK (wish IN ('prepare', 'commit', 'cancel')),
        created_at timestamptz NOT NULL DEFAULT now(),
        state text NOT NULL DEFAULT 'waiting' CHECK (state IN (
            'waiting', 'running', 'prepared', 'committing', 'done', 'failed', 'cancelled')),
        done_bytes bigint NOT NULL DEFAULT 0,
        total_bytes bigint NOT NULL DEFAULT 0,
        code text NOT NULL DEFAULT '',
        detail text NOT NULL DEFAULT '',
        result jsonb NOT NULL DEFAULT '{}',
        changed_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE INDEX IF NOT EXISTS task_open ON publish.task (host)
    WHERE state NOT IN ('done', 'failed', 'cancelled')
    """,
)

GRANTS: tuple[str, ...] = (
    f"GRANT USAGE ON SCHEMA publish TO {DATAPLANE_ROLE}",
    f"GRANT SELECT ON publish.record TO {DATAPLANE_ROLE}",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON publish.observed TO {DATAPLANE_ROLE}",
    f"GRANT SELECT, INSERT ON publish.usage_intake, publish.audit_intake TO {DATAPLANE_ROLE}",
    f"GRANT SELECT, INSERT, UPDATE ON publish.key_seen TO {DATAPLANE_ROLE}",
    f"GRANT SELECT, UPDATE (state, done_bytes, total_bytes, code, detail, result, changed_at) "
    f"ON publish.task TO {DATAPLANE_ROLE}",
)
