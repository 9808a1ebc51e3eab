"""The repository tests its own shape: where things stand, how large they may be, what heads them.

A failure says how to put it right. An exception is listed with its reason, and an exception that
is no longer needed fails too, so that the lists only shrink.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import registry
from engines.kit.contract import Placement

ROOT = Path(__file__).resolve().parents[2]

TOP_LEVEL = {
    "manage.py", "weftkit_site", "tenants", "engines", "dataplane", "templates", "static", "tests",
    "requirements", "deploy", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md",
    "LICENSE", "Makefile", "pyproject.toml", "weftkit.toml", ".ci", ".gitignore", ".editorconfig",
}  # fmt: skip

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
# path -> reason. Keep it empty if you can.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

BANNED_MODULE_NAMES = {"utils", "helpers", "common", "misc", "base", "manager", "managers"}
# Django's own convention for the settings that the others build on (design.md section 2).
BANNED_NAME_EXCEPTIONS = {"weftkit_site/settings/base.py"}

RELAY_FILES = {
    "README.md", "__init__.py", "engine.py", "session.py", "relay.py", "parse.py", "wire.py",
    "reply.py", "errors.py",
}  # fmt: skip
SCHEMA_FILES = {
    "README.md", "__init__.py", "engine.py", "session.py", "parse.py", "plan.py", "sql.py",
    "evaluate.py", "reply.py", "errors.py", "storage.py",
}  # fmt: skip
BORDER_FILES = {"wire.py", "http.py", "rpc.py"}
OPTIONAL_FILES = {
    "capacity.py", "functions.py", "generated", "opening.py", "pooling.py", "values.py",
}  # fmt: skip


def tracked() -> list[str]:
    """Return the files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def python_files() -> list[str]:
    """Return our Python files, without migrations and generated code."""
    return [
        name
        for name in tracked()
        if name.endswith(".py") and "/migrations/" not in name and "/generated/" not in name
    ]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function definition in `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_top_level_holds_only_what_the_design_fixes() -> None:
    extra = {name.split("/")[0] for name in tracked()} - TOP_LEVEL
    assert not extra, f"move these below one of the fixed folders: {sorted(extra)}"


def test_every_module_opens_with_a_docstring() -> None:
    missing = [
        name
        for name in python_files()
        if (text := (ROOT / name).read_text()).strip()
        and ast.get_docstring(ast.parse(text)) is None
    ]
    assert not missing, f"say in the first lines what lives here: {missing}"


def test_no_file_outgrows_the_ceiling() -> None:
    long = {
        name for name in python_files() if (ROOT / name).read_text().count("\n") > FILE_LINES_MAX
    }
    assert long == set(LONG_FILES), "split into a folder of the same name, or shorten the list"


def test_no_function_outgrows_the_ceiling() -> None:
    long = set()
    for name in python_files():
        for node in functions(ast.parse((ROOT / name).read_text())):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX:
                long.add(f"{name}:{node.name}")
    assert long == set(LONG_FUNCTIONS), "split the function, or shorten the list"


def test_no_module_has_a_name_that_says_nothing() -> None:
    banned = {
        name for name in python_files() if Path(name).stem in BANNED_MODULE_NAMES
    } - BANNED_NAME_EXCEPTIONS
    assert not banned, f"if you cannot name it, it has two jobs: {sorted(banned)}"


def test_registry_lists_exactly_the_engine_folders_in_order() -> None:
    folders = sorted(
        path.parent.name
        for path in (ROOT / "engines").glob("*/__init__.py")
        if path.parent.name != "kit"
    )
    assert list(registry.names()) == folders


@pytest.mark.parametrize("name", registry.names())
def test_engine_has_the_anatomy_of_its_kind(name: str) -> None:
    spec = registry.load(name)
    is_relay = spec.placement is not Placement.SCHEMA
    wanted = RELAY_FILES if is_relay else SCHEMA_FILES
    present = {
        path.name
        for path in (ROOT / "engines" / name).iterdir()
        if path.name != "__pycache__" and path.suffix != ".so"
    }
    # A file that outgrew its ceiling is a folder of the same name.
    agreed = wanted | BORDER_FILES | OPTIONAL_FILES
    present = {f"{item}.py" if f"{item}.py" in agreed else item for item in present}
    assert wanted <= present, f"engines/{name} lacks {sorted(wanted - present)}"
    # A relay engine may have more of the agreed files, never others.
    extra = present - RELAY_FILES - SCHEMA_FILES - BORDER_FILES - OPTIONAL_FILES
    assert not extra, f"engines/{name}: not part of the anatomy: {sorted(extra)}"
    assert len(present & BORDER_FILES) == 1, "one border: wire.py, http.py or rpc.py"


@pytest.mark.parametrize("name", registry.names())
def test_every_engine_file_has_its_test_file(name: str) -> None:
    untested = [
        path.name
        for path in sorted((ROOT / "engines" / name).glob("*.py"))
        if path.name != "__init__.py"
        and not (ROOT / "tests" / "engines" / name / f"test_{path.name}").exists()
    ]
    assert not untested, f"write tests/engines/{name}/test_<file>.py for {untested}"


@pytest.mark.parametrize("name", registry.names())
def test_engine_readme_has_the_agreed_sections(name: str) -> None:
    text = (ROOT / "engines" / name / "README.md").read_text().lower()
    for section in ("spoken", "stored", "differ", "spec"):
        assert section in text, f"engines/{name}/README.md says nothing about: {section}"


def test_tests_neither_sleep_nor_mock_our_own_code() -> None:
    # Put together here, so that this file does not name them itself.
    banned = ["time." + "sleep(", "asyncio." + "sleep(0.", "unittest." + "mock", "mocker" + "."]
    found = [
        f"{name}: {word}"
        for name in python_files()
        if name.startswith("tests/")
        for word in banned
        if word in (ROOT / name).read_text()
    ]
    assert not found, f"wait for the condition, use the real thing: {found}"


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed beside this Python")
    result = subprocess.run([program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
