"""The environment and the secrets' files, translated into what Django, Celery and Channels want.

The names are the environment contract of every WeftKit process; `deploy/local` sets them all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

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


def one_of(name: str, values: tuple[str, ...]) -> str:
    """Return a variable that is one of `values`; the first is the default."""
    value = text(name, values[0])
    if value not in values:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(values)}, not {value!r}")
    return value


def yes(name: str) -> bool:
    """Return a variable that is yes or no; no is the default."""
    return one_of(name, ("no", "yes")) == "yes"


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


def numbered_secrets(directory: Path, name: str) -> dict[int, bytes]:
    """Return secrets by number: the files `<name>.1`, `<name>.2`, ... hold hex text."""
    found = {}
    for path in directory.glob(f"{name}.*"):
        if match := re.fullmatch(rf"{name}\.([1-9][0-9]*)", path.name):
            found[int(match[1])] = bytes.fromhex(secret(directory, path.name))
    return found


def backup_storage(directory: Path) -> dict[str, Any]:
    """Return the entry of STORAGES for backups: a bucket if one is named, else `directory`.

    Without keys in the environment the bucket is reached as boto3 finds them (profile, role).
    """
    if not (bucket := text("WEFTKIT_BACKUPS_S3_BUCKET")):
        return {
            "BACKEND": "tenants.instances.depot.DurableStorage",
            "OPTIONS": {
                "location": directory,
                "allow_overwrite": True,
                "file_permissions_mode": 0o600,
                "directory_permissions_mode": 0o700,
            },
        }
    from botocore.config import Config  # only here: it takes a while to load

    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": bucket,
            "location": text("WEFTKIT_BACKUPS_S3_PREFIX"),
            "endpoint_url": text("WEFTKIT_BACKUPS_S3_ENDPOINT") or None,
            "region_name": text("WEFTKIT_BACKUPS_S3_REGION") or None,
            "access_key": text("WEFTKIT_BACKUPS_S3_ACCESS_KEY") or None,
            "secret_key": text("WEFTKIT_BACKUPS_S3_SECRET_KEY") or None,
            "file_overwrite": True,
            "default_acl": None,
            # Below OPERATION_WORK_LEASE_S, so that a slow answer is not given up twice at once.
            "client_config": Config(
                connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2}
            ),
        },
    }


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


def mail(url: str, directory: Path) -> dict[str, Any]:
    """Translate `smtp://user:password@host:587?tls=starttls` (or `tls=yes`, `tls=no`).

    Without a URL mails become files in `directory`.
    """
    parts = urlsplit(url)
    tls = dict(parse_qsl(parts.query)).get("tls", "starttls")
    if url and (
        parts.scheme != "smtp" or not parts.hostname or tls not in ("starttls", "yes", "no")
    ):
        raise ImproperlyConfigured(
            "WEFTKIT_EMAIL_URL: smtp://[user:password@]host[:port][?tls=yes]"
        )
    kind = "smtp" if url else "filebased"
    return {
        "backend": f"django.core.mail.backends.{kind}.EmailBackend",
        "file_path": str(directory),
        "host": parts.hostname or "localhost",
        "port": parts.port or (465 if tls == "yes" else 587),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "starttls": tls == "starttls",
        "tls": tls == "yes",
    }


def oidc_provider(directory: Path) -> dict[str, Any]:
    """Return allauth's form of the provider that WEFTKIT_OIDC_* names, if it is named.

    Its secret is the variable, or the file `oidc.secret` among the secrets.
    """
    issuer = text("WEFTKIT_OIDC_ISSUER")
    if not issuer:
        return {}
    app = {
        "provider_id": "oidc",
        "name": text("WEFTKIT_OIDC_NAME", urlsplit(issuer).hostname or issuer),
        "client_id": text("WEFTKIT_OIDC_CLIENT_ID"),
        "secret": text("WEFTKIT_OIDC_CLIENT_SECRET") or secret(directory, "oidc.secret"),
        "settings": {"server_url": issuer},
    }
    return {"openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}}
