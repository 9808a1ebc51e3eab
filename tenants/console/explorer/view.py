"""What an engine's explorer is: two methods, and the page that it stands in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse

from engines.kit.records import Role
from tenants.console.explorer.access import Access
from tenants.core.errors import ForbiddenError

if TYPE_CHECKING:
    from tenants.console.explorer.page import DataView


class Explorer:
    """One request to an instance's data. The view has checked sign-in, tenant, instance and role.

    POST names what it wants in the field `do`; reads are POSTs too where they carry data.
    """

    template = ""

    def __init__(self, view: DataView) -> None:
        self.view = view

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.answer({})

    def post(self, request: HttpRequest) -> HttpResponse:
        raise NotImplementedError

    @property
    def may_write(self) -> bool:
        """Whether the person's role may change data of the instance."""
        return self.view.role is not Role.READ

    def access(self, *, writes: bool) -> Access:
        """Return a way in that can do no more than is needed. Raises ForbiddenError."""
        if writes and not self.may_write:
            raise ForbiddenError("your role may read the data of this instance, not change them")
        return self.view.access(Role.WRITE if writes else Role.READ)

    def answer(
        self, context: Mapping[str, Any], *, template: str = "", status: int = 200
    ) -> HttpResponse:
        """Answer the explorer's page, or one of its parts."""
        shared = {"role": self.view.role.value, "may_write": self.may_write}
        return self.view.page(
            {**shared, **context}, template=template or self.template, status=status
        )
