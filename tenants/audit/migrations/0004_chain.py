"""Events by month, in chains, and what refuses to change them.

Django knows the tables; this file makes what it cannot: the table of events is partitioned by
`stored_at`, and triggers refuse every change but the ones that the end of a retention needs:

- an event may be deleted if a checkpoint covers its link, a link if its event is gone as well;
- a checkpoint must name a link that is there, and only cover events older than the least retention.
"""

import django.utils.timezone
from django.db import migrations, models
from django.db.models.expressions import RawSQL

EVENTS = """
ALTER TABLE audit_auditevent RENAME TO audit_auditevent_old;
ALTER TABLE audit_auditevent_old RENAME CONSTRAINT audit_auditevent_pkey TO audit_auditevent_old_pkey;
DROP INDEX IF EXISTS audit_by_tenant;
CREATE TABLE audit_auditevent (
    event_id uuid NOT NULL,
    tenant_id uuid,
    body jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL,
    action text GENERATED ALWAYS AS (body ->> 'action') STORED,
    outcome text GENERATED ALWAYS AS (body ->> 'outcome') STORED,
    severity text GENERATED ALWAYS AS (body ->> 'severity') STORED,
    initiator text GENERATED ALWAYS AS (body #>> '{initiator,id}') STORED,
    target text GENERATED ALWAYS AS (body #>> '{target,name}') STORED,
    correlation_id text GENERATED ALWAYS AS (body ->> 'correlationId') STORED,
    is_data boolean GENERATED ALWAYS AS ((body ->> 'dataEvent')::boolean) STORED,
    PRIMARY KEY (event_id, stored_at)
) PARTITION BY RANGE (stored_at);
CREATE INDEX audit_by_tenant ON audit_auditevent (tenant_id, event_id DESC);
CREATE INDEX audit_by_action ON audit_auditevent (tenant_id, action, event_id DESC);
CREATE INDEX audit_by_initiator ON audit_auditevent (tenant_id, initiator, event_id DESC);
CREATE INDEX audit_by_correlation ON audit_auditevent (tenant_id, correlation_id);
CREATE INDEX audit_by_target ON audit_auditevent (tenant_id, target, event_id DESC);
CREATE INDEX audit_by_time ON audit_auditevent (tenant_id, occurred_at);
-- Takes what no month has been made for; nothing is ever refused for its time.
CREATE TABLE audit_auditevent_rest PARTITION OF audit_auditevent DEFAULT;
"""

TRIGGERS = """
DROP TRIGGER audit_append_only ON audit_auditevent_old;
CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Only tests empty their database, and say so when they connect.
    IF TG_OP = 'TRUNCATE' AND current_setting('weftkit.throwaway', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit events are append-only';
END
$$;

CREATE FUNCTION audit_event_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM audit_auditlink AS link JOIN audit_auditcheckpoint AS mark
            ON mark.chain_id = link.chain_id AND mark.sequence >= link.sequence
        WHERE link.event_id = OLD.event_id
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit events are append-only';
END
$$;

CREATE FUNCTION audit_link_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM audit_auditcheckpoint AS mark
        WHERE mark.chain_id = OLD.chain_id AND mark.sequence >= OLD.sequence
    ) AND NOT EXISTS (
        SELECT FROM audit_auditevent AS event
        WHERE event.event_id = OLD.event_id AND event.stored_at = OLD.stored_at
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit events are append-only';
END
$$;

CREATE FUNCTION audit_checkpoint_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.stored_before > now() - interval '7 days' THEN
        RAISE EXCEPTION 'audit events are append-only: they are kept for a week at least';
    END IF;
    IF NOT EXISTS (
        SELECT FROM audit_auditlink AS link
        WHERE link.chain_id = NEW.chain_id AND link.sequence = NEW.sequence
            AND link.digest = NEW.digest
    ) OR EXISTS (
        SELECT FROM audit_auditlink AS link
        WHERE link.chain_id = NEW.chain_id AND link.sequence <= NEW.sequence
            AND link.stored_at >= NEW.stored_before
    ) THEN
        RAISE EXCEPTION 'audit events are append-only: no such checkpoint is possible';
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION audit_event_stored() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_auditunlinked (event_id, chain_id, stored_at) VALUES (
        NEW.event_id,
        coalesce(NEW.tenant_id, '00000000-0000-0000-0000-000000000000'),
        NEW.stored_at
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER audit_append_only BEFORE UPDATE ON audit_auditevent
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit_auditevent
    FOR EACH ROW EXECUTE FUNCTION audit_event_refuse_delete();
CREATE TRIGGER audit_stored AFTER INSERT ON audit_auditevent
    FOR EACH ROW EXECUTE FUNCTION audit_event_stored();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_auditevent_rest
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_append_only BEFORE UPDATE ON audit_auditlink
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit_auditlink
    FOR EACH ROW EXECUTE FUNCTION audit_link_refuse_delete();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_auditlink
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit_auditcheckpoint
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit_auditcheckpoint
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_check BEFORE INSERT ON audit_auditcheckpoint
    FOR EACH ROW EXECUTE FUNCTION audit_checkpoint_check();

-- Makes the partition of a month (UTC), if there is none; true if it made it.
CREATE FUNCTION audit_month_make(month timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    starts timestamptz := date_trunc('month', month, 'UTC');
    ends timestamptz := date_add(starts, interval '1 month', 'UTC');
    name text := 'audit_auditevent_' || to_char(starts AT TIME ZONE 'UTC', 'YYYYMM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I PARTITION OF audit_auditevent FOR VALUES FROM (%L) TO (%L)',
        name, starts, ends);
    EXECUTE format(
        'CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON %I '
        'FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()', name);
    RETURN true;
END
$$;
SELECT audit_month_make(date_add(now(), make_interval(months => n), 'UTC'))
FROM generate_series(0, 3) AS n;
"""

