"""What is taken exactly as it is sent: JSON's types in every body, and every query parameter once.

REST framework reads `0` as false and 7 as "7", and an empty parameter as none; a caller who sends
that has made a mistake, and is told. In some bodies a word that nobody knows is refused too, where
leaving it out would give more rights: a misspelt `scope` of a policy must not be taken for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import QueryDict
from drf_spectacular.extensions import OpenApiSerializerExtension
from rest_framework import serializers

# Kind of field -> the types of JSON that it is given in, and what the caller is told; the first
# that fits. Fields that are not here look at what they get themselves.
JSON_TYPES: tuple[
    tuple[type[serializers.Field[Any, Any, Any, Any]], tuple[type, ...], str], ...
] = (
    (serializers.BooleanField, (bool,), "true or false"),
    (serializers.IntegerField, (int, float), "a number"),
    (serializers.CharField, (str,), "a text"),
    (serializers.DateTimeField, (str,), "a text"),
    (serializers.UUIDField, (str,), "a text"),
    (serializers.ChoiceField, (str,), "a text"),
)


def demand_exact(field: Any, value: Any) -> None:
    """Refuse what is of another JSON type than `field` says, at whatever depth.

    Raises ValidationError in the shape of the body. null, and what is no object or list where one
    is wanted, is the field's own matter.
    """
    errors: dict[Any, Any] = {}
    for key, inner, part in _parts(field, value):
        try:
            demand_exact(inner, part)
        except serializers.ValidationError as error:
            errors[key] = error.detail
    if errors:
        raise serializers.ValidationError(errors)
    for kind, types, words in JSON_TYPES:
        if isinstance(field, kind) and value is not None:
            if not isinstance(value, types) or (bool not in types and isinstance(value, bool)):
                raise serializers.ValidationError([f"It must be {words}."])
            return


def _parts(field: Any, value: Any) -> list[tuple[Any, Any, Any]]:
    """Return what a value is made of: keys or places, with their fields and values."""
    if isinstance(field, serializers.Serializer) and isinstance(value, Mapping):
        return [(name, inner, value[name]) for name, inner in field.fields.items() if name in value]
    if isinstance(field, serializers.DictField) and isinstance(value, Mapping):
        return [(name, field.child, part) for name, part in value.items()]
    has_places = isinstance(field, serializers.ListField | serializers.ListSerializer)
    if has_places and isinstance(value, list):
        return [(place, field.child, part) for place, part in enumerate(value)]
    return []


def parameters_once(query: QueryDict) -> dict[str, str]:
    """Return a query's parameters; refuse one that is given twice."""
    twice = sorted(name for name, values in query.lists() if len(values) > 1)
    if twice:
        raise serializers.ValidationError({name: ["It is given twice."] for name in twice})
    return {name: str(value) for name, value in query.items()}


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not have."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, Mapping) else []
        if unknown:
            raise serializers.ValidationError(
                {name: ["There is no such field."] for name in unknown}
            )
        return super().to_internal_value(data)


class StrictSchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Says so in the OpenAPI document."""

    target_class = StrictSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_basic_serializer(self.target, direction)
        if direction == "request":
            schema["additionalProperties"] = False
        return schema
