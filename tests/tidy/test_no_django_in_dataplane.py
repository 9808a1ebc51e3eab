"""The data plane's lock file holds nothing of the control plane."""

from __future__ import annotations

import re
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"


def locked(name: str) -> dict[str, str]:
    """Return package -> version of one lock file."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", text, re.MULTILINE))


def test_dataplane_lock_has_no_django_and_no_celery() -> None:
    forbidden = {"django", "djangorestframework", "celery", "channels", "daphne"}
    assert not forbidden & locked("dataplane").keys()


def test_lock_files_agree_on_every_version() -> None:
    dev = locked("dev")
    for name in ("control", "dataplane"):
        differing = {
            package: (version, dev.get(package))
            for package, version in locked(name).items()
            if dev.get(package) != version
        }
        assert not differing, f"run `make lock`: {name} and dev differ in {differing}"


def test_every_locked_package_carries_hashes() -> None:
    for name in ("control", "dataplane", "dev"):
        text = (REQUIREMENTS / f"{name}.txt").read_text()
        pins = len(re.findall(r"^[a-z0-9._-]+(?:\[[^\]]*\])?==", text, re.MULTILINE))
        assert pins > 5
        assert len(re.findall(r"==\S+ \\\n\s+--hash=", text)) == pins
