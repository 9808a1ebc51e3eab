"""What the roles of an instance cannot do to their server, its host and its neighbours.

The statements go straight to the instance's own server: whatever the data plane lets through, this
is what holds. Each table is one way out that is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import errors

from dataplane.host.overdue import CANCELLED_MILLISECONDS_MAX, GRACE_MILLISECONDS
from engines.kit.records import Desired, InstanceRecord, Limits
from tests.host.conftest import ControlPlane, HostProcess, make_record

ROLES = ("owner", "readwrite", "readonly")
MEBIBYTE = 1024 * 1024
TIMEOUT_MILLISECONDS = 300


@pytest.fixture(scope="module")
def instance(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """A running instance with a plan that bounds the time of a statement."""
    limits = Limits(statement_timeout_ms=TIMEOUT_MILLISECONDS)
    record = control.publish(make_record("relational", "isolated", limits=limits))
    control.wait(record, "running")
    yield record
    control.ask(record, desired=Desired.ABSENT)


@pytest.fixture(scope="module")
def neighbour(control: ControlPlane, host: HostProcess) -> Iterator[InstanceRecord]:
    """Another tenant's instance on the same host, with a plan that bounds what it stores."""
    limits = Limits(storage_bytes=16 * MEBIBYTE)
    record = control.publish(make_record("relational", "the-neighbour", limits=limits))
    control.wait(record, "running")
    yield record
    control.ask(record, desired=Desired.ABSENT)


def connect(host: HostProcess, record: InstanceRecord, role: str = "owner") -> psycopg.Connection:
    """Connect to the instance's own server as one of its roles."""
    return psycopg.connect(host.postgres_dsn(record, role), autocommit=True)


BECOMING_SUPERUSER = (
    "CREATE ROLE intruder",
    "CREATE ROLE intruder SUPERUSER",
    "CREATE USER intruder",
    "ALTER ROLE current_user SUPERUSER",
    "ALTER ROLE current_user CREATEROLE",
    "ALTER ROLE current_user CREATEDB",
    "ALTER ROLE current_user REPLICATION",
    "ALTER ROLE current_user BYPASSRLS",
    "ALTER ROLE weftkit PASSWORD 'known'",
    "ALTER ROLE weftkit SET search_path = public",
    "ALTER ROLE ALL SET search_path = public",
    "GRANT weftkit TO current_user",
    "GRANT pg_read_server_files TO current_user",
    "GRANT pg_write_server_files TO current_user",
    "GRANT pg_execute_server_program TO current_user",
    "GRANT pg_create_subscription TO current_user",
    "GRANT pg_monitor TO current_user",
    "GRANT pg_checkpoint TO current_user",
    "GRANT pg_maintain TO current_user",
    "GRANT owner TO readonly",
    "SET ROLE weftkit",
    "SET ROLE pg_read_server_files",
    "SET ROLE pg_execute_server_program",
    "SET SESSION AUTHORIZATION weftkit",
    "REASSIGN OWNED BY weftkit TO current_user",
    "DROP OWNED BY weftkit",
    "UPDATE pg_authid SET rolsuper = true",
    "INSERT INTO pg_auth_members SELECT * FROM pg_auth_members",
    "UPDATE pg_proc SET prosecdef = true",
    "SET allow_system_table_mods = on",
    "SET session_replication_role = replica",
    "ALTER SYSTEM SET shared_preload_libraries = 'x'",
    "ALTER SYSTEM RESET ALL",
    "ALTER FUNCTION pg_read_file(text) OWNER TO current_user",
    "CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL'",
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION pg_catalog.now()",
    "CREATE EVENT TRIGGER e ON login EXECUTE FUNCTION pg_catalog.now()",
    "CREATE ACCESS METHOD a TYPE INDEX HANDLER bthandler",
    "ALTER LANGUAGE plpgsql OWNER TO current_user",
    "ALTER EXTENSION plpgsql UPDATE",
    "DROP EXTENSION plpgsql",
)

