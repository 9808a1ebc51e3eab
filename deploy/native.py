"""Compile the hot modules: `python -m deploy.native build`, `clean` or `check`.

The list of modules and the reason for them are in dataplane/native.py. Needed are a C compiler,
Python's headers and mypy; where one is missing nothing is built and one line says so.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import shutil
import sys
import sysconfig
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from dataplane import native
from dataplane.files import write_atomically

# The name of `native.LIBRARY` to mypyc.
GROUP = "engines.native"


def missing() -> str:
    """Return what keeps us from compiling, or ""."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        return "no C compiler"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "no Python.h (Debian: python3-dev)"
    if importlib.util.find_spec("mypyc") is None:
        return "mypy is not installed"
    return ""


def clean() -> None:
    """Remove all that was compiled."""
    for extension in native.extensions():
        extension.unlink()
    native.MANIFEST.unlink(missing_ok=True)


def build() -> None:
    """Compile all hot modules; what fails leaves nothing behind, and is raised."""
    clean()
    with tempfile.TemporaryDirectory(prefix="weftkit-native-") as scratch:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                _compile(Path(scratch))
        except BaseException:
            clean()
            sys.stderr.write(printed.getvalue()[-4000:])
            raise
    digests = {module: native.digest(module) for module in native.MODULES}
    write_atomically(native.MANIFEST, json.dumps(digests, indent=1).encode(), mode=0o644)


def _compile(scratch: Path) -> None:
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    settings = scratch / "mypy.ini"
    settings.write_text("[mypy]\npython_version = 3.11\nfollow_imports = silent\n")
    sources = [str(native.source_path(module)) for module in native.MODULES]
    extensions = mypycify(
        [f"--config-file={settings}", f"--cache-dir={scratch}/cache", *sources],
        group_name=GROUP,
        # Compiles a little sooner than -O3; whether -O3 would run faster was not measured.
        opt_level="2",
        debug_level="0",
        target_dir=str(scratch / "c"),
    )
    command = build_ext(Distribution({"name": "weftkit-native", "ext_modules": extensions}))
    command.build_temp = str(scratch / "objects")
    command.build_lib = str(scratch / "lib")
    command.parallel = 2
    command.ensure_finalized()
    command.run()
    for built in sorted((scratch / "lib").rglob(f"*{EXTENSION_SUFFIXES[0]}")):
        shutil.copy(built, native.ROOT / built.relative_to(scratch / "lib"))


def main() -> None:
    """Build, clean or check, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m deploy.native", description=__doc__)
    parser.add_argument("task", choices=("build", "clean", "check"))
    task = parser.parse_args().task
    if task == "clean":
        clean()
    elif task == "check":
        if stale := native.stale():
            sys.exit(f"compiled, and changed since: {', '.join(stale)}; run `make native`")
    elif why := missing():
        clean()
        sys.stdout.write(f"the hot modules stay plain Python: {why}\n")
    else:
        build()


if __name__ == "__main__":
    main()
