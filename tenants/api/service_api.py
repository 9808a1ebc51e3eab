"""The base of every endpoint: who asks, in which tenant, may they; then one service or selector.

What is not the caller's does not exist for it (404); what its role lacks is refused (403).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.views import APIView

from tenants.accounts.actors import Actor
from tenants.accounts.models import User
from tenants.api import rate_limits
from tenants.api.audited import CHANGING, audited, event_write, wants_dry_run
from tenants.api.conditional import tagged
from tenants.api.strict import demand_exact, parameters_once
from tenants.core.errors import InvalidError
from tenants.core.pagination import NewestFirst
from tenants.iam.actors import actor_of_key, actor_of_user
from tenants.iam.models import ApiKey
from tenants.instances.models import Instance, InstanceStatus


class ServiceApi(APIView):
    """An endpoint that needs no tenant."""

    pagination_class = NewestFirst
    # No OPTIONS: the OpenAPI document says it all.
    http_method_names = ["get", "head", "post", "patch", "delete"]
    standings: tuple[rate_limits.Standing, ...] = ()

    def perform_authentication(self, request: Request) -> None:
        """Sign in, and count the request against whose it is; TooManyError if that is too often."""
        try:
            super().perform_authentication(request)
        except AuthenticationFailed:
            self._count([rate_limits.address_bucket(request)])
            raise
        self._count(rate_limits.buckets_of(request))

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Add what every answer tells: its tag, and how much may be asked still."""
        answer = tagged(self, response)
        for name, value in rate_limits.headers_of(self.standings).items():
            answer[name] = value
        return super().finalize_response(request, answer, *args, **kwargs)

    def validated(self, form: type[Serializer[Any]]) -> dict[str, Any]:
        """Return the body as `form` reads it."""
        # The console's own calls (`console/api_calls`) carry what was typed into a form.
        if not getattr(self.request._request, "is_of_form", False):
            demand_exact(form(), self.request.data)
        return _read(form, self.request.data)

    def query(self, form: type[Serializer[Any]]) -> dict[str, Any]:
        """Return the query parameters as `form` reads them."""
        return _read(form, parameters_once(self.request.query_params))

    def _count(self, buckets: list[rate_limits.Bucket]) -> None:
        self.standings = rate_limits.take(buckets)
        rate_limits.demand(self.standings)

    def page(
        self, rows: QuerySet[Any], output: type[BaseSerializer[Any]], **context: Any
    ) -> Response:
        """Return one page of `rows`; `context` is the serializers'."""
        paginator = self.pagination_class()
        page = paginator.paginate_queryset(rows, self.request, view=self)
        return paginator.get_paginated_response(output(page, many=True, context=context).data)


class TenantApi(ServiceApi):
    """An endpoint below `/tenants/<tenant>/`. `actions` says what each method demands of a role."""

    actions: Mapping[str, str]
    # A list of instances, or of what is theirs, that leaves out what the actor may not see.
    is_narrowed = False
    actor: Actor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have every method that changes something leave its event."""
        super().__init_subclass__(**kwargs)
        for method in CHANGING & vars(cls).keys():
            setattr(cls, method, audited(vars(cls)[method]))

    def handle_exception(self, exc: Exception) -> Response:
        """Answer a refusal, which leaves its event too if it is known who was refused."""
        response = super().handle_exception(exc)
        changes = str(self.request.method).lower() in CHANGING & vars(type(self)).keys()
        if changes and hasattr(self, "actor") and response.status_code < 500 and not _is_dry(self):
            event_write(self, response)
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.admit(**kwargs)

    def admit(self, **kwargs: Any) -> None:
        """Find who asks in the tenant, and refuse what they may not."""
        self.actor = actor_of(self.request, kwargs["tenant"])
        # HEAD is answered by GET's method, so it demands the same. A method that a view has and
        # its table lacks fails loudly; one that the view lacks is DRF's 405.
        method = "GET" if self.request.method == "HEAD" else str(self.request.method)
        if method.lower() in self.http_method_names and hasattr(self, method.lower()):
            action = self.actions[method]
            # A list shows what the actor may see of it, if that is anything.
            if not (method == "GET" and self.is_narrowed and self.actor.may_somewhere(action)):
                demand(self.actor, action, **{k: v for k, v in kwargs.items() if k in NAMES})


# What names the instance that a request is about: arguments of `demand`.
NAMES = frozenset({"instance", "operation_id", "backup_id"})


def demand(
    actor: Actor,
    action: str,
    instance: str = "",
    operation_id: UUID | None = None,
    backup_id: UUID | None = None,
) -> None:
    """Refuse unless `actor` may do `action`, on the instance that is named where one is.

    One that does not exist is refused to who has no right on all: nothing shows which do.
    """
    if actor.may(action):
        return
    every = Instance.objects.filter(tenant=actor.tenant)
    found = every.exclude(status=InstanceStatus.PURGED)
    if instance:
        found = found.filter(handle=instance)
    elif operation_id is not None:
        found = found.filter(operations=operation_id)
    elif backup_id is not None:
        # Backups outlive their instances.
        found = every.filter(backups=backup_id)
    else:
        found = found.none()
    named = found.values_list("engine", "handle").first()
    target = actor.target(engine=named[0], instance=named[1]) if named else None
    actor.demand(action, target)


def actor_of(request: Request, tenant: str) -> Actor:
    """Return who asks, in the tenant of this handle; NotFoundError if nobody there."""
    if isinstance(request.auth, ApiKey):
        return actor_of_key(api_key=request.auth, tenant=tenant)
    assert isinstance(request.user, User)
    return actor_of_user(user=request.user, tenant=tenant)


def _is_dry(api: TenantApi) -> bool:
    try:
        return wants_dry_run(api.request)
    except InvalidError:  # which is the refusal, and asked for a change
        return False


def _read(form: type[Serializer[Any]], data: Any) -> dict[str, Any]:
    reader = form(data=data)
    reader.is_valid(raise_exception=True)
    return dict(reader.validated_data)
