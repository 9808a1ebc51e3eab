"""Access tokens (JWT, RS256) for API keys, refresh tokens that are spent by use, and their check.

A token names the secret that it was exchanged for, and is worth nothing once that secret is gone:
each check looks the secret up. An access token itself is kept nowhere; of a refresh token a digest.
"""

from __future__ import annotations

import hmac
import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from engines.kit import auth
from tenants.api import rate_limits
from tenants.audit.services import Asked, audit_write
from tenants.iam import secrets, signing
from tenants.iam.models import ApiKey, ApiKeySecret, RefreshToken
from tenants.iam.services import secret_authenticate, secret_recall

APIKEY_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
REFRESH_GRANT = "refresh_token"
SCOPE = "ibm openid"
ALGORITHM = "RS256"
TOKEN_CHARACTERS_MAX = 8192
# A key that is exchanged more often loses the oldest refresh tokens, not the access tokens.
REFRESH_TOKENS_PER_SECRET_MAX = 20
# Spent ones are kept for a while, to tell a stolen one by its second use.
SPENT_PER_FAMILY_MAX = 20
REFRESH_LIFE = timedelta(hours=24)
# However often it is refreshed, after this the key itself is asked for again.
FAMILY_LIFE = timedelta(days=30)
_REFRESH = re.compile(r"wr_[0-9A-Za-z]{64}")
_CLAIMS = ["exp", "iat", "iss", "sub", "iam_id", "account", "weftkit"]


