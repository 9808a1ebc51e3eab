"""`{% load iam %}`: the role that a credential has now."""

from __future__ import annotations

from django import template

from engines.kit.iam import Target
from tenants.iam.selectors import credential_grants, credential_role
from tenants.instances.models import Credential, CredentialRole

register = template.Library()


@register.filter
def role_now(credential: Credential) -> str:
    """Return a credential's role inside its instance, by the policies of its service id."""
    instance = credential.instance
    target = Target(str(instance.tenant_id), instance.engine, instance.handle)
    role = credential_role(credential=credential, target=target)
    if role is not None:
        return CredentialRole(role.value).label
    grants = credential_grants(credential=credential, target=target)
    kinds = sorted({grant.kind for grant in grants or () if grant.kind})
    return f"By {', '.join(kinds)}" if kinds else "Nothing now"
