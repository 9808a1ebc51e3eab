"""redis-cli, as a person types it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.stack import Stack

pytestmark = pytest.mark.stack

REDIS_CLI = shutil.which("redis-cli") or "redis-cli"


def redis_cli(*arguments: str, typed: str | None = None) -> str:
    """Run redis-cli and return what it printed."""
    done = subprocess.run(
        [REDIS_CLI, "--no-auth-warning", *arguments], input=typed, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.parametrize("tenant", ["demo", "other"])
def test_redis_cli_works_with_the_printed_string(stack: Stack, tenant: str) -> None:
    uri = stack.connection(tenant, "inmemory").uri
    assert redis_cli("-u", uri, "SET", "typed", "by hand") == "OK\n"
    assert redis_cli("-u", uri, "GET", "typed") == "by hand\n"


def test_redis_cli_works_over_tls(stack: Stack) -> None:
    uri = stack.connection("demo", "inmemory").uri.replace("redis://", "rediss://")
    assert redis_cli("--tls", "--cacert", stack.ca, "-u", uri, "PING") == "PONG\n"


def test_resp3_and_several_databases(stack: Stack) -> None:
    uri = stack.connection("demo", "inmemory").uri
    typed = "SELECT 3\nHSET h a 1 b 2\nHGETALL h\nFLUSHDB\n"
    printed = redis_cli("-3", "-u", uri, typed=typed)
    assert printed.splitlines()[:2] == ["OK", "2"]


def test_a_wrong_password_says_wrongpass(stack: Stack) -> None:
    row = stack.connection("demo", "inmemory")
    arguments = ["-h", row.host, "-p", str(row.port), "--user", row.user, "--pass", "no", "PING"]
    done = subprocess.run([REDIS_CLI, *arguments], capture_output=True, text=True)
    assert "WRONGPASS" in done.stdout + done.stderr
    assert "NOAUTH" in done.stdout + done.stderr
