"""Writes: the next price list. What is in force is never changed, so old invoices stay true."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from tenants.billing.models import GAUGES, Price, PriceList
from tenants.core.errors import ConflictError, InvalidError, invalid_field
from tenants.usage.models import Plan


@transaction.atomic
def price_list_publish(
    *, valid_from: datetime, prices: Sequence[dict[str, Any]], now: datetime | None = None
) -> PriceList:
    """Make the list that holds from `valid_from` on, in the currency of the lists before.

    Each of `prices` has the fields of `models.Price`.
    """
    last = PriceList.objects.select_for_update().order_by("-version").first()
    assert last is not None, "the first list comes with the installation"
    if valid_from <= (now or timezone.now()):
        raise invalid_field("valid_from", "in the past: what was used has its price")
    if valid_from <= last.valid_from:
        raise invalid_field("valid_from", "later than the list before")
    if valid_from.replace(minute=0, second=0, microsecond=0) != valid_from:
        raise invalid_field("valid_from", "a whole hour: usage is kept by the hour")
    _refuse_wrong_prices(prices)
    try:
        with transaction.atomic():
            made = PriceList.objects.create(
                version=last.version + 1, currency=last.currency, valid_from=valid_from
            )
    except IntegrityError as error:
        raise ConflictError("another list was published meanwhile", code="price_list") from error
    Price.objects.bulk_create(Price(price_list=made, **price) for price in prices)
    return made


def _refuse_wrong_prices(prices: Sequence[dict[str, Any]]) -> None:
    plans = set(Plan.objects.values_list("name", flat=True))
    seen: set[tuple[str, str]] = set()
    for price in prices:
        key = (price["plan"], price["meter"])
        if price["plan"] not in plans:
            raise invalid_field("prices", f"there is no plan {price['plan']!r}")
        if key in seen:
            raise invalid_field("prices", f"two of {price['meter']} in {price['plan']}")
        if price.get("included", 0) and price["meter"] not in GAUGES:
            raise invalid_field("prices", f"only of {', '.join(GAUGES)} something is included")
        seen.add(key)
    missing = [
        instance_plan
        for instance_plan in sorted(plans)
        if not any(plan == instance_plan for plan, _ in seen)
    ]
    if missing:
        raise InvalidError(
            f"the list has no price of {', '.join(missing)}; give what is free a price of 0",
            fields={"prices": [f"none of {', '.join(missing)}"]},
        )
