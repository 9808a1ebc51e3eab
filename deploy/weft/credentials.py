"""`weft credentials`: who signs in to an instance."""

from __future__ import annotations

from typing import Any

import click

from deploy.weft.session import Session
from deploy.weft.shown import remark, show_rows, show_thing
from deploy.weft.words import instance_argument, json_option, limit_option, with_session

COLUMNS = ("id", "username", "role", "label", "expires_at", "last_used_at", "revoked_at")
SHOWN_ONCE = ("username", "password", "uri")
once = "the password is shown this once"


@click.group()
def credentials() -> None:
    """Passwords of an instance: list, create, rotate, revoke."""


@credentials.command("list")
@instance_argument
@limit_option
@json_option
@with_session
def list_(session: Session, name: str, limit: int) -> None:
    """List the credentials of an instance, revoked ones too."""
    rows = session.api.items(session.instance(name, "credentials"), limit)
    show_rows(session, rows, COLUMNS)


@credentials.command()
@instance_argument
@click.option("--role", default="write", show_default=True)
@click.option("--label", default="")
@click.option("--expires-at", metavar="TIME", help="As 2027-01-31T12:00:00Z.")
@click.option("--allow", "cidrs", multiple=True, metavar="CIDR", help="Repeat it for more.")
@json_option
@with_session
def create(session: Session, /, name: str, **fields: Any) -> None:
    """Make a credential and print its password, once."""
    made = session.api.post(session.instance(name, "credentials"), fields)
    show_thing(session, made, SHOWN_ONCE if not session.as_json else ())
    remark(once)


@credentials.command()
@instance_argument
@click.argument("credential")
@click.option("--grace", "grace_s", type=int, metavar="SECONDS", help="The old word lives on.")
@json_option
@with_session
def rotate(session: Session, name: str, credential: str, grace_s: int | None) -> None:
    """Give a credential (its id or user name) a second password, then end the first."""
    body = {} if grace_s is None else {"grace_s": grace_s}
    credential_id = _id_of(session, name, credential)
    made = session.api.post(session.instance(name, "credentials", credential_id, "rotate"), body)
    show_thing(session, made, SHOWN_ONCE if not session.as_json else ())
    remark(once)


@credentials.command()
@instance_argument
@click.argument("credential")
@json_option
@with_session
def revoke(session: Session, name: str, credential: str) -> None:
    """End a credential (its id or user name), and the sessions that it opened."""
    session.api.delete(session.instance(name, "credentials", _id_of(session, name, credential)))
    remark(f"{credential} is revoked")


def _id_of(session: Session, name: str, credential: str) -> str:
    if not credential.startswith("wk_"):
        return credential
    for found in session.api.items(session.instance(name, "credentials")):
        if found["username"] == credential:
            return str(found["id"])
    return credential
