"""The base of every model: an id that sorts by time of creation, and two times."""

from __future__ import annotations

import os
import time
import uuid

from django.db import models
from django.utils import timezone


def uuid7() -> uuid.UUID:
    """Return a UUID of version 7 (RFC 9562 section 5.7, 6.2 method 3): milliseconds, 4096ths of
    one, then chance. So those that one process makes are in order.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = int.from_bytes(os.urandom(8)) & ~(0x3 << 62)
    value |= milliseconds << 80 | 0x7 << 76 | (nanoseconds * 4096 // 1_000_000) << 64 | 0x2 << 62
    return uuid.UUID(int=value)


class BaseModel(models.Model):
    """`id` orders rows by creation, so that it serves as the cursor of every page."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
