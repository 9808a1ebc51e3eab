"""What a step is: a function from a job to "done" or "not yet".

The runner calls `do` inside a transaction that holds the operation's and the instance's row lock,
and marks the step done in that same transaction. So a step's database work happens exactly once;
still it must stand being repeated. A step never blocks: it returns `Waiting`, and is called again.
What takes seconds (moving bytes) it returns as `Work`: the runner does a slice of it without any
lock, and calls the step again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from tenants.core.errors import ServiceError
from tenants.instances.models import Instance, InstanceStatus


class StepError(ServiceError):
    """The step cannot be done: the operation fails, with this message."""

    status = 500
    code = "step_failed"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not yet: look again when the instance host reports, or at `until`.

    `task_id` is the host's task that the step waits for, whose bytes are the operation's progress;
    None: the task that has the operation's own id, if there is one.
    """

    until: datetime | None = None
    task_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Not yet: `slice` is to be done without locks, a second or two of it, and leaves its own mark.

    It may be done twice, also by two workers at once and after the operation has ended: whatever it
    writes must stand that. `bytes_done` of `bytes_total` were done before.
    """

    slice: Callable[[], None]
    bytes_done: int = 0
    bytes_total: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """What a step works on."""

    instance: Instance
    params: Mapping[str, Any] = field(default_factory=dict)
    operation_id: UUID | None = None  # None outside of an operation
    attempt: int = 1

    def task_id(self, name: str) -> UUID:
        """Return the id of a task of the host that belongs to this attempt of the operation."""
        return uuid5(self.own_id, f"{name} {self.attempt}")

    @property
    def own_id(self) -> UUID:
        """The operation's id, where there is one."""
        assert self.operation_id is not None
        return self.operation_id


Do = Callable[[Job], Waiting | Work | None]
Undo = Callable[[Job], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a kind. `undo` takes back what `do` did; None where there is nothing to.

    `is_done_at_start`: the request did it in the transaction that started the operation, so there
    is something to undo before any worker has looked.
    """

    name: str
    title: str
    do: Do
    undo: Undo | None = None
    is_done_at_start: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of operation. It starts on an instance in one of the statuses `starts_from`.

    `reopen` runs at a retry, before the first unfinished step: it asks the host anew. `ended` runs
    where the operation failed or was cancelled, so that the instance does not stay in between.
    `before_cancel` runs in the request that cancels, and may refuse it: there is no way back now.
    """

    starts_from: frozenset[InstanceStatus]
    steps: tuple[Step, ...]
    is_exclusive: bool = True
    is_cancellable: bool = True
    deadline: timedelta = timedelta(minutes=5)
    reopen: Undo | None = None
    ended: Callable[[Job, str], None] | None = None
    before_cancel: Undo | None = None
