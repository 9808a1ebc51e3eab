"""Bearer authentication of the REST API by API keys and access tokens, and how OpenAPI shows it."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from tenants.iam.models import ApiKey
from tenants.iam.services import api_key_authenticate
from tenants.iam.tokens import token_authenticate


class ApiKeyUser:
    """What `request.user` is behind an API key: authenticated, and no person."""

    is_authenticated = True
    is_active = True

    def __init__(self, api_key: ApiKey) -> None:
        self.api_key = api_key
        self.pk = api_key.pk


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer`, with an API key or with an access token exchanged for one."""

    def authenticate(self, request: Request) -> tuple[ApiKeyUser, ApiKey] | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        address = str(request.META.get("REMOTE_ADDR", ""))
        token = token.strip()
        # A JSON Web Token has two dots, a key has none.
        check = token_authenticate if "." in token else api_key_authenticate
        api_key = check(token=token, address=address)
        if api_key is None:
            raise AuthenticationFailed("the API key or token is not valid here")
        return ApiKeyUser(api_key), api_key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="weftkit"'


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Says in the OpenAPI document how to send the key."""

    target_class = "tenants.iam.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "wk_<key id>_<secret> or JWT"}
