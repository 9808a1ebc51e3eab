"""System checks for settings that would hurt later: `manage.py check`, and before every command."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def celery_limits_nest(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """A lease must outlive a step's transaction and stay below the task's hard limit."""
    if settings.OPERATION_LEASE_S < settings.CELERY_TASK_TIME_LIMIT:
        return []
    return [
        Error(
            "OPERATION_LEASE_S must be below CELERY_TASK_TIME_LIMIT: else a killed task's "
            "operation waits longer than the task itself could have run.",
            id="weftkit.E001",
        )
    ]


@register()
def pepper_is_known(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """New secrets are digested with the newest pepper; there must be one."""
    if settings.PEPPERS and settings.PEPPER_ID in settings.PEPPERS:
        return []
    return [
        Error("WEFTKIT_SECRETS_DIR holds no pepper.<n> file, n from 1.", id="weftkit.E002"),
    ]


@register()
def backup_key_is_known(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """New backups are encrypted under the newest key; there must be one."""
    if settings.BACKUP_KEYS and all(len(key) == 32 for key in settings.BACKUP_KEYS.values()):
        return []
    return [
        Error(
            "WEFTKIT_SECRETS_DIR holds no backup.<n> file, n from 1, of 64 hexadecimal digits.",
            id="weftkit.E004",
        ),
    ]


@register()
def time_is_aware(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """Hours of usage and expiry are UTC everywhere."""
    if settings.USE_TZ and settings.TIME_ZONE == "UTC":
        return []
    return [Error("USE_TZ must be on and TIME_ZONE must be UTC.", id="weftkit.E003")]
