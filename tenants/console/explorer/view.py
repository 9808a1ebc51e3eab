"""What an engine's explorer is: two methods, and the page that it stands in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse

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

    def answer(
        self, context: Mapping[str, Any], *, template: str = "", status: int = 200
    ) -> HttpResponse:
        """Answer the explorer's page, or one of its parts."""
        shared = {"role": self.view.role.value}
        return self.view.page(
            {**shared, **context}, template=template or self.template, status=status
        )
