"""Forms of the billing pages; what they mean is checked by the API."""

from __future__ import annotations

from typing import Any

from django import forms

from tenants.billing.budgets import THRESHOLDS, THRESHOLDS_MAX
from tenants.billing.money import decimal_text, micros_of

AMOUNT_CHARACTERS_MAX = 19


class AmountField(forms.Field):
    """An amount as people write it, "250" or "12.50"; its value is micro-units."""

    def to_python(self, value: Any) -> Any:
        text = str(value or "")
        micros = micros_of(text) if len(text) <= AMOUNT_CHARACTERS_MAX else None
        if text and not micros:
            raise forms.ValidationError("An amount above zero, such as 250 or 12.50.")
        return micros


class ThresholdsField(forms.CharField):
    """Per cent figures with commas; its value is a list of them."""

    def to_python(self, value: Any) -> Any:
        words = str(value or "").replace("%", "").replace(",", " ").split()
        if not all(word.isascii() and word.isdigit() and len(word) < 5 for word in words):
            raise forms.ValidationError("Whole per cent figures, such as 50, 80, 100.")
        return [int(word) for word in words]


class BudgetChangeForm(forms.Form):
    name = forms.CharField(max_length=80)
    amount_micros = AmountField(label="Amount for each month")
    thresholds = ThresholdsField(
        max_length=80,
        help_text=f"Per cent at which you are told, up to {THRESHOLDS_MAX}, with commas.",
        initial=", ".join(map(str, THRESHOLDS)),
    )


class BudgetForm(BudgetChangeForm):
    instance = forms.ChoiceField(required=False, help_text="Or a tag below, or all instances.")
    tag_key = forms.CharField(max_length=64, required=False, label="Tag")
    tag_value = forms.CharField(max_length=128, required=False, label="Value of the tag")

    def __init__(self, *args: Any, handles: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["instance"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "All instances"), *((handle, handle) for handle in handles)]


def amount_shown(micros: int) -> str:
    """Return an amount as a person would write it into the form."""
    return decimal_text(micros).rstrip("0").rstrip(".")