SERVER_FILES = (
    "COPY pg_class TO '/tmp/weftkit-leak'",
    "COPY pg_class FROM '/etc/passwd'",
    "COPY pg_class TO PROGRAM 'id'",
    "COPY pg_class FROM PROGRAM 'curl 127.0.0.1'",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/weftkit-leak')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_read_binary_file('PG_VERSION')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_ls_waldir()",
    "SELECT pg_ls_logdir()",
    "SELECT pg_ls_tmpdir()",
    "SELECT pg_ls_archive_statusdir()",
    "SELECT pg_current_logfile()",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT * FROM pg_ident_file_mappings",
    "SELECT * FROM pg_file_settings",
    "SELECT * FROM pg_config",
    "CREATE TABLESPACE t LOCATION '/tmp'",
    "LOAD '/tmp/x.so'",
    "LOAD 'plpgsql'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/x', 'f'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
    "CREATE TRUSTED LANGUAGE x HANDLER plpgsql_call_handler",
    "SELECT pg_import_system_collations('public')",
)

NETWORK = (
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)",
    "CREATE FOREIGN DATA WRAPPER f",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "SELECT pg_create_physical_replication_slot('s')",
    "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
    "SELECT pg_replication_origin_create('o')",
)

SERVER_CONTROL = (
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_promote()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('r')",
    "SELECT pg_backup_start('b')",
    "SELECT pg_log_backend_memory_contexts(pg_backend_pid())",
    "SELECT pg_log_standby_snapshot()",
    "SELECT pg_stat_reset()",
    "CHECKPOINT",
    "CREATE DATABASE d",
    "DROP DATABASE template1",
    "ALTER DATABASE template1 CONNECTION LIMIT 0",
    "ALTER DATABASE weftkit RENAME TO d",
)

OWN_LIMITS = (
    "ALTER ROLE current_user CONNECTION LIMIT 10000",
    "ALTER ROLE weftkit CONNECTION LIMIT 0",
    "SET temp_file_limit = -1",
    "ALTER ROLE current_user SET temp_file_limit = -1",
    "ALTER DATABASE weftkit SET temp_file_limit = -1",
    "SET log_min_messages = debug5",
    "SET session_preload_libraries = 'x'",
    "ALTER DATABASE weftkit SET session_preload_libraries = 'x'",
    "SET update_process_title = off",
    "SET track_activities = off",
    "ALTER SYSTEM SET statement_timeout = 0",
    "SHOW shared_preload_libraries",
)

TABLES = (BECOMING_SUPERUSER, SERVER_FILES, NETWORK, SERVER_CONTROL, OWN_LIMITS)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("statement", [each for table in TABLES for each in table])
def test_no_role_may(
    role: str, statement: str, instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance, role) as session, pytest.raises(psycopg.Error) as refused:
        session.execute(statement)
    # 42501 insufficient_privilege; a reader has no schema to create in (3F000).
    assert refused.value.sqlstate in ("42501", "3F000"), refused.value


