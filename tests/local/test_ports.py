"""Ports: what a person reads when one is taken."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from deploy.local import ports
from deploy.local.home import read_home


def test_taken_port_is_named_with_its_purpose_its_holder_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ports.PortsError) as caught:
            ports.require_free("127.0.0.1", {port: "relational"}, 0)
    first, last = str(caught.value).splitlines()
    name = Path("/proc/self/comm").read_text().strip()
    holder = f"{name} (pid {os.getpid()})"
    assert first == f"port {port} (relational) on 127.0.0.1 is taken by {holder}"
    assert re.search(r"WEFTKIT_PORT_OFFSET=\d+00 make up$", last)


def test_all_taken_ports_are_named_at_once() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        wanted = {one.getsockname()[1]: "relational", two.getsockname()[1]: "inmemory"}
        with pytest.raises(ports.PortsError) as caught:
            ports.require_free("127.0.0.1", wanted, 0)
    assert "(relational)" in str(caught.value)
    assert "(inmemory)" in str(caught.value)


def test_port_that_an_offset_pushes_out_of_range_is_refused() -> None:
    with pytest.raises(ports.PortsError, match=r"port 70000 \(relational\) .* cannot be used"):
        ports.require_free("127.0.0.1", {70000: "relational"}, 60000)


def test_free_ports_are_no_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ports.require_free("127.0.0.1", {port: "relational"}, 0)


def test_ports_follow_weftkit_toml_and_the_offset(tmp_path: Path) -> None:
    config = tmp_path / "weftkit.toml"
    config.write_text("[relational]\nport = 6000\n[inmemory]\nenabled = false\n")
    home = read_home(
        {
            "WEFTKIT_HOME": str(tmp_path / "w"),
            "WEFTKIT_CONFIG": str(config),
            "WEFTKIT_PORT_OFFSET": "100",
        }
    )
    engines = ports.engine_ports(home)
    assert engines[6100] == "relational"
    assert "inmemory" not in engines.values()
    assert set(ports.dataplane_ports(home)) == {*engines, 9190}
    assert ports.console_ports(home) == {8543: "the control plane"}
