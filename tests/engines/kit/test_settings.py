"""weftkit.toml: the specification's sample, defaults, every error with its line."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import registry
from engines.kit.records import Role
from engines.kit.settings import ENGINES, Settings, SettingsError, parse
from engines.kit.settings.positions import line_of, positions
from engines.kit.settings.reader import SECTIONS

ROOT = Path(__file__).resolve().parents[3]
SECRET = "0123456789abcdef0123456789abcdef"

# The specification's sample, with the line breaks that its plain-text form has lost.
SPECIFICATION_SAMPLE = """\
# Server identity
[server]
name = "my-weftkit-node"
data_dir = "/var/lib/weftkit"
log_level = "info" # "trace" | "debug" | "info" | "warn" | "error"

# Authentication
[auth]
method = "password" # "password" | "jwt" | "mtls"
jwt_secret = "env:JWT_SECRET"

[[auth.users]]
username = "app"
password = "env:APP_DB_PASSWORD"
roles = ["read", "write"]

[[auth.users]]
username = "readonly"
password = "env:READONLY_PASSWORD"
roles = ["read"]

# TLS
[tls]
enabled = true
cert_file = "/etc/weftkit/server.crt"
key_file = "/etc/weftkit/server.key"
ca_file = "/etc/weftkit/ca.crt" # mTLS only

# Per-engine settings
[relational]
enabled = true
port = 5432
max_connections = 10000
max_memory_bytes = 4294967296 # 4 GB
wal_fsync = true

[document]
enabled = true
port = 27017

[keyvalue]
enabled = true
port = 8000

[graph]
enabled = true
port = 7687

[inmemory]
enabled = true
port = 6379
max_memory_bytes = 1073741824 # 1 GB
eviction_policy = "lru" # "lru" | "lfu" | "noeviction"

[vector]
enabled = true
port = 50051
max_index_bytes = 8589934592 # 8 GB

[markdown]
enabled = true
port = 8080

[filestore]
enabled = true
port = 8081
storage = "/var/lib/weftkit/files"
max_size = "100GB"

# Replication (Distribution)
[distribution]
enabled = false
role = "primary" # "primary" | "replica"
peers = [
  "replica1.internal:9000",
  "replica2.internal:9000"
]

