"""`weft psql` and `weft redis-cli`: the engine's own client, signed in for as long as it runs.

The credential is made for it and revoked after it; should that fail, it expires by itself. Its
password is in the client's environment, never on its command line, which others can read.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from deploy.weft.api import WeftError
from deploy.weft.session import Session
from deploy.weft.words import instance_argument, with_session

LIFE_S = 12 * 3600
UNTOUCHED = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command(context_settings=UNTOUCHED)
@instance_argument
@click.option("--role", default="write", show_default=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@with_session
def psql(session: Session, name: str, role: str, arguments: tuple[str, ...]) -> None:
    """Open psql on a relational instance: weft psql [--role read] INSTANCE [-c 'SELECT 1']."""
    _run(session, name, role, "psql", arguments)


@click.command(context_settings=UNTOUCHED)
@instance_argument
@click.option("--role", default="write", show_default=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@with_session
def redis_cli(session: Session, name: str, role: str, arguments: tuple[str, ...]) -> None:
    """Open redis-cli on an inmemory instance: weft redis-cli INSTANCE [GET key]."""
    _run(session, name, role, "redis-cli", arguments)


def _run(session: Session, name: str, role: str, program: str, arguments: tuple[str, ...]) -> None:
    found = shutil.which(program)
    if found is None:
        raise WeftError(f"{program} is not on your PATH; `weft instances connect` prints a URI")
    instance = session.api.get(session.instance(name))
    if instance["engine"] != ENGINES[program]:
        raise WeftError(
            f"{instance['handle']} is {instance['engine']}: {program} does not speak it"
        )
    ends = datetime.now(UTC) + timedelta(seconds=LIFE_S)
    wanted = {"role": role, "label": f"weft {program}", "expires_at": ends.isoformat()}
    made = session.api.post(session.instance(name, "credentials"), wanted)
    reach = session.api.get(session.instance(name, "connection"), username=made["username"])
    options, environment = STARTS[program](made, reach)
    # Ctrl-C is the client's: a handler of ours is not inherited by it, and keeps us alive.
    kept = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        status = subprocess.run(
            [found, *options, *arguments], env={**os.environ, **environment}, check=False
        ).returncode
    finally:
        signal.signal(signal.SIGINT, kept)
        session.api.delete(session.instance(name, "credentials", made["id"]))
    raise SystemExit(status if status >= 0 else 128 - status)


def _psql(made: Mapping[str, Any], reach: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    parts = urlsplit(made["uri"])
    environment = {
        "PGHOST": reach["host"],
        "PGPORT": str(reach["port"]),
        "PGUSER": made["username"],
        "PGPASSWORD": made["password"],
        "PGDATABASE": unquote(parts.path.lstrip("/")),
    }
    if reach["uri_tls"] and os.path.exists(reach["ca"]):
        environment |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": reach["ca"]}
    elif reach["uri_tls"]:
        environment |= {"PGSSLMODE": "require"}
    return [], environment


def _redis(made: Mapping[str, Any], reach: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    options = ["-h", reach["host"], "-p", str(reach["port"]), "--user", made["username"]]
    if reach["uri_tls"]:
        options += ["--tls"]
        options += ["--cacert", reach["ca"]] if os.path.exists(reach["ca"]) else []
    return [*options, "--no-auth-warning"], {"REDISCLI_AUTH": made["password"]}


ENGINES = {"psql": "relational", "redis-cli": "inmemory"}
STARTS = {"psql": _psql, "redis-cli": _redis}
