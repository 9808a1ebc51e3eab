"""The base of every model: an id that sorts by time of creation, and two times."""

from __future__ import annotations

import os
import time
import uuid

from django.db import models
from django.utils import timezone


def uuid7() -> uuid.UUID:
    """Return a UUID of version 7 (RFC 9562 section 5.7): 48 bits of milliseconds, then chance."""
    value = int.from_bytes(os.urandom(16))
    value &= ~(0xFFFFFFFFFFFF << 80 | 0xF << 76 | 0x3 << 62)
    value |= (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | 0x2 << 62
    return uuid.UUID(int=value)


class BaseModel(models.Model):
    """`id` orders rows by creation, so that it serves as the cursor of every page."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