# CDC (Change Data Capture)
[cdc]
enabled = false
emitter = "kafka" # "kafka" | "redis" | "webhook" | "nats"
topic = "weftkit.changes"
broker = "kafka:9092"
"""
SAMPLE_ENVIRONMENT = {
    "JWT_SECRET": SECRET, "APP_DB_PASSWORD": "app-password", "READONLY_PASSWORD": "ro",
}  # fmt: skip


def refused(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text, environ or {})
    return str(caught.value)


def test_the_specifications_sample_is_read_as_written() -> None:
    settings = parse(SPECIFICATION_SAMPLE, SAMPLE_ENVIRONMENT)
    assert settings.server.name == "my-weftkit-node"
    assert settings.auth.jwt_secret == SECRET
    assert [(user.username, user.password, user.role) for user in settings.auth.users] == [
        ("app", "app-password", Role.WRITE),
        ("readonly", "ro", Role.READ),
    ]
    assert settings.relational.max_memory_bytes == 4 * 2**30
    assert settings.inmemory.eviction_policy == "lru"
    assert settings.filestore.max_size == 100 * 2**30
    assert settings.distribution.peers == ("replica1.internal:9000", "replica2.internal:9000")
    assert settings.cdc.broker == "kafka:9092"
    assert settings.is_given("relational", "wal_fsync")
    assert not settings.is_given("keyvalue", "anonymous")


def test_an_empty_file_gives_the_specifications_defaults() -> None:
    settings = parse("", {})
    sample = parse(SPECIFICATION_SAMPLE, SAMPLE_ENVIRONMENT)
    for name in ("relational", "document", "keyvalue", "graph", "inmemory", "vector", "markdown"):
        assert settings.engine(name) == sample.engine(name)
    assert settings.filestore.max_size == sample.filestore.max_size
    assert settings.auth.method == "password"
    assert settings.auth.users == ()
    assert settings.server.log_level == "info"
    assert not settings.given


def test_the_sample_at_the_root_sets_nothing_and_shows_every_key() -> None:
    text = (ROOT / "weftkit.toml").read_text()
    settings = parse(text, {})
    assert settings == parse("", {})
    for section, cls in SECTIONS.items():
        body = re.split(r"\n\[|# \[\[", text.split(f"\n[{section}]")[1])[0]
        shown = set(re.findall(r"^# (\w+) = ", body, re.MULTILINE))
        assert shown == {field.name for field in fields(cls)} - {"users"}, section


def test_the_root_sample_is_valid_with_every_line_taken_out_of_its_comment() -> None:
    text = (ROOT / "weftkit.toml").read_text()
    uncommented = re.sub(r"^# (?=\w+ = |\[\[)", "", text, flags=re.MULTILINE)
    settings = parse(uncommented, SAMPLE_ENVIRONMENT)
    assert len(settings.auth.users) == 2
    assert settings.vector == parse("", {}).vector
    assert settings.server.data_dir == "/var/lib/weftkit"


def test_every_engine_has_a_section_with_its_own_port() -> None:
    settings = parse("", {})
    assert len(ENGINES) == 12
    assert set(registry.names()) <= set(ENGINES)
    assert {name: settings.engine(name).port for name in ENGINES} == {
        name: title.port for name, title in ENGINES.items()
    }
    assert len({title.port for title in ENGINES.values()}) == 12
    with pytest.raises(KeyError):
        settings.engine("server")


def outcome(text: str) -> int:
    """Return the line of the error, or 1 if there is none."""
    try:
        settings = parse(text, {})
    except SettingsError as error:
        return error.line
    return 1 if isinstance(settings, Settings) else 0


# Text, what the message says, and the line that it names.
ERRORS = [
    (
        "[relational]\nenabled = true\nprot = 1",
        3,
        "unknown key 'prot' in [relational]; did you mean 'port'?",
    ),
    ("\n\n[relatonal]\nport = 1", 3, "unknown section [relatonal]; did you mean 'relational'?"),
    ("port = 1", 1, "unknown key 'port' outside of a section"),
    ("relational = 3", 1, "'relational' must be a section: [relational]"),
    ("[[relational]]\nport = 3", 1, "'relational' must be a section: [relational]"),
    ("[relational]\nport = '5432'", 2, "'port' in [relational] must be an integer, not a string"),
    ("[relational]\nport = true", 2, "'port' in [relational] must be an integer, not a boolean"),
    ("[relational]\nport = 0", 2, "'port' in [relational] must be from 1 to 65535, not 0"),
    (
        "[relational]\nwal_fsync = 1",
        2,
        "'wal_fsync' in [relational] must be true or false, not an integer",
    ),
    ("[server]\nname = 1979-05-27", 2, "'name' in [server] must be a string, not a date or time"),
    ("[server]\nname = ''", 2, "'name' in [server] must not be empty"),
    (
        "[server]\nlog_level = 'loud'",
        2,
        "must be one of trace, debug, info, warn, error, not 'loud'",
    ),
    ("[inmemory]\neviction_policy = 'fifo'", 2, "must be one of lru, lfu, noeviction, not 'fifo'"),
    (
        "[filestore]\nmax_size = '100 XB'",
        2,
        "must be a size such as 1048576 or \"100GB\", not '100 XB'",
    ),
    ("[filestore]\nmax_size = -1", 2, "must be at least 1 bytes, not -1"),
    ("[distribution]\npeers = ['nowhere']", 2, "must be host:port, not 'nowhere'"),
    ("[distribution]\npeers = ['a:1',\n 'a:1']", 2, "must not name the same twice"),
    ("[auth]\nmethod = 'kerberos'", 2, "must be one of password, jwt, mtls, not 'kerberos'"),
    ("[auth]\nmethod = 'jwt'", 2, "auth.method 'jwt' needs auth.jwt_secret"),
    ("[auth]\nmethod = 'mtls'", 2, "auth.method 'mtls' needs tls.ca_file"),
    (
        "[tls]\nenabled=false\nca_file='x'\n[auth]\nmethod='mtls'",
        5,
        "auth.method 'mtls' needs tls.enabled = true",
    ),
    ("[auth]\njwt_secret = 'short'", 2, "'jwt_secret' in [auth] must have at least 32 bytes"),
    ("[auth]\nusers = 3", 2, "users must be tables: [[auth.users]]"),
    ("[[auth.users]]\nusername = 'a'", 1, "[[auth.users]] needs the key 'password'"),
    (
        "[[auth.users]]\nusername = 'a b'\npassword = 'x'",
        2,
        "must be up to 63 letters, digits or _ . @ -",
    ),
    (
        "[[auth.users]]\nusername = 'a'\npassword = 'x'\nroles = ['root']",
        4,
        "must be one of read, write, admin, not 'root'",
    ),
    (
        "[[auth.users]]\nusername = 'a'\npassword = 'x'\nroles = []",
        4,
        "'roles' in [[auth.users]] must not be empty",
    ),
    (
        "[[auth.users]]\nusername='a'\npassword='x'\n[[auth.users]]\npassword='y'\nusername = 'a'",
        6,
        "user 'a' is declared twice",
    ),
    ("[[auth.users]]\nusername = 'wk_a'\npassword = 'x'", 2, "user names that begin with 'wk_'"),
    ("[[auth.users]]\nusername = 'default'\npassword = 'x'", 2, "'default' is reserved"),
    ("[[auth.users]]\nusername = 'weftkit'\npassword = 'x'", 2, "'weftkit' is reserved"),
    ("[tls]\ncert_file = 'x'", 2, "tls.cert_file needs tls.key_file"),
    ("[tls]\nkey_file = 'x'", 2, "tls.key_file needs tls.cert_file"),
    ("[graph]\nport = 5432", 2, "port 5432 of [graph] is already that of [relational]"),
    ("[graph]\nport = 1\n[vector]\nport = 1", 4, "port 1 of [vector] is already that of [graph]"),
    (
        "[relational]\npool_port = 7687",
        2,
        "pool_port 7687 of [relational] is already that of [graph]",
    ),
    ("[graph]\nport = 9090", 2, "port 9090 of [graph] is already that of the data plane"),
    (
        "[distribution]\nenabled = true",
        2,
        "[distribution] is not supported yet; set enabled = false",
    ),
    ("[cdc]\nenabled = true", 2, "[cdc] is not supported yet; set enabled = false"),
    ("[server]\nname = ", 2, "invalid value"),
    ("[server]\n[server]", 2, "cannot declare ('server',) twice"),
    ("[server", 1, "expected ']' at the end of a table declaration"),
]


@pytest.mark.parametrize(("text", "line", "message"), ERRORS, ids=lambda value: str(value)[:40])
def test_an_error_names_file_line_and_what_is_wrong(text: str, line: int, message: str) -> None:
    assert refused(text).startswith(f"weftkit.toml:{line}: ")
    assert message in refused(text)


def test_the_error_nearest_to_the_top_is_reported() -> None:
    assert refused("[vector]\nx = 1\n[server]\ny = 2").startswith("weftkit.toml:2: unknown key 'x'")


def test_a_disabled_engine_leaves_its_port_free() -> None:
    settings = parse("[relational]\nenabled = false\n[graph]\nport = 5432", {})
    assert settings.graph.port == 5432


def test_a_value_can_come_from_the_environment_in_the_type_of_its_key() -> None:
    text = (
        "[relational]\nport = 'env:PORT'\nwal_fsync = 'env:SYNC'\nmax_memory_bytes = 'env:MEM'\n"
        "[distribution]\npeers = 'env:PEERS'"
    )
    settings = parse(text, {"PORT": "15432", "SYNC": "false", "MEM": "2GB", "PEERS": "a:1, b:2"})
    assert settings.relational.port == 15432
    assert settings.relational.wal_fsync is False
    assert settings.relational.max_memory_bytes == 2 * 2**30
    assert settings.distribution.peers == ("a:1", "b:2")


def test_a_missing_environment_variable_is_named_with_file_and_line() -> None:
    message = refused("[auth]\n\njwt_secret = 'env:NOPE'")
    assert message == (
        "weftkit.toml:3: 'jwt_secret' in [auth] names the environment variable 'NOPE', "
        "which is not set"
    )


@pytest.mark.parametrize("value", ["", "x" * 5000, "hunter2\0"])
def test_a_bad_secret_from_the_environment_is_refused_and_never_shown(value: str) -> None:
    text = "[[auth.users]]\nusername = 'a'\npassword = 'env:PW'"
    message = refused(text, {"PW": value})
    assert message.startswith("weftkit.toml:3: 'password' in [[auth.users]]")
    assert "'PW'" in message
    assert not value or value not in message


def test_secrets_are_not_in_the_repr() -> None:
    shown = repr(parse(SPECIFICATION_SAMPLE, SAMPLE_ENVIRONMENT))
    assert "app-password" not in shown
    assert SECRET not in shown


def test_positions_survive_multi_line_values_comments_and_quoted_keys() -> None:
    text = (
        '# [no]\n"a b" = """\n[no]\nx = 1\n"""\n'
        'list = [ # ]\n  \'[\', # comment ]\n  "]\\"",\n]\nafter = 1\n'
        "[one . 'two']\nk.l = {m = '}', n = [\n1]}\nlast = '''\n'''\n[[t]]\n[[t]]\n"
        "x = 2\n[t.u]\ny = 3"
    )
    found = positions(text)
    assert {path: line for path, line in found.items() if path} == {
        ("a b",): 2,
        ("list",): 6,
        ("after",): 10,
        ("one", "two"): 11,
        ("one", "two", "k", "l"): 12,
        ("one", "two", "last"): 14,
        ("t", 0): 16,
        ("t", 1): 17,
        ("t", 1, "x"): 18,
        ("t", 1, "u"): 19,
        ("t", 1, "u", "y"): 20,
    }
    assert line_of(found, ("one", "two", "k", "l", "m")) == 12
    assert line_of(found, ("nowhere",)) == 1


@given(st.text(alphabet="[]{}=.,'\"#ab\n\\ 1é\r\t", max_size=40))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    assert 1 <= outcome(text) <= text.count("\n") + 1


@given(st.integers(0, 30), st.sampled_from(["\n", "# x = [\n", "'a b' = 1\n"]))
def test_the_line_counts_what_stands_above(count: int, filler: str) -> None:
    above = filler * (1 if "=" in filler and "#" not in filler else count)
    text = f"[server]\n{above}[relational]\nprot = 1"
    with pytest.raises(SettingsError) as caught:
        parse(text, {})
    unknown_first = "'a b'" in above
    assert caught.value.line == (2 if unknown_first else above.count("\n") + 3)
