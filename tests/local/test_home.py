"""Where things are put: directories, secrets, the environment of every process."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from redis.connection import parse_url

from deploy.local.home import Home, HomeError, is_ours_or_empty, make_home, make_secret, read_home
from deploy.local.programs import programs
from tests.servers import temporary_home


def home_in(root: Path, **environ: str) -> Home:
    """Read a home that belongs to whoever runs the tests."""
    config = root / "weftkit.toml"
    if not config.exists():
        config.write_text("")
    return read_home({"WEFTKIT_HOME": str(root / "w"), "WEFTKIT_CONFIG": str(config), **environ})


def test_run_directory_is_below_a_short_home(tmp_path: Path) -> None:
    with temporary_home() as root:
        home = home_in(root)
        assert home.run_dir == home.root / "run"


def test_run_directory_of_a_long_home_is_short_and_always_the_same() -> None:
    with temporary_home() as root:
        config = root / "weftkit.toml"
        config.write_text("")
        environ = {"WEFTKIT_HOME": str(root / ("d" * 80)), "WEFTKIT_CONFIG": str(config)}
        first, second = read_home(environ), read_home(environ)
        assert first.run_dir == second.run_dir
        assert first.run_dir.parent == Path("/tmp")
        assert len(str(first.run_dir)) < 40


def test_secrets_are_private_random_and_made_only_once(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_secret(path, 32)
    first = path.read_text()
    make_secret(path, 32)
    assert path.read_text() == first
    assert len(bytes.fromhex(first)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    make_secret(tmp_path / "other", 32)
    assert (tmp_path / "other").read_text() != first
    assert sorted(each.name for each in tmp_path.iterdir()) == ["master.key", "other"]


def test_home_is_made_whole_and_for_nobody_else() -> None:
    with temporary_home() as root:
        home = home_in(root)
        make_home(home)
        make_home(home)
        for directory in (home.root, home.secrets, home.logs, home.run_dir):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        names = sorted(each.name for each in home.secrets.iterdir())
        assert names == ["backup.1", "django.key", "master.key", "pepper.1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_run_directory_of_somebody_else_is_refused() -> None:
    with temporary_home() as root:
        home = home_in(root)
        home.run_dir.mkdir(parents=True)
        os.chown(home.run_dir, 65534, 65534)
        with pytest.raises(HomeError, match="belongs to somebody else"):
            make_home(home)


def test_environment_names_sockets_certificates_and_servers() -> None:
    with temporary_home() as root:
        home = home_in(root, WEFTKIT_PORT_OFFSET="1000", LC_ALL="C.UTF-8")
        environment = home.environment()
        assert environment["WEFTKIT_REDIS_URL"] == f"unix://{home.run_dir}/redis.sock"
        assert environment["WEFTKIT_DATAPLANE_DATABASE_URL"] == (
            f"postgresql://weftkit_dataplane@/weftkit?host={home.run_dir}/pg"
        )
        assert environment["WEFTKIT_TLS_CERT"] == f"{home.root}/tls/server.crt"
        assert environment["WEFTKIT_TLS_CA_PUBLIC"] == f"{home.root}/tls/ca.crt"
        assert environment["HOME"] == str(home.root)
        assert environment["LC_ALL"] == "C.UTF-8"
        assert (home.console_port, home.admin_port) == (9443, 10090)


def test_without_tls_the_console_is_plain_and_no_certificate_is_named() -> None:
    with temporary_home() as root:
        (root / "weftkit.toml").write_text("[tls]\nenabled = false\n")
        home = home_in(root)
        assert home.console_port == 8088
        assert home.environment()["WEFTKIT_TLS_CERT"] == ""


def test_certificates_of_the_operator_win() -> None:
    with temporary_home() as root:
        text = '[tls]\ncert_file = "/etc/c.crt"\nkey_file = "/etc/c.key"\nca_file = "/etc/ca"\n'
        (root / "weftkit.toml").write_text(text)
        environment = home_in(root).environment()
        assert environment["WEFTKIT_TLS_CERT"] == "/etc/c.crt"
        assert environment["WEFTKIT_TLS_CA"] == "/etc/ca"


@pytest.mark.parametrize("offset", ["-1", "60001", "x", "1.5"])
def test_impossible_port_offset_is_refused(offset: str) -> None:
    with (
        temporary_home() as root,
        pytest.raises(HomeError, match="WEFTKIT_PORT_OFFSET is not between 0 and 60000"),
    ):
        home_in(root, WEFTKIT_PORT_OFFSET=offset)


def test_mistake_in_weftkit_toml_is_named_with_its_line() -> None:
    with temporary_home() as root:
        (root / "weftkit.toml").write_text("[server]\ncolour = 1\n")
        with pytest.raises(HomeError, match=r"weftkit\.toml:2: "):
            home_in(root)


def test_directory_with_other_content_is_not_taken(tmp_path: Path) -> None:
    assert is_ours_or_empty(tmp_path)
    assert is_ours_or_empty(tmp_path / "new")
    (tmp_path / "thesis.txt").touch()
    assert not is_ours_or_empty(tmp_path)
    (tmp_path / "weftkit-home").touch()
    assert is_ours_or_empty(tmp_path)


def test_processes_inherit_what_weftkit_toml_names_and_no_other_secret_of_the_shell() -> None:
    with temporary_home() as root:
        (root / "weftkit.toml").write_text(
            '[[auth.users]]\nusername = "app"\npassword = "env:APP_PASSWORD"\nroles = ["read"]\n'
        )
        home = home_in(root, APP_PASSWORD="p", CLOUD_TOKEN="secret")
        environment = home.environment()
        assert environment["APP_PASSWORD"] == "p"
        assert "CLOUD_TOKEN" not in environment


def test_addresses_of_a_home_with_a_space_are_readable_for_their_libraries() -> None:
    with temporary_home() as root:
        home = home_in(root, WEFTKIT_HOME=str(root / "my data"))
        environment = home.environment()
        directory = str(home.postgres_socket_dir)
        assert " " in directory
        for name in ("WEFTKIT_DATABASE_URL", "WEFTKIT_DATAPLANE_DATABASE_URL"):
            assert conninfo_to_dict(environment[name])["host"] == directory
        assert parse_url(environment["WEFTKIT_REDIS_URL"])["path"] == str(home.redis_socket)


@pytest.mark.parametrize("name", ["a,b", "a'b", 'a"b', "a\\b", "a:b", "a\nb"])
def test_path_that_would_break_a_servers_settings_is_refused(name: str) -> None:
    with temporary_home() as root, pytest.raises(HomeError, match="cannot have"):
        home_in(root, WEFTKIT_HOME=str(root / name))


def test_home_that_was_moved_is_told_to_the_bootstrap() -> None:
    with temporary_home() as root:
        before = home_in(root)
        make_home(before)
        first = {each.name: each.fingerprint for each in programs(before)}
        before.root.rename(root / "moved")
        second = {
            each.name: each.fingerprint
            for each in programs(home_in(root, WEFTKIT_HOME=str(root / "moved")))
        }
        assert first["bootstrap"] != second["bootstrap"]
        assert first["migrate"] == second["migrate"]
