"""The list of hot modules, and the check that compiled code is the source's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataplane import native


def test_every_hot_module_has_a_source() -> None:
    assert [module for module in native.MODULES if not native.source_path(module).exists()] == []


def test_a_compiled_module_is_stale_once_its_source_differs_from_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in native.MODULES:
        path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {module}\n")
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.setattr(native, "MANIFEST", tmp_path / "native.json")
    changed, kept = native.MODULES[0], native.MODULES[1]
    for module in (changed, kept):
        native.extension_path(module).touch()
    native.MANIFEST.write_text(json.dumps({m: native.digest(m) for m in native.MODULES}))

    assert native.stale() == ()
    native.source_path(changed).write_text("# newer\n")
    assert native.stale() == (changed,)


def test_an_extension_that_no_manifest_explains_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = native.MODULES[0]
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.setattr(native, "MANIFEST", tmp_path / "native.json")
    native.extension_path(module).parent.mkdir(parents=True)
    native.extension_path(module).touch()
    native.source_path(module).write_text("")

    assert native.stale() == (module,)


def test_the_twin_of_a_module_that_is_not_listed_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.setattr(native, "MANIFEST", tmp_path / "native.json")
    native.extension_path("engines.gone").parent.mkdir(parents=True)
    native.extension_path("engines.gone").touch()

    assert native.compiled() == ("engines.gone",)
    assert native.stale() == ("engines.gone",)
