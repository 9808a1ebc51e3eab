"""The environment and the secrets' files, translated into what Django, Celery and Channels want.

The names are the environment contract of every WeftKit process; `deploy/local` sets them all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from engines.kit.settings import Settings, SettingsError, parse


def text(name: str, default: str = "") -> str:
    """Return a variable, or `default` where it is unset or empty."""
    return os.environ.get(name) or default


def required(*names: str) -> None:
    """Refuse to start while one of `names` is unset."""
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise ImproperlyConfigured(f"set these environment variables: {', '.join(missing)}")


def number(name: str, default: int) -> int:
    """Return a variable as an integer."""
    value = text(name, str(default))
    try:
        return int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}") from None


def choice(name: str, *allowed: str) -> str:
    """Return a variable that is one of `allowed`, the first of them where it is unset."""
    value = text(name, allowed[0])
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def words(name: str) -> list[str]:
    """Return a comma-separated variable as a list."""
    return [word.strip() for word in text(name).split(",") if word.strip()]


def weftkit_toml(path: str) -> Settings:
    """Read the file that WEFTKIT_CONFIG names; without one, every key has its default."""
    try:
        content = Path(path).read_text(encoding="utf-8") if path else ""
        return parse(content, os.environ, path or "weftkit.toml")
    except (OSError, SettingsError) as error:
        raise ImproperlyConfigured(str(error)) from error


def secret(directory: Path, name: str) -> str:
    """Return one secret's text, or "" where its file is absent (Django refuses an empty key)."""
    path = directory / name
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def peppers(directory: Path) -> dict[int, bytes]:
    """Return the peppers by number: the files `pepper.1`, `pepper.2`, ... hold hex text."""
    found = {}
    for path in directory.glob("pepper.*"):
        if match := re.fullmatch(r"pepper\.([1-9][0-9]*)", path.name):
            found[int(match[1])] = bytes.fromhex(secret(directory, path.name))
    return found


def database(url: str) -> dict[str, Any]:
    """Translate a libpq URI (unix socket or TCP) into one entry of DATABASES."""
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    bounds = "-c statement_timeout=60s -c lock_timeout=10s"
    django = {
        "NAME": parts.pop("dbname", ""),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": parts.pop("port", ""),
    }
    parts["options"] = f"{parts.get('options', '')} {bounds}".strip()
    return {"ENGINE": "django.db.backends.postgresql", **django, "OPTIONS": parts}


def celery_broker(url: str) -> str:
    """Return kombu's form of a Redis URL, database 0; it spells unix sockets differently."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis+socket://{quote(unquote(parts.path))}?virtual_host=0"
    return f"{parts.scheme}://{parts.netloc}/0"


def redis_database(url: str, index: int) -> str:
    """Return redis-py's form of a Redis URL with the database `index`."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}?db={index}"
    return f"{parts.scheme}://{parts.netloc}/{index}"


def log_level(name: str) -> str:
    """Return Python's word for a level; weftkit.toml has `trace` and `warn` as well."""
    level = text(name, "info").upper()
    return {"TRACE": "DEBUG", "WARN": "WARNING"}.get(level, level)
