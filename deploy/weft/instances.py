"""`weft instances`: list, make, look at, change, stop, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from deploy.weft.session import Session
from deploy.weft.shown import remark, show_operation, show_rows, show_thing
from deploy.weft.words import (
    instance_argument,
    json_option,
    limit_option,
    wait_options,
    with_session,
)

COLUMNS = ("handle", "engine", "plan", "blocks", "status", "server_state", "created_at")
# Engines whose clients sign requests: an access key, and an endpoint without it.
SIGNED = frozenset({"keyvalue"})


@click.group()
def instances() -> None:
    """Databases: list, create, show, connect, scale, suspend, delete and their like."""


@instances.command("list")
@click.option("--engine")
@click.option("--plan")
@click.option("--status")
@click.option("--tag", help="KEY or KEY:VALUE.")
@click.option("-q", "words", help="A part of the handle.")
@limit_option
@json_option
@with_session
def list_(session: Session, /, words: str | None, limit: int, **query: Any) -> None:
    """List instances, newest first."""
    rows = session.api.items(session.path("instances"), limit, q=words, **query)
    show_rows(session, rows, COLUMNS)


@instances.command()
@click.argument("name")
@click.option("--engine", required=True)
@click.option("--plan", default="lite", show_default=True)
@click.option("--blocks", type=int, default=1, show_default=True)
@click.option("--region", default="")
@click.option("--allow", "allowlist", multiple=True, metavar="CIDR", help="Repeat it for more.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Repeat it for more.")
@click.option("--unprotected", is_flag=True, help="May be deleted without more ado.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and change nothing.")
@wait_options
@json_option
@with_session
def create(
    session: Session,
    /,
    tags: tuple[str, ...],
    unprotected: bool,
    dry_run: bool,
    wait: bool,
    timeout_s: float,
    **fields: Any,
) -> None:
    """Make an instance. Its handle is TENANT-NAME."""
    fields["name"] = fields["name"].removeprefix(f"{session.tenant}-")
    fields["tags"] = dict(_tag(tag) for tag in tags)
    fields["deletion_protected"] = not unprotected
    if dry_run:
        show_thing(session, session.api.post(session.path("instances"), fields, dry_run="true"))
        return
    operation = session.api.post(session.path("instances"), fields)
    show_operation(session, operation, wait=wait, timeout_s=timeout_s)


@instances.command()
@instance_argument
@json_option
@with_session
def show(session: Session, name: str) -> None:
    """Show one instance."""
    show_thing(session, session.api.get(session.instance(name)))


@instances.command()
@instance_argument
@click.option("--user", help="The user name of a credential that you have.")
@click.option("--new", is_flag=True, help="Make a credential, and print it: it is shown once.")
@click.option("--role", default="write", show_default=True, help="Of the new credential.")
@json_option
@with_session
def connect(session: Session, name: str, user: str | None, new: bool, role: str) -> None:
    """Print how to connect: a connection string, to be used as it is with --new."""
    if new:
        made = session.api.post(
            session.instance(name, "credentials"), {"role": role, "label": "weft connect"}
        )
        user = made["username"]
        reach = {**session.api.get(session.instance(name, "connection"), username=user), **made}
    else:
        reach = session.api.get(session.instance(name, "connection"), username=user)
    if session.as_json:
        show_thing(session, reach)
        return
    if session.api.get(session.instance(name))["engine"] in SIGNED:
        _show_access_key(reach)
    else:
        click.echo(reach["uri"])
    if not new:
        remark("the password is the credential's own; --new makes one")


def _show_access_key(reach: Mapping[str, Any]) -> None:
    """Print what AWS' programs take from their environment: an endpoint alone lets nobody in."""
    click.echo(f"AWS_ENDPOINT_URL_DYNAMODB={reach['uri']}")
    click.echo(f"AWS_ACCESS_KEY_ID={reach['username']}")
    click.echo(f"AWS_SECRET_ACCESS_KEY={reach.get('password', 'PASSWORD')}")
    click.echo("AWS_DEFAULT_REGION=us-east-1")


@instances.command()
@instance_argument
@click.option("--plan")
@click.option("--blocks", type=int)
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and change nothing.")
@wait_options
@json_option
@with_session
def scale(
    session: Session, /, name: str, dry_run: bool, wait: bool, timeout_s: float, **fields: Any
) -> None:
    """Give an instance another plan, or more or fewer blocks."""
    change = {field: value for field, value in fields.items() if value is not None}
    if not change:
        raise click.UsageError("say --plan or --blocks")
    path = session.instance(name, "scale")
    if dry_run:
        show_thing(session, session.api.post(path, change, dry_run="true"))
        return
    show_operation(session, session.api.post(path, change), wait=wait, timeout_s=timeout_s)


@instances.command()
@instance_argument
@click.option("--on/--off", default=True)
@json_option
@with_session
def protect(session: Session, name: str, on: bool) -> None:
    """Have an instance refuse to be deleted, or not."""
    show_thing(session, session.api.patch(session.instance(name), {"deletion_protected": on}))


@instances.command()
@instance_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_options
@json_option
@with_session
def delete(session: Session, name: str, yes: bool, wait: bool, timeout_s: float) -> None:
    """Delete an instance. For some days `undelete` brings it back."""
    if not yes:
        click.confirm(f"Delete {session.handle(name)}?", abort=True, err=True)
    operation = session.api.delete(session.instance(name))
    show_operation(session, operation, wait=wait, timeout_s=timeout_s)


def _verb(verb: str, text: str) -> None:
    """Add a command that only posts to the instance."""

    @instances.command(verb, help=text)
    @instance_argument
    @wait_options
    @json_option
    @with_session
    def post(session: Session, name: str, wait: bool, timeout_s: float) -> None:
        operation = session.api.post(session.instance(name, verb))
        show_operation(session, operation, wait=wait, timeout_s=timeout_s)


_verb("suspend", "Stop an instance; its data stays, clients are refused.")
_verb("resume", "Start a suspended instance.")
_verb("hibernate", "Stop an instance's server until somebody connects.")
_verb("wake", "Start a hibernated instance's server before somebody connects.")
_verb("undelete", "Bring back a deleted instance that is not purged yet.")


def _tag(text: str) -> tuple[str, str]:
    key, has_value, value = text.partition("=")
    if not has_value or not key:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--tag")
    return key, value
