"""What root hands over: a way through closed directories, and nothing more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.home import MARKER
from deploy.local.privilege import (
    Account,
    PrivilegeError,
    account_for,
    give_tree,
    grant_search,
    require_readable,
    service_account,
)
from tests.servers import temporary_home
from tests.stack import Stack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands anything over")


@pytest.fixture
def closed() -> Iterator[Path]:
    """A directory of root's with mode 0700, and a readable file below it."""
    with temporary_home() as root:
        directory = root / "closed"
        directory.mkdir(mode=0o700)
        (directory / "inner").mkdir(mode=0o755)
        (directory / "inner" / "file").write_text("content")
        (directory / "inner" / "file").chmod(0o644)
        yield directory


def can(account: Account, *command: str | Path) -> bool:
    done = subprocess.run(command, capture_output=True, **account.popen_arguments())
    return done.returncode == 0


def stranger() -> Account:
    return Account(65534, 65534, "nobody")


def test_account_may_pass_but_neither_list_nor_write(closed: Path) -> None:
    account = service_account()
    assert not can(account, "cat", closed / "inner" / "file")
    assert grant_search(account, [closed / "inner"]) == [closed]
    assert can(account, "cat", closed / "inner" / "file")
    assert not can(account, "ls", closed)
    assert not can(account, "touch", closed / "new")
    assert not can(stranger(), "cat", closed / "inner" / "file")


def test_granting_again_changes_nothing(closed: Path) -> None:
    account = service_account()
    grant_search(account, [closed])
    before = os.getxattr(closed, "system.posix_acl_access")
    assert grant_search(account, [closed]) == []
    assert os.getxattr(closed, "system.posix_acl_access") == before


def test_entry_that_a_mask_had_switched_off_stays_off(closed: Path) -> None:
    grant_search(stranger(), [closed])
    # chmod writes the group bits into the mask once there is an ACL.
    closed.chmod(0o700)
    assert not can(stranger(), "cat", closed / "inner" / "file")
    grant_search(service_account(), [closed])
    assert can(service_account(), "cat", closed / "inner" / "file")
    assert not can(stranger(), "cat", closed / "inner" / "file")


def test_file_that_the_account_cannot_read_is_named(closed: Path) -> None:
    account = service_account()
    grant_search(account, [closed])
    secret = closed / "inner" / "secret"
    secret.write_text("")
    secret.chmod(0o600)
    with pytest.raises(PrivilegeError, match=f"may not read {secret}"):
        require_readable(account, [closed / "inner" / "file", secret])


def test_tree_of_root_is_given_and_files_of_others_are_left(closed: Path) -> None:
    account = service_account()
    theirs = closed / "theirs"
    theirs.touch()
    os.chown(theirs, 65534, 65534)
    give_tree(account, closed)
    assert (closed / "inner" / "file").stat().st_uid == account.uid
    assert closed.stat().st_uid == account.uid
    assert theirs.stat().st_uid == 65534


def test_home_of_an_ordinary_user_stays_that_users_under_root(closed: Path) -> None:
    assert account_for(closed) == service_account()
    os.chown(closed, 65534, 65534)
    account = account_for(closed)
    assert account is not None
    assert (account.uid, account.name) == (65534, "nobody")


def test_tree_of_another_user_is_not_taken_over(closed: Path) -> None:
    os.chown(closed, 65534, 65534)
    with pytest.raises(PrivilegeError, match="belongs to the user 65534"):
        give_tree(service_account(), closed)
    assert (closed / "inner" / "file").stat().st_uid == 0


def test_file_with_a_second_name_stays_roots(closed: Path) -> None:
    precious = closed.parent / "precious"
    precious.touch()
    os.link(precious, closed / "inner" / "innocent")
    (closed / "link").symlink_to(precious)
    give_tree(service_account(), closed)
    assert precious.stat().st_uid == 0
    assert (closed / "inner").stat().st_uid == service_account().uid


def test_link_that_the_account_laid_leads_root_nowhere() -> None:
    account = service_account()
    with temporary_home() as root:
        root.chmod(0o755)
        precious, home = root / "precious", root / "home"
        precious.write_text("root's")
        precious.chmod(0o600)
        (home / "logs").mkdir(parents=True)
        (home / MARKER).touch()
        (home / "logs" / "supervisor.log").symlink_to(precious)
        for path in (home, home / "logs", home / MARKER):
            os.chown(path, account.uid, account.gid)
        # A port beyond the last one: the start fails at once.
        done = Stack(home, 60_000).command("up")
        assert done.returncode == 1
        assert precious.read_text() == "root's"
        assert (home / "logs" / "supervisor.log").lstat().st_uid == account.uid
        assert not (home / "logs" / "supervisor.log").is_symlink()
