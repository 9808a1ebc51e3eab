"""weftkit.toml's `[[auth.users]]`: credentials of the tenant `default`, kept as the file says.

A changed password or role takes effect at the next start, a removed user is disabled. Their
passwords are the file's, so these credentials can be neither rotated nor shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from engines.kit import auth
from engines.kit.records import Role
from engines.kit.settings import Settings
from engines.kit.settings.schema import User
from tenants.instances.credentials import secret_add
from tenants.instances.models import Credential, Instance
from tenants.publish.services import credential_record, record_publish

ACTOR = "weftkit.toml"
ROLES_BY_RISING_POWER = tuple(Role)


@transaction.atomic
def configured_users_sync(*, instance: Instance) -> None:
    """Bring an instance's configured credentials and sign-in method to what weftkit.toml says."""
    config: Settings = settings.WEFTKIT
    instance = Instance.objects.select_for_update().get(pk=instance.pk)
    changes = [_user_sync(instance, user) for user in config.auth.users]
    changes.append(_disable_others(instance, (user.username for user in config.auth.users)))
    if instance.auth_method != config.auth.method:
        instance.auth_method = config.auth.method
        instance.save(update_fields=["auth_method", "updated_at"])
        changes.append(True)
    if any(changes):
        record_publish(instance=instance)


def _user_sync(instance: Instance, user: User) -> bool:
    role = max((Role(role) for role in user.roles), key=ROLES_BY_RISING_POWER.index)
    wanted = {"role": role.value, "is_enabled": True, "is_configured": True}
    credential, is_new = Credential.objects.get_or_create(
        instance=instance,
        username=user.username,
        defaults={**wanted, "key_id": auth.new_key_id(), "created_by": ACTOR},
    )
    is_changed = any(getattr(credential, name) != value for name, value in wanted.items())
    if is_changed:
        Credential.objects.filter(pk=credential.pk).update(
            **wanted, revoked_at=None, updated_at=timezone.now()
        )
    known = auth.verify_password(
        credential_record(credential), user.password, settings.PEPPERS, timezone.now().timestamp()
    )
    # A disabled credential proves nothing, so its secret is made anew.
    if known is None:
        credential.secrets.all().delete()
        secret_add(credential=credential, password=user.password)
    return is_new or is_changed or known is None


def _disable_others(instance: Instance, usernames: Iterable[str]) -> bool:
    removed = Credential.objects.filter(
        instance=instance, is_configured=True, is_enabled=True
    ).exclude(username__in=list(usernames))
    return bool(removed.update(is_enabled=False, updated_at=timezone.now()))
