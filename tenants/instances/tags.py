"""Tags: what a tenant calls its instances by in cost reports and budgets, key and value."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tenants.core.errors import invalid_field

TAGS_MAX = 20
VALUE_CHARACTERS_MAX = 128
KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:/-]{0,62}[A-Za-z0-9])?")


def tags_clean(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags in the order of their keys; InvalidError where they break a bound."""
    if len(tags) > TAGS_MAX:
        raise invalid_field("tags", f"at most {TAGS_MAX}")
    for key, value in tags.items():
        if not KEY.fullmatch(key):
            raise invalid_field(
                "tags", "a key is 1 to 64 letters, digits and _.:/- with a letter or digit at ends"
            )
        if len(value) > VALUE_CHARACTERS_MAX or not (value.isprintable() or not value):
            raise invalid_field(
                "tags", f"a value is up to {VALUE_CHARACTERS_MAX} printable characters"
            )
    return dict(sorted(tags.items()))
