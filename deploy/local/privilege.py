"""Started by root: an unprivileged account, what it must be able to reach, and nothing more.

PostgreSQL refuses to run as root, and nothing else of WeftKit needs to. So root makes the system
user `weftkit`, lets it pass (not list, not read) the directories above the programs and the data,
gives it the home, and from then on everything runs as that user. Passing is a POSIX ACL entry
`u:weftkit:--x`, because the alternative, `chmod o+x /root`, would open the door to everybody.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCOUNT_NAME = "weftkit"

# linux/posix_acl_xattr.h: a version, then entries of tag, permissions, id, in the order of tags.
ACL_ATTRIBUTE = "system.posix_acl_access"
ACL_HEADER = struct.Struct("<I")
ACL_ENTRY = struct.Struct("<HHI")
ACL_VERSION = 2
ACL_UNDEFINED_ID = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
SEARCH = 1


class PrivilegeError(Exception):
    """Root cannot hand over; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that everything runs as."""

    uid: int
    gid: int
    name: str

    def popen_arguments(self) -> dict[str, Any]:
        """Return what `subprocess` needs to run a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def service_account() -> Account:
    """Return the system user `weftkit`, making it if there is none. Raises PrivilegeError."""
    with contextlib.suppress(KeyError):
        return _account()
    command = ["useradd", "--system", "--user-group", "--no-create-home",
               "--shell", "/usr/sbin/nologin", ACCOUNT_NAME]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PrivilegeError(
            f"root cannot run PostgreSQL, and the user '{ACCOUNT_NAME}' cannot be made: {error}."
            " Make it, or start as an ordinary user."
        ) from error
    return _account()


def account_for(home: Path) -> Account | None:
    """Return the user to run as; None when we are not root and stay who we are.

    A home that an ordinary user has made stays that user's, also under sudo. Raises PrivilegeError.
    """
    if os.geteuid() != 0:
        return None
    owner = home.stat().st_uid if home.exists() else 0
    if owner == 0:
        return service_account()
    try:
        entry = pwd.getpwuid(owner)
    except KeyError as error:
        raise PrivilegeError(f"{home} belongs to the user {owner}, who does not exist") from error
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def become(account: Account) -> None:
    """Be this user from here on; there is no way back.

    What the account owns it may have replaced by a link to somebody else's file, so root opens
    nothing in the home.
    """
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)


def grant_search(account: Account, targets: Iterable[Path]) -> list[Path]:
    """Let the account pass every directory above and including `targets`.

    Returns the directories that were changed. Raises PrivilegeError.
    """
    changed = []
    for directory in _directories_of(targets):
        if _may(account, "-x", directory):
            continue
        try:
            _add_search(directory, account.uid)
        except OSError as error:
            raise PrivilegeError(
                f"the user '{account.name}' may not pass {directory} and no ACL can be set there"
                f" ({error.strerror}); move the checkout, or start as an ordinary user"
            ) from error
        changed.append(directory)
    return changed


def require_readable(account: Account, paths: Iterable[Path]) -> None:
    """Raise PrivilegeError for the first path that the account may not read."""
    for path in paths:
        if not _may(account, "-r", path):
            raise PrivilegeError(
                f"the user '{account.name}' may not read {path};"
                f" allow it with: chmod -R go+rX {path if path.is_dir() else path.parent}"
            )


def give_tree(account: Account, directory: Path) -> None:
    """Make the account the owner of `directory` and of everything of root's in it.

    The directory itself comes last: one that is the account's already was given as a whole. Names
    are looked up in open directories, and a file with a second name is left alone: whoever may
    write in there could make them lead to any file of root's. Raises PrivilegeError.
    """
    owner = directory.lstat().st_uid
    if owner == account.uid:
        return
    if owner != 0:
        raise PrivilegeError(f"{directory} belongs to the user {owner}, not to '{account.name}'")
    for _, directories, files, descriptor in os.fwalk(directory, topdown=False):
        for name in (*directories, *files):
            state = os.lstat(name, dir_fd=descriptor)
            if state.st_uid == 0 and (stat.S_ISDIR(state.st_mode) or state.st_nlink == 1):
                os.chown(name, account.uid, account.gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(directory, account.uid, account.gid, follow_symlinks=False)


def _account() -> Account:
    entry = pwd.getpwnam(ACCOUNT_NAME)
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _directories_of(targets: Iterable[Path]) -> Iterator[Path]:
    """Yield each directory once, the outermost first."""
    seen = set()
    for target in targets:
        resolved = target.resolve()
        own = [resolved] if resolved.is_dir() else []
        for directory in [*reversed(resolved.parents), *own]:
            if directory not in seen:
                seen.add(directory)
                yield directory


def _may(account: Account, test: str, path: Path) -> bool:
    """Ask the kernel, as that user: mode bits, ACLs and mounts all have their say."""
    done = subprocess.run(["test", test, path], cwd="/", check=False, **account.popen_arguments())
    return done.returncode == 0


def _add_search(directory: Path, uid: int) -> None:
    """Add `u:<uid>:--x` and change nothing for anybody else. Raises OSError."""
    entries = _read_acl(directory)
    mask = entries.pop((MASK, ACL_UNDEFINED_ID), None)
    if mask is not None:
        # Write down what the mask left of each entry: widening the mask must not revive the rest.
        for tag, identity in entries:
            if tag in (USER, GROUP, GROUP_OBJ):
                entries[tag, identity] &= mask
    entries[USER, uid] = entries.get((USER, uid), 0) | SEARCH
    in_mask = [bits for (tag, _), bits in entries.items() if tag in (USER, GROUP, GROUP_OBJ)]
    entries[MASK, ACL_UNDEFINED_ID] = _union(in_mask)
    packed = b"".join(
        ACL_ENTRY.pack(tag, bits, identity) for (tag, identity), bits in sorted(entries.items())
    )
    os.setxattr(directory, ACL_ATTRIBUTE, ACL_HEADER.pack(ACL_VERSION) + packed)


def _read_acl(directory: Path) -> dict[tuple[int, int], int]:
    """Return (tag, id) -> permissions; from the mode bits where there is no ACL."""
    try:
        raw = os.getxattr(directory, ACL_ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = directory.stat().st_mode
        return {
            (USER_OBJ, ACL_UNDEFINED_ID): mode >> 6 & 7,
            (GROUP_OBJ, ACL_UNDEFINED_ID): mode >> 3 & 7,
            (OTHER, ACL_UNDEFINED_ID): mode & 7,
        }
    return {
        (tag, identity): bits
        for tag, bits, identity in ACL_ENTRY.iter_unpack(raw[ACL_HEADER.size :])
    }


def _union(permissions: Iterable[int]) -> int:
    result = 0
    for bits in permissions:
        result |= bits
    return result
