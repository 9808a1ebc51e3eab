"""`weft`, or `python -m deploy.weft`: the command line as a whole, and how its errors end it."""

from __future__ import annotations

import json
import os
import sys

import click

from deploy.weft import account, backups, credentials, instances, operations, programs
from deploy.weft.api import WeftError
from deploy.weft.session import session_open

COMMANDS = {
    "audit": account.audit,
    "backups": backups.backups,
    "credentials": credentials.credentials,
    "instances": instances.instances,
    "keys": account.keys,
    "login": account.login,
    "logout": account.logout,
    "operations": operations.operations,
    "psql": programs.psql,
    "redis-cli": programs.redis_cli,
    "usage": account.usage,
    "whoami": account.whoami,
}


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--profile", default="", envvar="WEFT_PROFILE", help="One that `weft login` kept.")
@click.option("--url", default="", help="Of the API's host, as https://localhost:8443 (WEFT_URL).")
@click.option("--tenant", default="", help="Needed where the key has several (WEFT_TENANT).")
@click.option("--ca", default="", help="A file of certificates to trust (WEFT_CA).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, all of it.")
@click.pass_context
def cli(
    context: click.Context, profile: str, url: str, tenant: str, ca: str, as_json: bool
) -> None:
    """WeftKit from the command line.

    Sign in with `weft login`, or set WEFT_KEY (and WEFT_URL). Exit statuses: 1 failed, 2 usage,
    3 not found, 4 not allowed, 5 conflict or locked, 6 a limit or bill, 7 no answer, 8 still runs.

    Completion, for bash: eval "$(_WEFT_COMPLETE=bash_source weft)"; zsh and fish likewise.
    """
    context.obj = session_open(
        environment=os.environ, profile=profile, url=url, tenant=tenant, ca=ca
    )
    context.obj.as_json = as_json


def main() -> None:
    """Run a command; an error is one message, as JSON where that was asked for."""
    try:
        cli(prog_name="weft")
    except WeftError as error:
        if "--json" in sys.argv and error.problem is not None:
            click.echo(json.dumps(error.problem), err=True)
        else:
            click.echo(f"weft: {error}", err=True)
        raise SystemExit(error.exit_status) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
