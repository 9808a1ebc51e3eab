"""`/identity/token` and `/identity/keys`: what IBM's SDKs ask IAM for, in the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from engines.kit.auth import basic_credentials
from engines.kit.errors import RequestError
from tenants.api import rate_limits
from tenants.audit.services import Asked
from tenants.core.errors import TooManyError
from tenants.core.middleware import request_id_of
from tenants.iam import signing, tokens
from tenants.iam.tokens import TokenRefusedError, Tokens

FORM = "application/x-www-form-urlencoded"
BODY_BYTES_MAX = 16 * 1024
VALUE_CHARACTERS_MAX = 4096
AGENT_CHARACTERS_MAX = 200
# The public client of IBM's command line; no other client is known here.
PUBLIC_CLIENT = ("bx", "bx")
KEYS_MAX_AGE_S = 300


def _by_key(form: Mapping[str, str], asked: Asked) -> Tokens:
    return tokens.tokens_for_key(api_key=_required(form, "apikey"), asked=asked)


def _by_refresh(form: Mapping[str, str], asked: Asked) -> Tokens:
    return tokens.tokens_refreshed(refresh_token=_required(form, "refresh_token"), asked=asked)


Grant = Callable[[Mapping[str, str], Asked], Tokens]
GRANTS: Mapping[str, Grant] = {
    tokens.APIKEY_GRANT: _by_key,
    tokens.REFRESH_GRANT: _by_refresh,
}


# No cookie is looked at, so no other site's form can borrow one.
@csrf_exempt
def identity_token(request: HttpRequest) -> HttpResponse:
    """Exchange an API key or a refresh token for an access token."""
    try:
        if request.method != "POST":
            raise TokenRefusedError(
                "BXNIM0060E",
                "The request method is not allowed.",
                "HTTP 405 Method Not Allowed",
                405,
            )
        form = _form(request)
        _check_client(request)
        response_type = form.get("response_type", "cloud_iam")
        if response_type != "cloud_iam":
            raise _unsupported("response_type", response_type)
        grant = GRANTS.get(_required(form, "grant_type"))
        if grant is None:
            raise _unsupported("grant_type", form["grant_type"])
        asked = Asked(
            address=str(request.META.get("REMOTE_ADDR", "")),
            agent=request.headers.get("User-Agent", "")[:AGENT_CHARACTERS_MAX],
            credential_type="apikey" if grant is _by_key else "token",
            request_id=request_id_of(request),
        )
        made = _granted(grant, form, asked)
    except TokenRefusedError as refusal:
        return _refused(request, refusal)
    except TooManyError as error:
        too_often = TokenRefusedError("WKIAM0005E", "Too many requests.", error.message, 429)
        answer = _refused(request, too_often)
        answer["Retry-After"] = str(error.retry_after_s)
        return answer
    answer = JsonResponse(
        {
            "access_token": made.access_token,
            "refresh_token": made.refresh_token,
            "token_type": "Bearer",
            "expires_in": max(0, made.expires_at - int(timezone.now().timestamp())),
            "expiration": made.expires_at,
            "scope": tokens.SCOPE,
        }
    )
    # RFC 6749 section 5.1.
    answer["Cache-Control"] = "no-store"
    answer["Pragma"] = "no-cache"
    return answer


def identity_keys(request: HttpRequest) -> HttpResponse:
    """Show the public keys of our tokens (RFC 7517)."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    answer = JsonResponse(signing.key_set())
    answer["Cache-Control"] = f"public, max-age={KEYS_MAX_AGE_S}"
    return answer


def _granted(grant: Grant, form: Mapping[str, str], asked: Asked) -> Tokens:
    """Grant; a key or token that is none counts against the address that it comes from."""
    try:
        return grant(form, asked)
    except TokenRefusedError:
        quota = rate_limits.quota_of("address")
        bucket = rate_limits.Bucket("address", f"identity:{asked.address}", quota)
        rate_limits.demand(rate_limits.take([bucket]))
        raise


def _form(request: HttpRequest) -> dict[str, str]:
    """Return the form's fields, each given once; refuse anything else before it is read."""
    try:
        length = int(request.headers.get("Content-Length") or 0)
    except ValueError:
        length = 0
    if request.content_type != FORM and length:
        raise TokenRefusedError(
            "BXNIM0060E",
            "The content type is not supported.",
            f"HTTP 415: send {FORM}",
            415,
        )
    if length > BODY_BYTES_MAX:
        raise _too_large()
    try:
        fields = request.POST
    except (RequestDataTooBig, TooManyFieldsSent, MultiPartParserError) as error:
        raise _too_large() from error
    form = {}
    for name, values in fields.lists():
        # RFC 6749 section 3.2: parameters must not be included more than once.
        if len(values) > 1:
            raise TokenRefusedError("WKIAM0002E", "Property given twice.", f"Property '{name}'.")
        if len(values[0]) > VALUE_CHARACTERS_MAX:
            raise _too_large()
        form[name] = values[0]
    return form


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise TokenRefusedError(
            "BXNIM0109E",
            "Property missing or empty.",
            f"Property '{name}' either missing or empty.",
        )
    return value


def _check_client(request: HttpRequest) -> None:
    header = request.headers.get("Authorization", "")
    if not header:
        return
    try:
        given = basic_credentials(header)
    except RequestError:
        given = None
    if given != PUBLIC_CLIENT:
        raise TokenRefusedError("WKIAM0003E", "The client is not known.", status=401)


def _unsupported(name: str, value: str) -> TokenRefusedError:
    return TokenRefusedError(
        "WKIAM0001E", "Property not supported.", f"Property '{name}': {value[:80]!r}."
    )


def _too_large() -> TokenRefusedError:
    return TokenRefusedError("WKIAM0004E", "The request is too large.", status=413)


def _refused(request: HttpRequest, refusal: TokenRefusedError) -> HttpResponse:
    body: dict[str, Any] = {
        "errorCode": refusal.code,
        "errorMessage": refusal.message,
        "context": {
            "requestId": request_id_of(request),
            "requestType": "incoming.Identity_Token",
            "userAgent": request.headers.get("User-Agent", "")[:AGENT_CHARACTERS_MAX],
            "url": request.build_absolute_uri("/").rstrip("/"),
        },
    }
    if refusal.details:
        body["errorDetails"] = refusal.details
    answer = JsonResponse(body, status=refusal.status)
    answer["Cache-Control"] = "no-store"
    if refusal.status == 401:
        answer["WWW-Authenticate"] = 'Basic realm="weftkit"'
    if refusal.status == 405:
        answer["Allow"] = "POST"
    return answer
