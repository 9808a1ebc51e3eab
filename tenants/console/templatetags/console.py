"""`{% load console %}`: colours, states in words, rights, and figures with units."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from tenants.accounts.actors import Actor
from tenants.billing.money import decimal_text

register = template.Library()

THEMES = ("system", "light", "dark")
# A state of whatever has states -> the colour of its badge; what is not listed is grey.
LEVELS: Mapping[str, str] = {
    **dict.fromkeys(
        ["active", "succeeded", "ready", "paid", "success", "enabled", "verified", "done"], "good"
    ),
    **dict.fromkeys(
        ["running", "scheduled", "provisioning", "writing", "receiving", "open"], "info"
    ),
    **dict.fromkeys(
        ["suspended", "quarantined", "purging", "cancelling", "paused", "draft", "expiring"], "warn"
    ),
    **dict.fromkeys(["failed", "failure", "overdue", "revoked", "disabled", "exceeded"], "bad"),
}
# What stands where there is no value (an en dash).
NOTHING = "\u2013"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@register.simple_tag(takes_context=True)
def theme(context: Mapping[str, Any]) -> str:
    """Return the colours that the person chose, "system" for none."""
    request = context.get("request")
    wish = request.COOKIES.get("theme", "") if request is not None else ""
    return wish if wish in THEMES else "system"


@register.simple_tag(takes_context=True)
def pressed(context: Mapping[str, Any], wish: str) -> str:
    """Return aria-pressed of the switch to `wish`."""
    return "true" if theme(context) == wish else "false"


@register.filter
def may(actor: Actor, action: str) -> bool:
    """Say whether the actor may do `action` on the whole tenant: `actor|may:"instances.create"`."""
    return actor.may(action)


@register.filter
def status_level(value: object) -> str:
    """Return the class of a state's badge."""
    return LEVELS.get(str(value), "")


@register.filter
def status_word(value: object) -> str:
    """Return a state as people read it."""
    return str(value).replace("_", " ")


@register.filter
def size(value: int | None) -> str:
    """Return bytes with a binary unit, as plans and servers count them."""
    if value is None:
        return NOTHING
    amount = float(value)
    unit = 0
    while amount >= 1024 and unit < len(UNITS) - 1:
        amount /= 1024
        unit += 1
    return (
        f"{amount:.0f} {UNITS[unit]}"
        if unit == 0 or amount >= 100
        else f"{amount:.1f} {UNITS[unit]}"
    )


@register.filter
def count(value: int | None) -> str:
    """Return a whole number with thin spaces between thousands."""
    return NOTHING if value is None else f"{value:,}".replace(",", "\u202f")


@register.filter
def money(micros: int | None, currency: str) -> str:
    """Return millionths of a currency as an amount: two places, more where they would be zero."""
    if micros is None:
        return NOTHING
    places = 2 if micros == 0 or abs(micros) >= 10_000 else 6
    return f"{decimal_text(micros, places)} {currency}".strip()


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """Return a time as UTC to the second; the script adds the reader's own time as a title."""
    if value is None:
        return NOTHING
    at = timezone.localtime(value, timezone.get_fixed_timezone(0))
    return format_html(
        '<time class="nowrap" data-local datetime="{}">{} UTC</time>',
        at.isoformat(),
        at.strftime("%Y-%m-%d %H:%M:%S"),
    )


@register.filter
def share(done: float | None, total: float | None) -> int:
    """Return how many of a hundred parts `done` is of `total`, 0 to 100."""
    if not done or not total:
        return 0
    return max(0, min(100, round(100 * done / total)))
