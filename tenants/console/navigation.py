"""What stands in the side bar of a tenant, and in a person's menu; add a row with your page.

The order of the rows is the order of the bar: Overview, Instances, Operations, Backups, IAM, Audit,
Billing, Members, Webhooks, Settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.urls import reverse

from tenants.accounts.actors import Actor


@dataclass(frozen=True, slots=True)
class Item:
    """One place: shown to who may do `action`; `key` is the letter after `g` that leads there.

    `icon` names a symbol of `templates/components/icons.html`. Pages whose address name begins with
    one of `covers` mark it as where one is.
    """

    label: str
    page: str
    icon: str
    action: str
    key: str = ""
    covers: tuple[str, ...] = ()


NAVIGATION: tuple[Item, ...] = (
    Item("Overview", "overview", "home", "tenant.read", "o"),
    Item(
        "Instances", "instances", "database", "tenant.read", "i", covers=("instance", "credential")
    ),
    Item("Operations", "operations", "operations", "operations.read", "p", covers=("operation",)),
    Item("IAM", "iam", "lock", "service_ids.read", "a", covers=("iam-",)),
    Item("Audit", "audit", "audit", "audit.read", "u", covers=("audit-",)),
    Item("Billing", "billing", "bill", "billing.read", "b", covers=("billing-",)),
    Item("Members", "members", "people", "members.read", "m", covers=("member",)),
    Item("Webhooks", "webhooks", "webhook", "webhooks.read", "w", covers=("webhook",)),
    Item("Settings", "tenant-settings", "settings", "tenant.update", "s"),
    Item("My keys", "my-keys", "key", "own_keys.manage", "k", covers=("my-key",)),
)

# Places of the person who is signed in, not of a tenant: label and address name.
ACCOUNT: tuple[tuple[str, str], ...] = (
    ("Your account", "account_profile"),
    ("Sessions", "account_sessions"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """A place as a template shows it."""

    label: str
    address: str
    icon: str = ""
    key: str = ""
    is_current: bool = False


def navigation_links(actor: Actor, page: str) -> list[Link]:
    """Return the places of the actor's tenant that it may see; `page` is where it is."""
    return [
        Link(
            label=item.label,
            address=reverse(f"console:{item.page}", args=[actor.tenant.handle]),
            icon=item.icon,
            key=item.key,
            is_current=page == item.page or _is_below(page, item.covers),
        )
        for item in NAVIGATION
        if actor.may(item.action)
    ]


def account_links() -> list[Link]:
    """Return the places of a person's menu."""
    return [Link(label, reverse(page)) for label, page in ACCOUNT]


def _is_below(page: str, covers: Iterable[str]) -> bool:
    return any(page.startswith(prefix) for prefix in covers)
