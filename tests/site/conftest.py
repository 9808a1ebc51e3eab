"""The same database as the tests of `tenants`."""

from tests.tenants.conftest import cast, django_db_modify_db_settings, lasting_cast

__all__ = ["cast", "django_db_modify_db_settings", "lasting_cast"]