class TokenRefusedError(Exception):
    """A grant that is not honoured: IBM's code and words (those that begin with WKIAM are ours)."""

    def __init__(self, code: str, message: str, details: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a grant is answered with."""

    access_token: str
    refresh_token: str
    expires_at: int  # seconds since 1970


def issuer() -> str:
    """Return the `iss` of our tokens; the keys are at its address with `/keys`."""
    return f"{settings.CONSOLE_URL}/identity"


@transaction.atomic
def tokens_for_key(*, api_key: str, asked: Asked) -> Tokens:
    """Exchange an API key; raises TokenRefusedError."""
    secret = secret_authenticate(token=api_key, address=asked.address)
    if secret is None:
        raise TokenRefusedError("BXNIM0415E", "Provided API key could not be found.")
    # One lock for all refresh tokens of a secret, so that their number stays bounded.
    ApiKeySecret.objects.select_for_update(no_key=True).filter(pk=secret.pk).first()
    living = RefreshToken.objects.filter(secret=secret.pk, spent_at=None).order_by("-id")
    for token in living[REFRESH_TOKENS_PER_SECRET_MAX - 1 :]:
        RefreshToken.objects.filter(family=token.family).delete()
    ends_at = timezone.now() + FAMILY_LIFE
    return _issue(secret, APIKEY_GRANT, uuid.uuid4(), ends_at, asked)


def tokens_refreshed(*, refresh_token: str, asked: Asked) -> Tokens:
    """Spend a refresh token for new tokens; raises TokenRefusedError.

    One that was spent before is in two hands: its whole family ends (RFC 9700 section 4.14.2).
    """
    found = _find_refresh(refresh_token)
    if found is None:
        raise _invalid_refresh()
    tokens = _refresh(found, asked)
    if tokens is None:
        # Outside the transaction of the refusal, which would undo it.
        RefreshToken.objects.filter(family=found.family).delete()
        raise _invalid_refresh()
    return tokens


@transaction.atomic
def _refresh(known: RefreshToken, asked: Asked) -> Tokens | None:
    found = RefreshToken.objects.select_for_update().filter(pk=known.pk).first()
    if found is None or found.spent_at is not None:
        return None
    now = timezone.now()
    if found.expires_at <= now:
        raise TokenRefusedError("BXNIM0408E", "Provided refresh token is expired")
    key_id = ApiKey.objects.values_list("key_id", flat=True).get(secrets=found.secret_id)
    secret = secret_recall(secret_id=found.secret_id, key_id=key_id, address=asked.address)
    if secret is None:
        raise _invalid_refresh()
    found.spent_at = now
    found.save(update_fields=["spent_at", "updated_at"])
    spent = RefreshToken.objects.filter(family=found.family).exclude(spent_at=None)
    oldest = spent.order_by("-id").values_list("pk", flat=True)[SPENT_PER_FAMILY_MAX:]
    RefreshToken.objects.filter(pk__in=list(oldest)).delete()
    return _issue(secret, REFRESH_GRANT, found.family, found.family_expires_at, asked)


def token_authenticate(*, token: str, address: str) -> ApiKey | None:
    """Return the live key that an access token of ours was exchanged for; None for any other.

    The algorithm is ours to choose, never the token's (RFC 8725 section 3.1).
    """
    claims = _verified(token)
    named = claims.get("weftkit") if claims else None
    if not isinstance(named, dict):
        return None
    try:
        secret_id = uuid.UUID(named["secret"])
        key_id = str(named["key"])
    except (KeyError, TypeError, ValueError):
        return None
    secret = secret_recall(secret_id=secret_id, key_id=key_id, address=address)
    if secret is None:
        return None
    secret.api_key.is_by_token = True
    return secret.api_key


def refresh_tokens_sweep() -> int:
    """Delete refresh tokens whose time is over; return how many."""
    return RefreshToken.objects.filter(expires_at__lte=timezone.now()).delete()[0]


def _verified(token: str) -> dict[str, Any] | None:
    if len(token) > TOKEN_CHARACTERS_MAX:
        return None
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        key = signing.public_key(kid) if isinstance(kid, str) and len(kid) <= 40 else None
        if key is None:
            return None
        return jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            issuer=issuer(),
            options={"require": _CLAIMS, "verify_aud": False},
        )
    except jwt.PyJWTError:
        return None


def _issue(
    secret: ApiKeySecret,
    grant: str,
    family: uuid.UUID,
    family_expires_at: datetime,
    asked: Asked,
) -> Tokens:
    """Make both tokens; TooManyError where the key is exchanged too often."""
    quota = rate_limits.Quota(settings.IAM_TOKENS_PER_MINUTE, 60)
    bucket = rate_limits.Bucket("key", f"tokens:{secret.api_key.pk}", quota)
    rate_limits.demand(rate_limits.take([bucket]))
    audit_write(
        tenant_id=secret.api_key.tenant_id,
        action="weftkit.token.create",
        initiator=f"key:{secret.api_key.key_id}",
        target=f"api-keys/{secret.api_key.pk}",
        asked=asked,
    )
    now = timezone.now()
    claims = _claims(secret, grant, int(now.timestamp()))
    signer = signing.signer()
    access = jwt.encode(claims, signer.private, algorithm=ALGORITHM, headers={"kid": signer.kid})
    text = f"wr_{auth.new_secret()}{auth.new_secret()}"
    pepper_id = secrets.newest_pepper_id()
    RefreshToken.objects.create(
        secret=secret,
        digest=auth.digest(settings.PEPPERS[pepper_id], text),
        pepper_id=pepper_id,
        family=family,
        family_expires_at=family_expires_at,
        expires_at=min(now + REFRESH_LIFE, family_expires_at),
    )
    return Tokens(access, text, claims["exp"])


def _claims(secret: ApiKeySecret, grant: str, issued_at: int) -> dict[str, Any]:
    return {
        **_identity(secret.api_key),
        "jti": uuid.uuid4().hex,
        "iat": issued_at,
        "exp": issued_at + settings.IAM_TOKEN_LIFE_S,
        "iss": issuer(),
        "grant_type": grant,
        "scope": SCOPE,
        "client_id": "default",
        "acr": 1,
        "amr": ["pwd"],
        "account": {"valid": True, "bss": secret.api_key.tenant_id.hex},
        "weftkit": {
            "tenant": secret.api_key.tenant.handle,
            "key": secret.api_key.key_id,
            "secret": str(secret.pk),
        },
    }


def _identity(api_key: ApiKey) -> dict[str, Any]:
    """Return the claims that say who it is, as IBM names them."""
    if api_key.service is not None:
        name = f"ServiceId-{api_key.service.pk}"
        found = {"sub": name, "sub_type": "ServiceId", "name": api_key.service.name}
    elif api_key.membership is not None:
        user = api_key.membership.user
        name = f"User-{user.pk}"
        found = {"sub": user.email, "email": user.email, "name": user.name or user.email}
    else:
        name = f"ApiKey-{api_key.pk}"
        found = {"sub": name, "sub_type": "ApiKey", "name": api_key.name}
    iam_id = f"iam-{name}"
    return {"iam_id": iam_id, "id": iam_id, "realmid": "iam", "identifier": name, **found}


def _find_refresh(text: str) -> RefreshToken | None:
    if not _REFRESH.fullmatch(text):
        return None
    digests = [auth.digest(pepper, text) for pepper in settings.PEPPERS.values()]
    found = RefreshToken.objects.filter(digest__in=digests).first()
    # The index finds by equality; this comparison is the one that counts.
    if found is None or not any(hmac.compare_digest(found.digest, mine) for mine in digests):
        return None
    return found


def _invalid_refresh() -> TokenRefusedError:
    return TokenRefusedError("BXNIM0407E", "Provided refresh token is invalid")
