"""Settings from the environment and weftkit.toml: read once, refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataplane.config import ConfigError, config_from, enabled_engines
from engines import registry
from tests.dataplane.line_engine import ENGINE

HEX = "00112233445566778899aabbccddeeff"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "master.key").write_text(HEX + "\n")
    (tmp_path / "pepper.1").write_text(HEX)
    return {
        "WEFTKIT_HOME": str(tmp_path),
        "WEFTKIT_RUN_DIR": str(tmp_path / "run"),
        "WEFTKIT_SECRETS_DIR": str(tmp_path),
        "WEFTKIT_DATAPLANE_DATABASE_URL": "postgresql:///weftkit",
        "WEFTKIT_REDIS_URL": "unix:///redis.sock",
    }


def with_toml(environ: dict[str, str], tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "weftkit.toml"
    path.write_text(text)
    return {**environ, "WEFTKIT_CONFIG": str(path)}


def test_defaults(environ: dict[str, str], tmp_path: Path) -> None:
    config = config_from((ENGINE,), environ)
    assert config.ports == {"line": 7000}
    assert (config.bind, config.admin_port, config.tls) == ("127.0.0.1", 9090, None)
    assert config.peppers == {1: bytes.fromhex(HEX)}
    assert config.state_dir == tmp_path / "dataplane"
    assert config.workers >= 1


def test_the_offset_is_added_to_every_port(environ: dict[str, str]) -> None:
    config = config_from((ENGINE,), {**environ, "WEFTKIT_PORT_OFFSET": "100"})
    assert (config.ports, config.admin_port) == ({"line": 7100}, 9190)


def test_weftkit_toml_names_ports_and_switches_engines_off(
    environ: dict[str, str], tmp_path: Path
) -> None:
    text = "[relational]\nport = 6543\npool_port = 6544\n[inmemory]\nenabled = false\n"
    environ = with_toml(environ, tmp_path, text)
    engines = enabled_engines(environ)
    assert {spec.name for spec in engines} == set(registry.names()) - {"inmemory"}
    assert config_from(engines, environ).ports["relational"] == 6543
    assert config_from(engines, environ).pool_ports == {"relational": 6544}


def test_every_pepper_is_kept_for_the_secrets_made_with_it(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "pepper.2").write_text(HEX[::-1])
    assert set(config_from((), environ).peppers) == {1, 2}


def test_files_of_tls_come_from_the_environment_unless_the_file_names_others(
    environ: dict[str, str], tmp_path: Path
) -> None:
    environ |= {"WEFTKIT_TLS_CERT": "/own.crt", "WEFTKIT_TLS_KEY": "/own.key"}
    own = config_from((), environ).tls
    assert own is not None
    assert (str(own.certificate), str(own.key), own.ca) == ("/own.crt", "/own.key", None)
    text = '[tls]\ncert_file = "/a.crt"\nkey_file = "/a.key"\nca_file = "/ca.crt"\n'
    given = config_from((), with_toml(environ, tmp_path, text)).tls
    assert given is not None
    assert (str(given.certificate), str(given.key), str(given.ca)) == (
        "/a.crt", "/a.key", "/ca.crt",
    )  # fmt: skip
    off = config_from((), with_toml(environ, tmp_path, "[tls]\nenabled = false\n")).tls
    assert off is None


def test_cells_have_names(environ: dict[str, str]) -> None:
    assert config_from((), environ).cells == {}
    text = "local=postgresql://weftkit@/cell?host=/run/cell, east=postgres://e/cell,"
    assert config_from((), {**environ, "WEFTKIT_CELLS": text}).cells == {
        "local": "postgresql://weftkit@/cell?host=/run/cell",
        "east": "postgres://e/cell",
    }


def test_any_key_is_let_in_only_where_the_file_says_so(
    environ: dict[str, str], tmp_path: Path
) -> None:
    assert config_from((), environ).anonymous == frozenset()
    environ = with_toml(environ, tmp_path, "[keyvalue]\nanonymous = true\n")
    assert config_from((), environ).anonymous == {"keyvalue"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"WEFTKIT_HOME": ""}, "WEFTKIT_HOME is not set"),
        ({"WEFTKIT_REDIS_URL": ""}, "WEFTKIT_REDIS_URL is not set"),
        ({"WEFTKIT_WORKERS": "0"}, "WEFTKIT_WORKERS is not between 1 and 256: 0"),
        ({"WEFTKIT_WORKERS": "many"}, "WEFTKIT_WORKERS is no integer: 'many'"),
        ({"WEFTKIT_PORT_OFFSET": "-1"}, "WEFTKIT_PORT_OFFSET"),
        ({"WEFTKIT_CONFIG": "/nowhere.toml"}, "cannot read /nowhere.toml"),
        ({"WEFTKIT_SECRETS_DIR": "/nowhere"}, "cannot read /nowhere/master.key"),
        ({"WEFTKIT_TLS_CERT": "/only.crt"}, "both a certificate and a key"),
        ({"WEFTKIT_CELLS": "local"}, "WEFTKIT_CELLS: entry 1 is not"),
        ({"WEFTKIT_CELLS": "a=postgresql:///x,a=postgresql:///y"}, "names the cell 'a' twice"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    environ: dict[str, str], change: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named.replace("'", ".")):
        config_from((), environ | change)


@pytest.mark.parametrize("text", ["", "xyz", "0011"])
def test_a_short_or_broken_secret_is_refused(
    environ: dict[str, str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "master.key").write_text(text)
    with pytest.raises(ConfigError, match=r"master\.key"):
        config_from((), environ)


def test_no_pepper_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pepper.1").unlink()
    with pytest.raises(ConfigError, match="pepper"):
        config_from((), environ)


def test_an_unknown_key_is_refused_with_its_line(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weftkit\.toml:2: "):
        config_from((), with_toml(environ, tmp_path, "[server]\nnoise = 1\n"))
