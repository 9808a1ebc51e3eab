"""What a list of instances can be narrowed to: ?engine= ?plan= ?status= ?tag= ?q=, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from tenants.instances.models import Instance, InstanceStatus

WORDS_MAX = 40
TAG_MAX = 200


class InstanceFilter(serializers.Serializer[Instance]):
    engine = serializers.CharField(required=False, max_length=32)
    plan = serializers.CharField(required=False, max_length=32)
    status = serializers.ChoiceField(InstanceStatus.choices, required=False)
    tag = serializers.CharField(
        required=False, max_length=TAG_MAX, help_text="`key`, or `key:value` for one value of it."
    )
    q = serializers.CharField(
        required=False, max_length=WORDS_MAX, help_text="A part of the handle."
    )


def instance_filter(rows: QuerySet[Instance], wanted: Mapping[str, Any]) -> QuerySet[Instance]:
    """Return those of `rows` that are as an InstanceFilter says."""
    equals = {"engine": "engine", "plan": "plan__name", "status": "status"}
    rows = rows.filter(**{equals[name]: wanted[name] for name in equals if name in wanted})
    if "q" in wanted:
        rows = rows.filter(handle__contains=wanted["q"].lower())
    if "tag" not in wanted:
        return rows
    key, has_value, value = wanted["tag"].partition(":")
    if has_value:
        return rows.filter(tags__contains={key: value})
    return rows.filter(tags__has_key=key)