# Events that were stored before they were CADF.
OLD = """
INSERT INTO audit_auditevent (event_id, tenant_id, body, occurred_at, stored_at)
SELECT event_id, tenant_id, jsonb_build_object(
    'id', event_id,
    'action', coalesce(body ->> 'action', 'weftkit.event.unknown'),
    'outcome', coalesce(body ->> 'outcome', 'success'),
    'eventTime', left(to_char(received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS'), 22) || '+0000',
    'severity', 'normal',
    'message', 'weftkit: ' || coalesce(body ->> 'action', ''),
    'initiator', jsonb_build_object(
        'id', coalesce(body ->> 'initiator', 'unknown'),
        'name', coalesce(body ->> 'initiator', 'unknown'),
        'typeURI', 'service/security/clientid',
        'credential', jsonb_build_object('type', 'user'),
        'host', jsonb_build_object(
            'address', coalesce(body ->> 'address', ''), 'addressType', 'IPv4', 'agent', '')),
    'target', jsonb_build_object(
        'id', 'crn:v1:weftkit:public:weftkit:local:' || coalesce('a/' || tenant_id, '') || ':::',
        'name', coalesce(nullif(body ->> 'target', ''), 'unknown'),
        'typeURI', 'weftkit/unknown'),
    'observer', jsonb_build_object('name', 'ActivityTracker'),
    'reason', jsonb_build_object(
        'reasonCode', coalesce((body ->> 'reason_code')::int, 200), 'reasonType', 'Unknown'),
    'requestData', '{}'::jsonb,
    'responseData', '{}'::jsonb,
    'correlationId', coalesce(body ->> 'request_id', ''),
    'dataEvent', coalesce((body ->> 'is_data_event')::boolean, false),
    'logSourceCRN', 'crn:v1:weftkit:public:weftkit:local:'
        || coalesce('a/' || tenant_id, '') || ':::',
    'saveServiceCopy', true
), received_at, stored_at
FROM audit_auditevent_old ORDER BY stored_at, event_id;
DROP TABLE audit_auditevent_old;
"""


def generated(sql, field):
    return models.GeneratedField(
        expression=RawSQL(sql, []), output_field=field, db_persist=True
    )


TEXTS = {
    "action": "body ->> 'action'",
    "outcome": "body ->> 'outcome'",
    "severity": "body ->> 'severity'",
    "initiator": "body #>> '{initiator,id}'",
    "target": "body #>> '{target,name}'",
    "correlation_id": "body ->> 'correlationId'",
}
INDEXES = {
    "audit_by_action": ["tenant_id", "action", "-event_id"],
    "audit_by_initiator": ["tenant_id", "initiator", "-event_id"],
    "audit_by_correlation": ["tenant_id", "correlation_id"],
    "audit_by_target": ["tenant_id", "target", "-event_id"],
    "audit_by_time": ["tenant_id", "occurred_at"],
}


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_tenants")]
    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(EVENTS)],
            state_operations=[
                migrations.RenameField("auditevent", "received_at", "occurred_at"),
                migrations.AlterField(
                    "auditevent",
                    "stored_at",
                    models.DateTimeField(default=django.utils.timezone.now),
                ),
                *(
                    migrations.AddField("auditevent", name, generated(sql, models.TextField()))
                    for name, sql in TEXTS.items()
                ),
                migrations.AddField(
                    "auditevent",
                    "is_data",
                    generated("(body ->> 'dataEvent')::boolean", models.BooleanField()),
                ),
                *(
                    migrations.AddIndex("auditevent", models.Index(fields=fields, name=name))
                    for name, fields in INDEXES.items()
                ),
            ],
        ),
        migrations.CreateModel(
            name="AuditUnlinked",
            fields=[
                ("event_id", models.UUIDField(primary_key=True, serialize=False)),
                ("chain_id", models.UUIDField()),
                ("stored_at", models.DateTimeField()),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["chain_id", "stored_at", "event_id"], name="audit_unlinked_order"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditLink",
            fields=[
                ("event_id", models.UUIDField(primary_key=True, serialize=False)),
                ("chain_id", models.UUIDField()),
                ("sequence", models.BigIntegerField()),
                ("stored_at", models.DateTimeField()),
                ("previous", models.CharField(max_length=64)),
                ("digest", models.CharField(max_length=64)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("chain_id", "sequence"), name="audit_link_is_unique"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("chain_id", models.UUIDField(primary_key=True, serialize=False)),
                ("sequence", models.BigIntegerField(default=0)),
                ("digest", models.CharField(default="0" * 64, max_length=64)),
                ("linked_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name="AuditCheckpoint",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("chain_id", models.UUIDField()),
                ("sequence", models.BigIntegerField()),
                ("digest", models.CharField(max_length=64)),
                ("stored_before", models.DateTimeField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("chain_id", "sequence"), name="audit_checkpoint_is_unique"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditClaim",
            fields=[
                ("event_id", models.UUIDField(primary_key=True, serialize=False)),
                (
                    "claimed_at",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now),
                ),
            ],
        ),
        migrations.CreateModel(
            name="InstanceAudit",
            fields=[
                ("instance_id", models.UUIDField(primary_key=True, serialize=False)),
                ("data_events", models.BooleanField(default=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
        ),
        migrations.RunSQL(TRIGGERS),
        migrations.RunSQL(OLD),
    ]
