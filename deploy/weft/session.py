"""Where the API is and who asks: options, then WEFT_* in the environment, then a profile.

Profiles are in `~/.config/weft/profiles.json` (WEFT_CONFIG names another file), which only its
owner may read: {"current": name, "profiles": {name: {"url", "key", "tenant", "ca"}}}.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deploy.weft.api import Api, WeftError

URL = "https://localhost:8443"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to an API. `ca` is a file of certificates to trust; "" stands for the system's."""

    url: str = ""
    key: str = ""
    tenant: str = ""
    ca: str = ""


@dataclass
class Session:
    """What every command gets: the API, the tenant, and how to show things."""

    profile: Profile
    profiles: Path
    as_json: bool = False
    _api: Api | None = None
    _tenant: str = ""

    @property
    def api(self) -> Api:
        """The API; WeftError without a key."""
        if self._api is None:
            if not self.profile.key:
                raise WeftError("no API key: `weft login`, or set WEFT_KEY")
            url = self.profile.url or URL
            self._api = Api(url, self.profile.key, ca=self.profile.ca)
        return self._api

    @property
    def tenant(self) -> str:
        """The tenant that was named, or the only one that the key has."""
        self._tenant = self._tenant or self.profile.tenant
        if not self._tenant:
            handles = [tenant["handle"] for tenant in self.api.get("me")["tenants"]]
            if len(handles) != 1:
                raise WeftError(f"which tenant? --tenant, one of: {', '.join(handles) or 'none'}")
            self._tenant = handles[0]
        return self._tenant

    def path(self, *parts: str) -> str:
        """Return an address below the tenant's."""
        return "/".join(("tenants", self.tenant, *parts))

    def handle(self, name: str) -> str:
        """Return the handle of the instance that is called `name`: it may lack the tenant's."""
        return name if name.startswith(f"{self.tenant}-") else f"{self.tenant}-{name}"

    def instance(self, name: str, *parts: str) -> str:
        """Return an address below an instance's."""
        return self.path("instances", self.handle(name), *parts)


def profiles_path(environment: Mapping[str, str]) -> Path:
    """Return where the profiles are kept."""
    if given := environment.get("WEFT_CONFIG"):
        return Path(given)
    home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "weft" / "profiles.json"


def profiles_read(path: Path) -> dict[str, Any]:
    """Return the profiles; WeftError if others may read the file, or it cannot be read."""
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise WeftError(f"{path} holds keys and others may read it: chmod 600 {path}")
        found = json.loads(path.read_text())
        return {"current": str(found["current"]), "profiles": dict(found["profiles"])}
    except FileNotFoundError:
        return {"current": DEFAULT, "profiles": {}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeftError(f"{path} cannot be read: {error}") from error


def profile_save(path: Path, name: str, profile: Profile | None) -> None:
    """Keep a profile and make it the current one, or forget it; whole or not at all."""
    kept = profiles_read(path)
    kept["profiles"].pop(name, None)
    if profile is not None:
        kept["profiles"][name] = asdict(profile)
        kept["current"] = name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(kept, file, indent=2)
        draft.replace(path)
    except OSError as error:
        raise WeftError(f"{path} cannot be written: {error.strerror}") from error


def session_open(
    *, environment: Mapping[str, str], profile: str, url: str, tenant: str, ca: str
) -> Session:
    """Return the session; what an option says goes before the environment, and that before files.

    A key of the environment comes with its own address: it is never sent to a profile's.
    """
    path = profiles_path(environment)
    chosen = Profile()
    if not environment.get("WEFT_KEY"):
        kept = profiles_read(path)
        name = profile or kept["current"]
        if profile and name not in kept["profiles"]:
            raise WeftError(f"there is no profile {name!r} in {path}")
        entry = kept["profiles"].get(name, {})
        chosen = Profile(**{field: str(entry.get(field, "")) for field in asdict(chosen)})
    given = {
        "url": url or environment.get("WEFT_URL", ""),
        "key": environment.get("WEFT_KEY", ""),
        "tenant": tenant or environment.get("WEFT_TENANT", ""),
        "ca": ca or environment.get("WEFT_CA", ""),
    }
    return Session(replace(chosen, **{k: v for k, v in given.items() if v}), path)
