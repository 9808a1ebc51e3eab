"""Who asks and what the tenant did: login, whoami, usage, audit, keys."""

from __future__ import annotations

import sys
from typing import Any

import click

from deploy.weft.session import DEFAULT, URL, Profile, Session, profile_save, profiles_read
from deploy.weft.shown import remark, show_rows, show_thing
from deploy.weft.words import json_option, limit_option, with_session

KEY_COLUMNS = ("id", "key_id", "name", "role", "environment", "last_used_at", "expires_at")


@click.command()
@click.option("--name", default=DEFAULT, show_default=True, help="What to call the profile.")
@click.option("--key", envvar="WEFT_KEY", help="Better left to the question, or WEFT_KEY.")
@json_option
@with_session
def login(session: Session, name: str, key: str | None) -> None:
    """Keep an API key in the profile file, which only you can read."""
    key = key or click.prompt("API key", hide_input=True, err=True)
    given = session.profile
    profile = Profile(given.url or URL, str(key).strip(), given.tenant, given.ca)
    tried = Session(profile, session.profiles, session.as_json)
    told = tried.api.get("me")
    profile_save(session.profiles, name, profile)
    remark(f"kept as profile {name!r} in {session.profiles}")
    show_rows(session, told["tenants"], ("handle", "name", "role"))


@click.command()
@click.option("--name", help="The profile; otherwise the current one.")
@with_session
def logout(session: Session, name: str | None) -> None:
    """Forget a profile's key. It stays valid: `weft keys revoke` ends it."""
    chosen = name or profiles_read(session.profiles)["current"]
    profile_save(session.profiles, chosen, None)
    remark(f"profile {chosen!r} is forgotten")


@click.command()
@json_option
@with_session
def whoami(session: Session) -> None:
    """Say who the key stands for, and in which tenants."""
    told = session.api.get("me")
    if session.as_json:
        show_thing(session, told)
        return
    key = told["key"] or {}
    show_thing(session, {"api": session.api.base, "email": told["email"], "key": key.get("name")})
    click.echo("")
    show_rows(session, told["tenants"], ("handle", "name", "role"))


@click.command()
@click.option("--instance", help="By the hour, of one instance.")
@click.option("--start", metavar="TIME", help="As 2027-01-31T12:00:00Z; a day ago if absent.")
@click.option("--stop", metavar="TIME")
@json_option
@with_session
def usage(session: Session, /, instance: str | None, **period: Any) -> None:
    """Print what instances used."""
    figures = ("read_units", "write_units", "query_units", "refused_units", "bytes_out")
    if instance:
        hours = session.api.get(session.instance(instance, "usage"), **period)["items"]
        show_rows(session, hours, ("hour", *figures))
        return
    items = session.api.get(session.path("usage"), **period)["items"]
    flat = [{**item, **item["figures"]} for item in items] if not session.as_json else items
    show_rows(session, flat, ("instance", "start", "stop", *figures))


@click.group()
def audit() -> None:
    """Who did what: export."""


@audit.command()
@click.option("--format", "kind", type=click.Choice(["jsonl", "csv"]), default="jsonl")
@click.option("--gzip", is_flag=True)
@click.option("--since", metavar="TIME")
@click.option("--until", metavar="TIME")
@click.option("--action")
@click.option("--actor")
@click.option("-o", "--output", type=click.File("wb", atomic=True), default="-")
@with_session
def export(session: Session, /, kind: str, gzip: bool, output: Any, **query: Any) -> None:
    """Write the events of some time as JSON Lines or CSV, oldest first."""
    wish = {**query, "format": kind, "gzip": "true" if gzip else None}
    session.api.stream(session.path("audit", "export"), output.write, **wish)
    if output.name == "<stdout>":
        sys.stdout.flush()


@click.group()
def keys() -> None:
    """API keys of the tenant: list, create, revoke."""


@keys.command("list")
@limit_option
@json_option
@with_session
def key_list(session: Session, limit: int) -> None:
    """List API keys."""
    show_rows(session, session.api.items(session.path("api-keys"), limit), KEY_COLUMNS)


@keys.command("create")
@click.argument("name")
@click.option("--role", default="member", show_default=True)
@click.option("--environment", default="")
@click.option("--expires-at", metavar="TIME", help="As 2027-01-31T12:00:00Z.")
@click.option("--allow", "cidrs", multiple=True, metavar="CIDR", help="Repeat it for more.")
@json_option
@with_session
def key_create(session: Session, /, **fields: Any) -> None:
    """Make an API key and print its token, once."""
    made = session.api.post(session.path("api-keys"), fields)
    show_thing(session, made, () if session.as_json else ("id", "name", "role", "token"))
    remark("the token is shown this once")


@keys.command("revoke")
@click.argument("key")
@with_session
def key_revoke(session: Session, key: str) -> None:
    """End an API key (its id), at once."""
    session.api.delete(session.path("api-keys", key))
    remark("the key is revoked")
