"""weftkit.toml's users: they follow the file from start to start."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from engines.kit import auth
from engines.kit.settings import parse
from tenants.accounts.services import tenant_create
from tenants.core.errors import ConflictError
from tenants.instances.configured import configured_users_sync
from tenants.instances.credentials import credential_rotate
from tenants.instances.models import Credential, Instance
from tests.tenants.cast import Cast, make_instance, published

APP = '[[auth.users]]\nusername = "app"\npassword = "{}"\nroles = ["read", "write"]\n'
VIEWER = '[[auth.users]]\nusername = "viewer"\npassword = "look"\n'


@pytest.fixture
def instance(cast: Cast) -> Instance:
    return make_instance(tenant_create(handle="default"), is_default=True).instance


def sync(instance: Instance, settings: Any, toml: str) -> dict[str, tuple[str, bool, bool]]:
    """Sync with a file; return user name -> (role, is enabled, opens with its first password)."""
    settings.WEFTKIT = parse(toml, {})
    configured_users_sync(instance=instance)
    record = published(instance)
    assert record is not None
    now = timezone.now().timestamp()
    passwords = {"app": "first", "viewer": "look"}
    return {
        c.username: (
            c.role.value,
            c.enabled,
            auth.verify_password(c, passwords[c.username], django_settings.PEPPERS, now)
            is not None,
        )
        for c in record.credentials
    }


def test_users_become_credentials_with_their_highest_role(
    instance: Instance, settings: Any
) -> None:
    assert sync(instance, settings, APP.format("first") + VIEWER) == {
        "app": ("write", True, True),
        "viewer": ("read", True, True),
    }
    record = published(instance)
    assert record is not None
    assert (record.is_default, record.auth_method) == (True, "password")


def test_an_unchanged_file_publishes_nothing(instance: Instance, settings: Any) -> None:
    sync(instance, settings, APP.format("first"))
    before = published(instance)
    sync(instance, settings, APP.format("first"))
    assert published(instance) == before


def test_a_changed_password_replaces_the_old_one_at_once(instance: Instance, settings: Any) -> None:
    sync(instance, settings, APP.format("first"))
    assert sync(instance, settings, APP.format("second")) == {"app": ("write", True, False)}


def test_a_removed_user_is_disabled_and_comes_back_with_the_file(
    instance: Instance, settings: Any
) -> None:
    sync(instance, settings, APP.format("first") + VIEWER)
    assert sync(instance, settings, VIEWER)["app"] == ("write", False, False)
    assert sync(instance, settings, APP.format("first"))["app"] == ("write", True, True)


def test_the_sign_in_method_follows_the_file(instance: Instance, settings: Any) -> None:
    secret = "s" * 32
    sync(instance, settings, f'[auth]\nmethod = "jwt"\njwt_secret = "{secret}"\n')
    record = published(instance)
    assert record is not None
    assert record.auth_method == "jwt"


def test_a_configured_password_cannot_be_rotated(instance: Instance, settings: Any) -> None:
    sync(instance, settings, APP.format("first"))
    with pytest.raises(ConflictError) as refused:
        credential_rotate(credential=Credential.objects.get(), actor="test")
    assert refused.value.code == "credential_configured"