@pytest.mark.parametrize("role", ROLES)
def test_no_role_is_or_has_more_than_it_was_given(
    role: str, instance: InstanceRecord, host: HostProcess
) -> None:
    expected = {
        "owner": {"pg_read_all_stats", "pg_signal_backend", "pg_database_owner"},
        "readwrite": {"pg_read_all_data", "pg_write_all_data"},
        "readonly": {"pg_read_all_data"},
    }
    with connect(host, instance, role) as session:
        attributes = session.execute(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        has = session.execute(
            "SELECT rolname FROM pg_roles WHERE pg_has_role(rolname, 'MEMBER')"
            " AND rolname <> current_user"
        ).fetchall()
    assert attributes == (False,)
    assert {name for (name,) in has} == expected[role]


def test_no_startup_option_makes_a_session_another_role(
    instance: InstanceRecord, host: HostProcess
) -> None:
    for option in ("role=weftkit", "session_authorization=weftkit", "temp_file_limit=-1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(host.postgres_dsn(instance, "owner"), options=f"-c {option}")


def test_a_function_that_runs_as_its_definer_runs_as_no_more_than_the_owner(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance) as owner:
        owner.execute(
            "CREATE FUNCTION climb() RETURNS void SECURITY DEFINER LANGUAGE plpgsql"
            " AS 'BEGIN ALTER ROLE readonly SUPERUSER; END'"
        )
    for role in ROLES:
        with connect(host, instance, role) as session, pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT public.climb()")


@pytest.mark.parametrize("role", ROLES)
def test_the_hosts_sessions_and_the_servers_own_processes_cannot_be_ended(
    role: str, instance: InstanceRecord, host: HostProcess
) -> None:
    with (
        connect(host, instance, "weftkit") as ours,
        connect(host, instance, role) as session,
    ):
        for function in ("pg_terminate_backend", "pg_cancel_backend"):
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(f"SELECT {function}(%s)", (ours.info.backend_pid,))
        launcher = ours.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'"
        ).fetchone()
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT pg_terminate_backend(%s)", launcher)
        assert ours.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("role", ROLES)
def test_no_setting_and_no_catalogue_shows_a_path_or_a_neighbour(
    role: str, instance: InstanceRecord, neighbour: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance, role) as session:
        shown = str(
            [
                session.execute(query).fetchall()
                for query in (
                    "SELECT * FROM pg_settings", "SELECT * FROM pg_database",
                    "SELECT * FROM pg_roles", "SELECT * FROM pg_stat_activity",
                    "SELECT * FROM pg_tablespace", "SELECT * FROM pg_available_extensions",
                    "SELECT pg_tablespace_location(oid) FROM pg_tablespace",
                    "SELECT pg_relation_filepath(oid) FROM pg_class",
                )
            ]
        )  # fmt: skip
        # What a path would be shown by is for pg_read_all_settings, which nobody has.
        for name in ("data_directory", "config_file", "hba_file", "unix_socket_directories",
                     "extension_control_path", "dynamic_library_path"):  # fmt: skip
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(f"SHOW {name}")
    for secret in (str(host.home), str(host.run_dir), neighbour.handle, neighbour.instance_id):
        assert secret not in shown


def test_a_password_that_a_role_gave_itself_is_gone_with_the_next_record(
    control: ControlPlane, instance: InstanceRecord, host: HostProcess
) -> None:
    hashes = "SELECT count(*) FROM pg_authid WHERE rolpassword IS NOT NULL"
    for role in ROLES:
        with connect(host, instance, role) as session:
            session.execute("ALTER ROLE current_user PASSWORD 'used elsewhere too'")
    with connect(host, instance, "readonly") as reader:
        assert reader.execute(hashes).fetchone() == (3,)
    observed = control.observed(instance)["generation"]
    control.ask(replace(instance, generation=max(instance.generation, observed)))
    with connect(host, instance, "readonly") as reader:
        assert reader.execute(hashes).fetchone() == (0,)


# Limits of the plan.


def test_a_sort_beyond_the_plans_memory_fails_alone(
    neighbour: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, neighbour) as session, connect(host, neighbour) as other:
        session.execute("SET work_mem = '2000GB'")
        with pytest.raises(errors.OutOfMemory):
            session.execute(
                "SELECT string_agg(repeat('x', 1000000), '') FROM generate_series(1, 900)"
            )
        assert session.execute("SELECT 1").fetchone() == (1,)
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_temporary_files_end_at_the_plans_storage(
    neighbour: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, neighbour) as session:
        session.execute("SET work_mem = '64kB'")
        with pytest.raises(errors.ConfigurationLimitExceeded, match="temp_file_limit"):
            session.execute(
                "SELECT repeat('x', 1000) || n FROM generate_series(1, 40000) AS n ORDER BY 1"
            )


def test_notifications_that_nobody_takes_are_bounded(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance, "readonly") as session:
        assert session.execute("SHOW max_notify_queue_pages").fetchone() == ("8192",)


def test_a_statement_that_raised_its_own_timeout_is_cancelled_at_the_plans(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance, "readonly") as session:
        with pytest.raises(errors.QueryCanceled, match="statement timeout"):
            session.execute("SELECT pg_sleep(60)")
        session.execute("SET statement_timeout = 0")
        with pytest.raises(errors.QueryCanceled, match="user request"):
            session.execute("SELECT pg_sleep(600)")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_statement_that_catches_its_cancellation_loses_its_session(
    instance: InstanceRecord, host: HostProcess
) -> None:
    assert GRACE_MILLISECONDS < CANCELLED_MILLISECONDS_MAX
    with connect(host, instance) as session:
        session.execute("SET statement_timeout = 0")
        with pytest.raises(psycopg.OperationalError) as ended:
            session.execute(
                "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600);"
                " EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$"
            )
    assert ended.value.sqlstate == "57P01"


def test_a_session_that_only_waits_for_its_client_is_left_alone(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance) as idle, connect(host, instance, "readonly") as other:
        idle.execute("BEGIN")
        idle.execute("SELECT 1")
        other.execute("SET statement_timeout = 0")
        # Once this one was ended, the host has looked at the idle one too.
        with pytest.raises(errors.QueryCanceled):
            other.execute("SELECT pg_sleep(600)")
        assert idle.execute("SELECT 2").fetchone() == (2,)


# Extensions.


def test_the_owner_creates_uses_and_drops_what_is_trusted(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance) as owner:
        owner.execute("CREATE EXTENSION vector")
        owner.execute("CREATE TABLE items (id int, at vector(3))")
        owner.execute("INSERT INTO items SELECT n, ARRAY[n, n, n] FROM generate_series(1, 200) n")
        owner.execute("CREATE INDEX items_at ON items USING hnsw (at vector_l2_ops)")
        nearest = "SELECT id FROM items ORDER BY at <-> '[7.1,7,7]' LIMIT 2"
        owner.execute("SET enable_seqscan = off")
        assert "items_at" in str(owner.execute(f"EXPLAIN {nearest}").fetchall())
        assert owner.execute(nearest).fetchall() == [(7,), (8,)]
        owner.execute("DROP TABLE items; DROP EXTENSION vector")
        assert owner.execute("SELECT extname FROM pg_extension").fetchall() == [("plpgsql",)]
        owner.execute("DO $$ BEGIN PERFORM 1; END $$")


def test_what_creates_the_extension_does_not_own_its_functions(
    instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance) as owner:
        owner.execute("CREATE EXTENSION vector")
        with pytest.raises(errors.InsufficientPrivilege):
            owner.execute("ALTER FUNCTION vector_in(cstring, oid, int) OWNER TO owner")
        with pytest.raises(errors.InsufficientPrivilege):
            owner.execute("ALTER EXTENSION vector DROP FUNCTION vector_in(cstring, oid, int)")
        owner.execute("DROP EXTENSION vector")


def test_who_does_not_own_the_database_creates_no_extension(
    instance: InstanceRecord, host: HostProcess
) -> None:
    for role in ("readwrite", "readonly"):
        with connect(host, instance, role) as session, pytest.raises(psycopg.Error) as refused:
            session.execute("CREATE EXTENSION vector SCHEMA public")
        assert refused.value.sqlstate == "42501"


@pytest.mark.parametrize("name", ["dblink", "postgres_fdw", "file_fdw", "adminpack", "plpython3u"])
def test_what_is_not_trusted_gets_postgresqls_own_error(
    name: str, instance: InstanceRecord, host: HostProcess
) -> None:
    with connect(host, instance) as owner:
        present = owner.execute(
            "SELECT trusted FROM pg_available_extension_versions WHERE name = %s", (name,)
        ).fetchall()
        assert (True,) not in present
        with pytest.raises(psycopg.Error) as refused:
            owner.execute(f"CREATE EXTENSION {name}")
    assert refused.value.sqlstate == ("42501" if present else "0A000")
    assert str(host.home) not in str(refused.value)
