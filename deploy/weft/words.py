"""What commands share on the line: `--json`, `--wait`, `--timeout`, and the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from deploy.weft.session import Session

Command = Callable[..., Any]
with_session = click.make_pass_decorator(Session)
instance_argument = click.argument("name", metavar="INSTANCE")


def _json_wanted(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    session = context.find_object(Session)
    if is_wanted and session is not None:
        session.as_json = True


def json_option(command: Command) -> Command:
    """Take `--json` behind the command too, where one thinks of it."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=_json_wanted,
        help="Print JSON, all of it.",
    )(command)  # fmt: skip


def wait_options(command: Command) -> Command:
    """Take `--wait` and `--timeout`."""
    command = click.option(
        "--timeout", "timeout_s", type=click.FloatRange(0.1, 86_400), default=600.0,
        show_default=True, metavar="SECONDS", help="How long to wait.",
    )(command)  # fmt: skip
    return click.option("--wait", is_flag=True, help="Return when it has ended, with its outcome.")(
        command
    )


def limit_option(command: Command) -> Command:
    """Take `--limit`."""
    return click.option(
        "--limit", type=click.IntRange(1, 100_000), default=200, show_default=True,
        help="The newest so many.",
    )(command)  # fmt: skip
