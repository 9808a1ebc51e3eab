"""Ready-made PostgreSQL data directories, built once for a server version and then copied.

    base-<version>-<n>/        what initdb makes, without the database `postgres`
    instance-<version>-<n>/    base with the database `weftkit` and the three roles of an instance
    extensions-<version>-<n>/  the control files of extensions that an instance's owner may create

The work is done by single-user backends, so no server has to start. A name appears only when its
directory is complete and on disk; two builders at once both succeed and one result is kept.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from dataplane.host.binaries import POSTGRES_MAJOR_MIN, BinaryError, server_version
from dataplane.host.clone import clone_tree, sync_file_system

TEMPLATE_VERSION = 1  # raise with every change of what is built here
BUILD_SECONDS_MAX = 120
SUPERUSER = "weftkit"
DATABASE = "weftkit"
# The host's own door. `weftkit` is its owner's, who may even forbid connections to it.
MAINTENANCE_DATABASE = "template1"
WAL_SEGMENT_MEGABYTES = 4  # one segment is copied with every clone
# The server ships these; their authors did not mark them `trusted`.
TRUSTED_EXTENSIONS = ("vector",)

# "local" is the unix socket in a directory of mode 0700: whoever can open it is our user. Clients
# are signed in by the data plane, which then connects as the role of the credential.
HBA = "local all all trust\nlocal replication weftkit trust\n"

# Large objects and WAL messages write without any table, and by default everybody may make them.
WRITES_WITHOUT_TABLE = (
    "lo_create(oid)",
    "lo_creat(integer)",
    "lo_from_bytea(oid, bytea)",
    "pg_logical_emit_message(boolean, text, bytea, boolean)",
    "pg_logical_emit_message(boolean, text, text, boolean)",
)

BASE_SQL = ("DROP DATABASE postgres",)

# A role is created by name only here, so an instance's catalogue never shows another tenant.
CLUSTER_SQL = (
    "CREATE ROLE owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
    "CREATE ROLE readwrite LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
    "CREATE ROLE readonly LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
    "GRANT pg_read_all_data, pg_write_all_data TO readwrite",
    "GRANT pg_read_all_data TO readonly",
    # Who owns the data may see and end the sessions of the other two.
    "GRANT pg_read_all_stats, pg_signal_backend TO owner",
    f"CREATE DATABASE {DATABASE} OWNER owner STRATEGY file_copy",
    "REVOKE ALL ON DATABASE template1 FROM PUBLIC",
    f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
    f"GRANT CONNECT, TEMPORARY ON DATABASE {DATABASE} TO readwrite",
    f"GRANT CONNECT ON DATABASE {DATABASE} TO readonly",
)

DATABASE_SQL = (
    "ALTER SCHEMA public OWNER TO owner",
    *(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC" for name in WRITES_WITHOUT_TABLE),
    *(f"GRANT EXECUTE ON FUNCTION {name} TO owner, readwrite" for name in WRITES_WITHOUT_TABLE),
)


class TemplateError(Exception):
    """A template could not be built; the message is for the log."""


def base_cluster(postgres_bin: Path, templates: Path) -> Path:
    """Return the plain cluster, building it first if it is not there."""

    def build(target: Path) -> None:
        _run(
            [
                postgres_bin / "initdb", "-D", target, "-U", SUPERUSER, "--no-sync",
                "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject",
                f"--wal-segsize={WAL_SEGMENT_MEGABYTES}", "--no-instructions",
            ]
        )  # fmt: skip
        (target / "pg_hba.conf").write_text(HBA)
        run_single_user(postgres_bin, target, MAINTENANCE_DATABASE, BASE_SQL)
        _trim_wal(postgres_bin, target)

    return _built(templates, "base", postgres_bin, build)


def instance_cluster(postgres_bin: Path, templates: Path) -> Path:
    """Return the cluster that new instances are clones of, building it first if need be."""

    def build(target: Path) -> None:
        clone_tree(base_cluster(postgres_bin, templates), target)
        run_single_user(postgres_bin, target, MAINTENANCE_DATABASE, CLUSTER_SQL)
        run_single_user(postgres_bin, target, DATABASE, DATABASE_SQL)
        _trim_wal(postgres_bin, target)

    return _built(templates, "instance", postgres_bin, build)


def extension_directory(postgres_bin: Path, templates: Path) -> Path:
    """Return the directory for `extension_control_path`: copies that are marked trusted."""

    def build(target: Path) -> None:
        installed = postgres_bin.parent / "share" / "postgresql" / "extension"
        copies = target / "extension"
        copies.mkdir(parents=True)
        for name in TRUSTED_EXTENSIONS:
            for file in installed.glob(f"{name}[.-]*"):
                shutil.copyfile(file, copies / file.name)
            control = copies / f"{name}.control"
            if control.exists():
                control.write_text(f"{control.read_text().rstrip()}\ntrusted = true\n")

    return _built(templates, "extensions", postgres_bin, build)


def postgres_version(postgres_bin: Path) -> tuple[int, ...]:
    """Return the server's version. Raises BinaryError if it is too old for instances."""
    version = server_version(postgres_bin / "postgres")
    if version[0] < POSTGRES_MAJOR_MIN:
        raise BinaryError(f"{postgres_bin} is not PostgreSQL {POSTGRES_MAJOR_MIN} or newer")
    return version


def _built(templates: Path, kind: str, postgres_bin: Path, build: Callable[[Path], None]) -> Path:
    version = ".".join(str(part) for part in postgres_version(postgres_bin))
    final = templates / f"{kind}-{version}-{TEMPLATE_VERSION}"
    if final.is_dir():
        return final
    templates.mkdir(mode=0o700, parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=".new-", dir=templates))
    try:
        build(workplace / kind)
        sync_file_system(workplace)
        # Somebody else may have been faster: theirs is as good as ours.
        with contextlib.suppress(OSError):
            (workplace / kind).rename(final)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    if not final.is_dir():
        raise TemplateError(f"{final} could not be put in place")
    return final


def run_single_user(
    postgres_bin: Path, cluster: Path, database: str, statements: Sequence[str]
) -> None:
    """Run statements in a single-user backend, each a transaction of its own.

    The caller syncs. Raises TemplateError.
    """
    # -j: a statement ends with semicolon and two newlines; -F: our caller syncs once at the end.
    done = _run(
        [postgres_bin / "postgres", "--single", "-j", "-F", "-D", cluster, database],
        "".join(f"{statement};\n\n" for statement in statements),
    )
    # A single-user backend reports a failed statement and goes on.
    failures = [line for line in done.splitlines() if "ERROR:" in line or "FATAL:" in line]
    if failures:
        raise TemplateError(failures[0])


def _trim_wal(postgres_bin: Path, cluster: Path) -> None:
    """Remove the WAL files that a cleanly stopped cluster does not need: ahead of and before."""
    state = _run([postgres_bin / "pg_controldata", "-D", cluster])
    label = "Latest checkpoint's REDO WAL file:"
    needed = next(line.split(":")[1].strip() for line in state.splitlines() if label in line)
    for file in (cluster / "pg_wal").iterdir():
        if file.is_file() and file.name != needed:
            file.unlink()


def _run(arguments: Sequence[str | Path], standard_input: str = "") -> str:
    """Run a program to its end and return what it said. Raises TemplateError."""
    try:
        done = subprocess.run(
            arguments,
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            cwd="/",
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TemplateError(f"{arguments[0]}: {error}") from error
    if done.returncode != 0:
        raise TemplateError(f"{arguments[0]} failed: {done.stdout.strip()[-400:]}")
    return done.stdout
