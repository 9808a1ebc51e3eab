"""Writes: budgets, and their alerts: each threshold once a month, and once that one will be passed.

The task looks at each tenant's month once for all of its budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from tenants.accounts.models import Tenant
from tenants.billing.models import Budget, BudgetAlert, BudgetScope
from tenants.billing.money import decimal_text
from tenants.billing.notices import notice_write
from tenants.billing.selectors import budget_instances, currency_now
from tenants.billing.spend import Month, month_of
from tenants.core.errors import ConflictError, InvalidError, LimitError, invalid_field
from tenants.instances.selectors import instance_get

BUDGETS_MAX = 50
THRESHOLDS = (50, 80, 100)
THRESHOLDS_MAX = 10
LOOK_EVERY = timedelta(minutes=10)
FORECAST_AT = 100


@transaction.atomic
def budget_create(
    *,
    tenant: Tenant,
    actor: str,
    name: str,
    amount_micros: int,
    thresholds: Sequence[int] = THRESHOLDS,
    instance: str = "",
    tag_key: str = "",
    tag_value: str = "",
) -> Budget:
    """Make a budget of the tenant, of an instance, or of a tag, whichever is given."""
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    if Budget.objects.filter(tenant=tenant).count() >= BUDGETS_MAX:
        raise LimitError(f"a tenant has at most {BUDGETS_MAX} budgets")
    if instance and tag_key:
        raise invalid_field("tag_key", "an instance or a tag, not both")
    if tag_value and not tag_key:
        raise invalid_field("tag_key", "a value needs its key")
    budget = Budget(
        tenant=tenant,
        name=name,
        scope=_scope(instance, tag_key),
        amount_micros=amount_micros,
        thresholds=_thresholds_clean(thresholds),
        tag_key=tag_key,
        tag_value=tag_value,
        created_by=actor,
    )
    if instance:
        found = instance_get(tenant=tenant, handle=instance)
        budget.instance_id, budget.instance = found.pk, found.handle
    return _save(budget)


@transaction.atomic
def budget_change(
    *,
    budget: Budget,
    name: str | None = None,
    amount_micros: int | None = None,
    thresholds: Sequence[int] | None = None,
) -> Budget:
    """Change a budget; what was told this month of a threshold that stays is not told again."""
    budget = Budget.objects.select_for_update().get(pk=budget.pk)
    if name is not None:
        budget.name = name
    if amount_micros is not None and amount_micros != budget.amount_micros:
        # Of another amount the thresholds are others.
        budget.amount_micros = amount_micros
        budget.alerts.all().delete()
    if thresholds is not None:
        budget.thresholds = _thresholds_clean(thresholds)
    budget.looked_at = None
    return _save(budget)


def budget_delete(*, budget: Budget) -> None:
    """Forget a budget and its alerts."""
    budget.delete()


def budgets_follow(*, now: datetime | None = None) -> int:
    """Look at the budgets that were not looked at lately; return how many tenants."""
    moment = now or timezone.now()
    due = Budget.objects.exclude(looked_at__gt=moment - LOOK_EVERY)
    tenants = list(due.order_by("tenant_id").values_list("tenant_id", flat=True).distinct())
    for tenant_id in tenants:
        tenant_follow(tenant=Tenant.objects.get(pk=tenant_id), now=moment)
    return len(tenants)


def tenant_follow(*, tenant: Tenant, now: datetime) -> None:
    """Bring all budgets of a tenant up to date and give the alerts that are due."""
    month = month_of(tenant=tenant, now=now)
    for budget in Budget.objects.filter(tenant=tenant).order_by("id"):
        with transaction.atomic():
            locked = Budget.objects.select_for_update().filter(pk=budget.pk).first()
            if locked is not None:
                _follow(locked, month)


def _follow(budget: Budget, month: Month) -> None:
    instances = budget_instances(budget=budget)
    budget.spent_micros = month.spent(instances)
    budget.forecast_micros = month.forecast(instances)
    budget.looked_at = month.now
    budget.save(update_fields=["spent_micros", "forecast_micros", "looked_at", "updated_at"])
    passed = [
        threshold
        for threshold in sorted(budget.thresholds)
        if budget.spent_micros * 100 >= budget.amount_micros * threshold
        and _is_new(budget, month, threshold)
    ]
    if passed:
        _tell(budget, month, f"budget.{'over' if passed[-1] >= 100 else 'threshold'}", passed[-1])
    elif budget.spent_micros < budget.amount_micros <= budget.forecast_micros and _is_new(
        budget, month, FORECAST_AT, is_forecast=True
    ):
        _tell(budget, month, "budget.forecast", FORECAST_AT)


def _is_new(budget: Budget, month: Month, threshold: int, *, is_forecast: bool = False) -> bool:
    _, is_new = BudgetAlert.objects.get_or_create(
        budget=budget, month=month.start, threshold=threshold, is_forecast=is_forecast
    )
    return is_new


def _tell(budget: Budget, month: Month, kind: str, threshold: int) -> None:
    currency = currency_now()
    spent, forecast, amount = (
        f"{decimal_text(micros, 2)} {currency}"
        for micros in (budget.spent_micros, budget.forecast_micros, budget.amount_micros)
    )
    title = (
        f"The budget {budget.name} will be used up this month"
        if kind == "budget.forecast"
        else f"The budget {budget.name} is used to {threshold} %"
    )
    notice_write(
        tenant_id=budget.tenant_id,
        kind=kind,
        subject_id=budget.pk,
        title=title,
        text=f"{spent} of {amount} were spent in {month.start:%B %Y} so far; "
        f"at its end it will be about {forecast}.",
        data={
            "budget": budget.name,
            "percent": threshold,
            "spent_micros": budget.spent_micros,
            "forecast_micros": budget.forecast_micros,
            "amount_micros": budget.amount_micros,
            "currency": currency,
        },
        is_open=False,
    )


def _scope(instance: str, tag_key: str) -> BudgetScope:
    if instance:
        return BudgetScope.INSTANCE
    return BudgetScope.TAG if tag_key else BudgetScope.TENANT


def _thresholds_clean(thresholds: Sequence[int]) -> list[int]:
    if not 1 <= len(set(thresholds)) <= THRESHOLDS_MAX:
        raise invalid_field("thresholds", f"1 to {THRESHOLDS_MAX} of them")
    return sorted(set(thresholds))


def _save(budget: Budget) -> Budget:
    try:
        budget.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        raise InvalidError("the budget is not valid", fields=error.message_dict) from error
    try:
        with transaction.atomic():
            budget.save()
    except IntegrityError as error:
        raise ConflictError("this name is taken", code="name_taken") from error
    return budget
