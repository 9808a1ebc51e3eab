"""The printed table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.local.connections import ConnectionsError, render


def document(ca: str) -> dict[str, Any]:
    row = {"host": "localhost", "user": "wk_a", "password": "wk_a_secret"}
    return {
        "console": {"url": "https://localhost:8443", "user": "o@demo.local", "password": "pw"},
        "api": {"url": "https://localhost:8443/api/v1", "key": "wk_key"},
        "ca": ca,
        "connections": [
            {"tenant": "demo", "engine": "relational", "instance": "demo-relational",
             "uri": "postgresql://wk_a:wk_a_secret@localhost:5432/weftkit", "port": 5432, **row},
            {"tenant": "other", "engine": "inmemory", "instance": "other-inmemory",
             "uri": "redis://wk_a:wk_a_secret@localhost:6379/0", "port": 6379, **row},
        ],
    }  # fmt: skip


def test_table_has_a_row_for_each_connection_and_everything_to_sign_in(tmp_path: Path) -> None:
    path = tmp_path / "connections.json"
    path.write_text(json.dumps(document("/home/ca.crt")))
    lines = render(path, tmp_path).splitlines()
    assert lines[0].split() == ["ENGINE", "TENANT", "CONNECTION", "STRING", "TRY"]
    assert lines[1].startswith("relational  demo    postgresql://wk_a:wk_a_secret@localhost:5432")
    assert "psql " in lines[1]
    assert lines[2].startswith("inmemory    other   redis://wk_a:wk_a_secret@localhost:6379/0")
    assert "redis-cli " in lines[2]
    text = "\n".join(lines[3:])
    for part in ("https://localhost:8443", "o@demo.local", "pw", "wk_key", "/home/ca.crt"):
        assert part in text


def test_columns_begin_below_their_titles(tmp_path: Path) -> None:
    path = tmp_path / "connections.json"
    path.write_text(json.dumps(document("")))
    title, first, second = render(path, tmp_path).splitlines()[:3]
    assert title.index("TRY") == first.index("psql ") == second.index("redis-cli ")


@pytest.mark.parametrize("content", [None, "no json", '{"connections": []}', '{"connections": 1}'])
def test_unusable_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "connections.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConnectionsError, match=str(path)):
        render(path, tmp_path)
