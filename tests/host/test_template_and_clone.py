"""Ready-made data directories and copies of them, made by the unprivileged account."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.files import write_atomically
from dataplane.host.clone import clone_tree
from tests.host.conftest import ROOT
from tests.servers import as_service, temporary_home

BUILD = """
import sys
from pathlib import Path
from dataplane.host import template
from dataplane.host.binaries import find_postgres_bin
for build in (template.instance_cluster, template.extension_directory):
    print(build(find_postgres_bin(), Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def templates(reachable_python: None) -> Iterator[Path]:
    """The directory of templates, built by two processes at once."""
    with temporary_home() as home:
        builders = [
            subprocess.Popen(
                [sys.executable, "-c", BUILD, home / "t"],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **as_service(),
            )
            for _ in range(2)
        ]  # fmt: skip
        results = [builder.communicate(timeout=120) for builder in builders]
        assert [builder.returncode for builder in builders] == [0, 0], results
        assert results[0][0] == results[1][0]
        yield home / "t"


def test_two_builders_at_once_leave_one_whole_result_each(templates: Path) -> None:
    kinds = sorted(path.name.split("-")[0] for path in templates.iterdir())
    assert kinds == ["base", "extensions", "instance"]


def test_template_is_cleanly_stopped_and_holds_one_wal_segment(templates: Path) -> None:
    (instance,) = templates.glob("instance-*")
    assert not (instance / "postmaster.pid").exists()
    assert len([each for each in (instance / "pg_wal").iterdir() if each.is_file()]) == 1
    assert instance.stat().st_mode & 0o777 == 0o700


def test_copied_control_file_of_the_extension_is_marked_trusted(templates: Path) -> None:
    (extensions,) = templates.glob("extensions-*")
    control = (extensions / "extension" / "vector.control").read_text()
    assert control.splitlines().count("trusted = true") == 1


def test_clone_has_the_same_files_with_the_same_bytes(templates: Path, tmp_path: Path) -> None:
    (source,) = templates.glob("instance-*")
    clone_tree(source, tmp_path / "copy")

    def content(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_bytes() for path in files}

    assert content(tmp_path / "copy") == content(source)


def test_clone_refuses_an_existing_target_and_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    with pytest.raises(FileExistsError):
        clone_tree(tmp_path / "source", tmp_path / "target")
    (tmp_path / "source" / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        clone_tree(tmp_path / "source", tmp_path / "other")


def test_clone_copies_a_file_with_a_hole(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    clone_tree(tmp_path / "source", tmp_path / "copy")
    copied = (tmp_path / "copy" / "sparse").read_bytes()
    assert copied == b"\0" * 5_000_000 + b"end"


def test_replaced_file_is_private_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state.json"]
