"""`parse`: TOML text and environment to `Settings`, or the first error in the order of the file."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from engines.kit.settings.catalogue import ENGINES
from engines.kit.settings.crosschecks import CHECKS
from engines.kit.settings.keys import Kind
from engines.kit.settings.positions import Path, line_of, positions
from engines.kit.settings.schema import (
    ENGINE_SECTIONS,
    Auth,
    Cdc,
    Distribution,
    EngineSection,
    Server,
    Settings,
    SettingsError,
    Tls,
    User,
)

DOCUMENT_CHARACTERS_MAX = 2**20
_ENVIRONMENT_PREFIX = "env:"

SECTIONS: dict[str, type[Any]] = {
    "server": Server,
    "auth": Auth,
    "tls": Tls,
    **ENGINE_SECTIONS,
    "distribution": Distribution,
    "cdc": Cdc,
}


def parse(text: str, environ: Mapping[str, str], path: str = "weftkit.toml") -> Settings:
    """Read a weftkit.toml; an empty text gives the defaults.

    Args:
        text: the file's content.
        environ: where `env:NAME` values are taken from.
        path: how the file is called in errors.

    Raises SettingsError for the first thing, from the top, that is wrong.
    """
    if len(text) > DOCUMENT_CHARACTERS_MAX:
        raise SettingsError(
            path, 1, f"the file is longer than {DOCUMENT_CHARACTERS_MAX} characters"
        )
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, text, path) from error
    # tomllib takes both line ends; positions counts only this one.
    reader = _Reader(environ, path, positions(text.replace("\r\n", "\n")))
    values = reader.sections(document)
    reader.raise_first()
    settings = Settings(**values, given=frozenset(reader.given))
    for check in CHECKS:
        for place, message in check(settings):
            reader.found(place, message)
    reader.raise_first()
    return settings


class _Reader:
    """Collects findings while it reads, so that the topmost one can be reported."""

    def __init__(self, environ: Mapping[str, str], path: str, lines: dict[Path, int]) -> None:
        self.environ = environ
        self.path = path
        self.lines = lines
        self.given: set[str] = set()
        self.findings: list[tuple[int, str]] = []

    def found(self, place: Path, message: str) -> None:
        self.findings.append((line_of(self.lines, place), message))

    def raise_first(self) -> None:
        if self.findings:
            raise SettingsError(self.path, *min(self.findings, key=lambda finding: finding[0]))

    def sections(self, document: Mapping[str, object]) -> dict[str, Any]:
        for name, body in document.items():
            if name not in SECTIONS:
                what = "section" if isinstance(body, dict | list) else "key"
                shown = f"[{name}]" if what == "section" else f"'{name}' outside of a section"
                self.found((name,), f"unknown {what} {shown}{_suggestion(name, SECTIONS)}")
        values: dict[str, Any] = {}
        for name, cls in SECTIONS.items():
            body = document.get(name, {})
            if not isinstance(body, dict):
                self.found((name,), f"'{name}' must be a section: [{name}]")
                continue
            self.given.update(f"{name}.{key}" for key in body)
            values[name] = self.section((name,), f"[{name}]", cls, body)
        return values

    def section(self, place: Path, title: str, cls: type[Any], body: Mapping[str, object]) -> Any:
        """Read one table into `cls`; None if that is not possible."""
        declared: dict[str, Field[Any]] = {field.name: field for field in fields(cls)}
        values: dict[str, Any] = {}
        if issubclass(cls, EngineSection):
            values["port"] = ENGINES[str(place[0])].port
        for name, value in body.items():
            if name not in declared:
                hint = _suggestion(name, declared)
                self.found((*place, name), f"unknown key '{name}' in {title}{hint}")
            elif cls is Auth and name == "users":
                values[name] = self.users((*place, name), value)
            else:
                kind = declared[name].metadata["kind"]
                values[name] = self.value((*place, name), f"'{name}' in {title}", kind, value)
        missing = [
            name
            for name, field in declared.items()
            if field.default is MISSING and name not in values
        ]
        for name in missing:
            self.found(place, f"{title} needs the key '{name}'")
        return None if missing else cls(**values)

    def users(self, place: Path, value: object) -> tuple[User, ...]:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.found(place, "users must be tables: [[auth.users]]")
            return ()
        return tuple(
            self.section((*place, index), "[[auth.users]]", User, item)
            for index, item in enumerate(value)
        )

    def value(self, place: Path, title: str, kind: Kind, value: object) -> Any:
        """Read one value, out of the environment if it says so; None if it is wrong."""
        try:
            if not isinstance(value, str) or not value.startswith(_ENVIRONMENT_PREFIX):
                return kind.read(value)
            name = value.removeprefix(_ENVIRONMENT_PREFIX)
            if name not in self.environ:
                raise ValueError(f"names the environment variable '{name}', which is not set")
            return self._from_environment(name, kind)
        except ValueError as error:
            self.found(place, f"{title} {error}")
            return None

    def _from_environment(self, name: str, kind: Kind) -> object:
        try:
            return kind.read_text(self.environ[name])
        except ValueError as error:
            raise ValueError(f"(from the environment variable '{name}') {error}") from error


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _syntax_error(error: tomllib.TOMLDecodeError, text: str, path: str) -> SettingsError:
    """Take the line out of the standard parser's message."""
    message = str(error)
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if match is None:
        return SettingsError(path, 1, message)
    line = int(match[1]) if match[1] else text.rstrip("\n").count("\n") + 1
    reason = message[: match.start()]
    return SettingsError(path, line, reason[0].lower() + reason[1:])
