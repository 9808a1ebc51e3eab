"""How the environment becomes settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from kombu.utils.url import url_to_parts

from weftkit_site.settings import environment as env


def test_a_database_on_a_unix_socket() -> None:
    entry = env.database("postgresql://weftkit@/weftkit?host=/run/w/pg&port=5433")
    assert (entry["HOST"], entry["PORT"]) == ("/run/w/pg", "5433")
    assert (entry["NAME"], entry["USER"], entry["PASSWORD"]) == ("weftkit", "weftkit", "")
    assert "lock_timeout" in entry["OPTIONS"]["options"]


def test_a_database_over_tcp_keeps_its_other_parameters() -> None:
    entry = env.database("postgresql://u:p%40ss@db.example.org/w?sslmode=verify-full")
    assert (entry["HOST"], entry["PASSWORD"]) == ("db.example.org", "p@ss")
    assert entry["OPTIONS"]["sslmode"] == "verify-full"


def test_redis_on_a_unix_socket_has_a_form_for_each_library() -> None:
    url = "unix:///run/w/redis.sock"
    broker = env.celery_broker(url)
    assert broker == "redis+socket:///run/w/redis.sock?virtual_host=0"
    assert url_to_parts(broker)[5] == "run/w/redis.sock"
    assert env.redis_database(url, 1) == "unix:///run/w/redis.sock?db=1"


def test_redis_on_a_socket_in_a_directory_with_a_space() -> None:
    url = "unix:///run/my%20w/redis.sock"
    assert env.celery_broker(url) == "redis+socket:///run/my%20w/redis.sock?virtual_host=0"
    assert env.redis_database(url, 1) == "unix:///run/my%20w/redis.sock?db=1"


def test_redis_over_tcp() -> None:
    url = "rediss://:secret@cache.example.org:6380"
    assert env.celery_broker(url) == "rediss://:secret@cache.example.org:6380/0"
    assert env.redis_database(url, 2) == "rediss://:secret@cache.example.org:6380/2"


def test_peppers_are_numbered_files(tmp_path: Path) -> None:
    (tmp_path / "pepper.1").write_text("00ff\n")
    (tmp_path / "pepper.12").write_text("aa")
    (tmp_path / "pepper.old").write_text("zz")
    assert env.numbered_secrets(tmp_path, "pepper") == {1: b"\x00\xff", 12: b"\xaa"}
    assert env.secret(tmp_path, "absent") == ""


def test_numbers_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFTKIT_PORT_OFFSET", "ten")
    with pytest.raises(ImproperlyConfigured, match="WEFTKIT_PORT_OFFSET"):
        env.number("WEFTKIT_PORT_OFFSET", 0)


def test_what_production_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFTKIT_A", "set")
    monkeypatch.delenv("WEFTKIT_B", raising=False)
    with pytest.raises(ImproperlyConfigured, match="WEFTKIT_B") as refused:
        env.required("WEFTKIT_A", "WEFTKIT_B")
    assert "WEFTKIT_A" not in str(refused.value)


def test_a_wrong_weftkit_toml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "weftkit.toml"
    path.write_text("[server]\nnmae = 'x'\n")
    with pytest.raises(ImproperlyConfigured, match=r"weftkit\.toml:2"):
        env.weftkit_toml(str(path))
    with pytest.raises(ImproperlyConfigured, match="absent"):
        env.weftkit_toml(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize(("word", "level"), [("trace", "DEBUG"), ("warn", "WARNING"), ("", "INFO")])
def test_levels_of_weftkit_toml_become_pythons(
    monkeypatch: pytest.MonkeyPatch, word: str, level: str
) -> None:
    monkeypatch.setenv("WEFTKIT_LOG_LEVEL", word)
    assert env.log_level("WEFTKIT_LOG_LEVEL") == level


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ("filebased", "localhost", 587, True, False)),
        ("smtp://mail.example.org", ("smtp", "mail.example.org", 587, True, False)),
        ("smtp://u:p%40ss@m.example.org?tls=yes", ("smtp", "m.example.org", 465, False, True)),
        ("smtp://m.example.org:2525?tls=no", ("smtp", "m.example.org", 2525, False, False)),
    ],
)
def test_mail_goes_where_its_url_says(url: str, expected: tuple[object, ...]) -> None:
    found = env.mail(url, Path("/mails"))
    kind = found["backend"].split(".")[-2]
    assert (kind, found["host"], found["port"], found["starttls"], found["tls"]) == expected
    assert found["password"] == ("p@ss" if "p%40ss" in url else "")


@pytest.mark.parametrize("url", ["imap://m.example.org", "smtp://", "smtp://m?tls=maybe"])
def test_a_mail_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="WEFTKIT_EMAIL_URL"):
        env.mail(url, Path("/mails"))


def test_a_providers_secret_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.oidc_provider(tmp_path) == {}
    monkeypatch.setenv("WEFTKIT_OIDC_ISSUER", "https://id.example.org/realm")
    monkeypatch.setenv("WEFTKIT_OIDC_CLIENT_ID", "weftkit")
    (tmp_path / "oidc.secret").write_text("hush\n")
    (app,) = env.oidc_provider(tmp_path)["openid_connect"]["APPS"]
    assert (app["name"], app["client_id"], app["secret"]) == ("id.example.org", "weftkit", "hush")
