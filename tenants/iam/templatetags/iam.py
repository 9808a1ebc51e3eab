"""`{% load iam %}`: the role that a credential has now."""

from __future__ import annotations

from django import template

from engines.kit.iam import Target
from tenants.iam.selectors import credential_role
from tenants.instances.models import Credential, CredentialRole

register = template.Library()


@register.filter
def role_now(credential: Credential) -> str:
    """Return a credential's role inside its instance, by the policies of its service id."""
    instance = credential.instance
    target = Target(str(instance.tenant_id), instance.engine, instance.handle)
    role = credential_role(credential=credential, target=target)
    return CredentialRole(role.value).label if role else "Nothing now"
